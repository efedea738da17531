"""After the signal of an interruption no older speech comes."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from pipecat.frames.frames import OutputAudioRawFrame

from pipecat_bridge.embedded.espeak import Espeak
from pipecat_bridge.embedded.pipeline import build
from pipecat_bridge.embedded.receptionist import KEY, Receptionist
from pipecat_bridge.embedded.spec import CallSpec
from pipecat_bridge.embedded.transport import CallOutput

from .fake_bridge import FakeBridge, FakeCall, protobufs
from .runner_process import RunnerProcess

pytestmark = pytest.mark.pipecat
SAME = 64 * 2  # bytes of an utterance that are always the same
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
            await _until_signal(call, number)
            await asyncio.sleep(waits.uniform(0.0, 0.2))
        await runner.post("/stop?id=c1")
    _check(call)


async def _until_signal(call: FakeCall, number: int) -> None:
    """Wait for a number of signals, and for new speech after the last one."""
    await call.until(lambda: len(_signals(call)) == number)
    await call.until(lambda: call.audio(_signals(call)[-1]))


@pytest.mark.parametrize("interruptible", [True, False])
def test_a_chunk_taken_from_the_queue_before_the_signal_is_not_sent_after_it(
    interruptible: bool,
) -> None:
    asyncio.run(_late_chunk(interruptible))


async def _late_chunk(interruptible: bool) -> None:
    spec = CallSpec(id="c1", ws_url="", bot="echo")
    output = build(spec).transport.output()
    session = output._session = RecordingSession()  # type: ignore[assignment]  # in its place
    old = OutputAudioRawFrame(bytes([1, 0]), 16000, 1)
    old.interruptible = interruptible
    await CallOutput._tell_of_interruption(output)
    new = OutputAudioRawFrame(bytes([2, 0]), 16000, 1)
    for frame in (old, new):
        await CallOutput.write_audio_frame(output, frame)
    heard = [frame.audio.audio[0] for frame in session.frames if frame.audio.audio]
    assert heard == ([2] if interruptible else [1, 2])


class RecordingSession:
    """A session that keeps what is sent."""

    is_connected, is_closing = True, False

    def __init__(self) -> None:
        self.frames: list[Any] = []

    async def send(self, data: bytes) -> bool:
        """Keep one frame."""
        self.frames.append(protobufs.Frame.FromString(data))
        return True


def _check(call: FakeCall) -> None:
    signals = [*_signals(call), len(call.frames)]
    for key, start, end in zip(KEYS, signals, signals[1:], strict=False):
        said = b"".join(f.audio.audio for f in call.frames[start:end])
        assert said.startswith(_beginning_of_answer(key))
        assert _message(call, start + 1)["type"] == "bot-interrupted"
    interrupted = [m for m in call.messages if m["type"] == "bot-interrupted"]
    assert len(interrupted) == len(KEYS)


def _beginning_of_answer(key: str) -> bytes:
    """The first samples of a text. espeak-ng repeats only these exactly."""
    sentence = Receptionist().answer(KEY.format(key)).text.partition(". ")[0] + "."
    return Espeak().synthesize(sentence, "en-us")[0][:SAME]


def _signals(call: FakeCall) -> list[int]:
    return [n for n, frame in enumerate(call.frames) if frame.text.text == "FLUSH_MEDIA"]


def _message(call: FakeCall, number: int) -> dict[str, object]:
    message: dict[str, object] = json.loads(call.frames[number].message.data)
    return message
