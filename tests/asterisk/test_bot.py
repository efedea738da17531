"""Bots as they are: silent, in a hurry, interrupted; as the far end of a real line hears them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import pytest_twisted

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import Caller, call
from tests.asterisk.calls import APPLICATION, DRIVERS, bot_of, lost
from tests.asterisk.compare import compare
from tests.asterisk.conftest import Measurements, wait
from tests.asterisk.pbx import Pbx
from tests.doubles.bot import BotAudio
from tests.doubles.runner import RunnerDouble

RATE = 8000


def _quiet(pbx: Pbx, seconds: float) -> Path:
    return sound.write(
        pbx.folder / "takes", f"quiet-{seconds:g}", RATE, sound.silence(seconds, RATE)
    )


class Minute(NamedTuple):
    """A call with a bot that says nothing, which goes on beside the other tests of this file."""

    caller: Caller
    call_id: str


@pytest.fixture(scope="module", autouse=True)
def minute(pbx: Pbx, runner: RunnerDouble) -> Minute:
    """Begins before the first test."""
    return wait(_begin_minute(pbx, runner))


async def _begin_minute(pbx: Pbx, runner: RunnerDouble) -> Minute:
    runner.bot_options = {}
    caller = await call(pbx, APPLICATION, _quiet(pbx, 65), RATE)
    return Minute(caller, await caller.variable("PIPECAT_CALL"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_twenty_seconds_at_once(
    driver: str, pbx: Pbx, bridge: Bridge, runner: RunnerDouble, measured: Measurements
) -> None:
    """The far end hears all of it, in time: no queue in Asterisk has dropped any."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS[driver], _quiet(pbx, 24), RATE, "PIPECAT_FORMAT=slin")
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    bot.burst(sound.pcm(sound.speech_like(20.0, 24000)), 24000)
    await caller.ended()
    sent = sound.resampled(sound.speech_like(20.0, 24000), 24000, RATE)
    result = compare(sent, caller.heard(), RATE)
    measured.add(f"20 s at once, {driver}", **result.figures)
    assert result.correlation >= 0.999, result
    assert not result.gaps
    assert not lost(result)
    assert (await bridge.outcome(call_id))["quality"]["underruns"] == 0


@pytest.mark.parametrize("how", ["frame", "rtvi", "flush_media"])
@pytest_twisted.ensureDeferred
async def test_barge_in(
    how: str, pbx: Pbx, bridge: Bridge, runner: RunnerDouble, measured: Measurements
) -> None:
    """A bot with 10 s queued is interrupted when it hears the caller; the caller hears it stop.

    Both are in the caller's recordings, on one time line: from the caller's first sound to the
    bot's last. The way to the bot, its decision, and the way back are all in it.
    """
    runner.bot_options = {}
    beep = np.concatenate([sound.silence(4.0, RATE), sound.tone(1000, 0.5, RATE)])
    beep = np.concatenate([beep, sound.silence(1.5, RATE)])
    said = sound.write(pbx.folder / "takes", "barge-in", RATE, beep)
    caller = await call(pbx, APPLICATION, said, RATE)
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    bot.burst(sound.pcm(sound.tone(500, 10.0, 16000)), 16000)
    await bot.until(lambda: bool(bot.audio) and _loud(bot.audio[-1]))
    bot.interrupt(how)  # type: ignore[arg-type]
    await caller.ended()
    first = int(np.flatnonzero(np.abs(caller.said()) > 0.05)[0])
    last = int(np.flatnonzero(np.abs(caller.heard()) > 0.05)[-1])
    after = 1000 * (last - first) / RATE
    record = await bridge.outcome(call_id)
    measured.add(f"barge-in ({how})", first_sound_to_last_ms=round(after))
    assert np.abs(caller.heard()[first - RATE : first]).max() > 0.2, "the bot was not talking"
    assert 0 < after < 300
    assert record["quality"]["interruptions"] == 1
    assert record["quality"]["flushed_ms"] > 5000


@pytest_twisted.ensureDeferred
async def test_a_silent_bot_keeps_the_call_for_a_minute(minute: Minute, bridge: Bridge) -> None:
    """The application ends a call after two seconds in which nothing is sent."""
    await minute.caller.ended(90)
    record = await bridge.outcome(minute.call_id)
    assert record["outcome"] == "caller-hangup"
    assert record["ended_at"] - record["created_at"] > 60
    assert record["quality"]["phone_frames"] > 60 * 50


def _loud(frame: BotAudio) -> bool:
    return bool(np.abs(np.frombuffer(frame.pcm, "<i2")).max() > 1000)
