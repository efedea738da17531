"""A whole call by voice, with the real Pipecat in a process of its own."""

from __future__ import annotations

import asyncio

import pytest

from pipecat_bridge.embedded.recogniser import transcribe

from .fake_bridge import FakeBridge, FakeCall
from .runner_process import RunnerProcess

pytestmark = pytest.mark.pipecat

ANSWERS = """#JSGF V1.0;
grammar answers;
public <answer> = our address is twelve harbour street right next to the central station
                  is there anything else i can help you with;
"""


def test_a_caller_asks_interrupts_asks_again_and_says_goodbye() -> None:
    asyncio.run(_conversation())


async def _conversation() -> None:
    async with RunnerProcess() as runner, FakeBridge() as bridge:
        call = bridge.expect("c1")
        body = {
            "id": "c1",
            "ws_url": f"{bridge.url}/c1/ws",
            "metadata": {"caller_name": "Alice"},
            "unknown": 1,
        }
        assert await runner.post("/run", json=body) == (200, {"status": "ok", "id": "c1"})
        await call.until(lambda: call.input)
        await call.until(lambda: any(m["type"] == "bot-ready" for m in call.messages))
        caller = asyncio.create_task(call.listen_and_speak())

        await _until_silent(call, 1)
        assert call.texts("bot-llm-text")[0].startswith("Hello, Alice, this is the front desk")
        call.say("what are your opening hours")
        await call.until(lambda: len(_of_type(call, "bot-started-speaking")) == 2)
        assert call.texts("user-transcription") == ["what are your opening hours"]
        await asyncio.sleep(2.0)
        call.say("what is your address")
        await _until_interrupted(call)
        await _until_silent(call, 3)
        assert call.texts("user-transcription")[1] == "what is your address"
        call.say("thank you goodbye")
        await call.until(lambda: call.close_codes)
        await caller

        assert call.close_codes == [1000]
        assert call.texts("bot-transcription")[-1].strip() == "Goodbye!"
        await runner.until_idle()
        _check_audio(call)


def _of_type(call: FakeCall, kind: str) -> list[dict[str, object]]:
    return [message for message in call.messages if message["type"] == kind]


async def _until_silent(call: FakeCall, turns: int) -> None:
    await call.until(lambda: len(_of_type(call, "bot-stopped-speaking")) >= turns)


async def _until_interrupted(call: FakeCall) -> None:
    """The third signal. Each turn of the caller gives one, and two interrupt nothing."""
    await call.until(lambda: len(_flushes(call)) >= 2)


def _flushes(call: FakeCall) -> list[int]:
    return [n for n, frame in enumerate(call.frames) if frame.text.text == "FLUSH_MEDIA"]


def _check_audio(call: FakeCall) -> None:
    rates = {f.audio.sample_rate for f in call.frames if f.WhichOneof("frame") == "audio"}
    assert rates == {22050}
    flushes = _flushes(call)
    hours = call.audio()[: len(call.audio()) - len(call.audio(flushes[1]))]
    assert len(hours) / 2 / 22050 < 12  # the answer was cut: it alone takes 14 s
    after = call.audio(flushes[1])[: len(call.audio(flushes[1])) - len(call.audio(flushes[2]))]
    assert transcribe(after, 22050, ANSWERS).startswith("our address is twelve")
