"""One model for all calls, and a separate detector for each call."""

from __future__ import annotations

import asyncio

import pytest
from pipecat.audio.vad.vad_analyzer import VADState

from pipecat_bridge.embedded.vad import voice_activity

from .fake_bridge import FRAME, RATE, telephone_speech

pytestmark = pytest.mark.pipecat


def test_what_one_caller_says_and_how_the_call_ends_is_nothing_to_another() -> None:
    asyncio.run(_two_callers())


async def _two_callers() -> None:
    speaking, silent = voice_activity(RATE, 0.4), voice_activity(RATE, 0.4)
    states = set()
    speech = telephone_speech("what is your address")
    for start in range(0, len(speech), FRAME):
        states.add(await speaking.analyze_audio(speech[start : start + FRAME]))
        assert await silent.analyze_audio(bytes(FRAME)) == VADState.QUIET
    assert VADState.SPEAKING in states
    await speaking.cleanup()  # type: ignore[no-untyped-call]  # Pipecat's
    assert await silent.analyze_audio(bytes(FRAME)) == VADState.QUIET
    await silent.cleanup()  # type: ignore[no-untyped-call]  # Pipecat's
