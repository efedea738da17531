"""After the signal of an interruption nothing comes that was meant to be said before it."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from pipecat_bridge.bot.espeak import Espeak
from pipecat_bridge.bot.receptionist import KEY, Receptionist

from .fake_bridge import FakeBridge, FakeCall
from .runner_process import RunnerProcess

pytestmark = pytest.mark.pipecat
KEYS = [random.Random(3).choice("12") for _ in range(25)]


def test_every_interruption_is_signalled_once_and_cuts_between_old_and_new() -> None:
    asyncio.run(_interruptions())


async def _interruptions() -> None:
    waits = random.Random(4)
    async with RunnerProcess() as runner, FakeBridge() as bridge:
        call = bridge.expect("c1")
        await runner.post("/run", json={"id": "c1", "ws_url": f"{bridge.url}/c1/ws"})
        await call.until(lambda: len(call.audio()) > 20000)
        for number, key in enumerate(KEYS, 1):
            await call.send_message("dtmf", {"buttons": [key]})
            await call.until(lambda number=number: len(_signals(call)) == number)
            await call.until(lambda: call.audio(_signals(call)[-1]))
            await asyncio.sleep(waits.uniform(0.0, 0.2))
        await runner.post("/stop?id=c1")
    _check(call)


def _check(call: FakeCall) -> None:
    signals = [*_signals(call), len(call.frames)]
    for key, start, end in zip(KEYS, signals, signals[1:], strict=False):
        said = b"".join(f.audio.audio for f in call.frames[start:end])
        answer = Receptionist().answer(KEY.format(key)).text
        expected, _ = Espeak().synthesize(answer.partition(". ")[0] + ".", "en-us")
        assert said
        assert expected.startswith(said[: len(expected)])
        assert _message(call, start + 1)["type"] == "bot-interrupted"
    interrupted = [m for m in call.messages if m["type"] == "bot-interrupted"]
    assert len(interrupted) == len(KEYS)


def _signals(call: FakeCall) -> list[int]:
    return [n for n, frame in enumerate(call.frames) if frame.text.text == "FLUSH_MEDIA"]


def _message(call: FakeCall, number: int) -> dict[str, object]:
    message: dict[str, object] = json.loads(call.frames[number].message.data)
    return message
