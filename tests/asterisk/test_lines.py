"""Lines that are not what one hopes for: on hold, and in a codec that nobody named."""

from __future__ import annotations

import numpy as np
import pytest
import pytest_twisted

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import call
from tests.asterisk.calls import DRIVERS, bot_of, check_sound, echo_from_now_on, judged
from tests.asterisk.conftest import Measurements
from tests.asterisk.pbx import Pbx
from tests.doubles.runner import RunnerDouble

HOLD = 5


def _signal() -> sound.Signal:
    """Three seconds for the bot to come, then four of sound."""
    words = sound.speech_like(4.0, 8000)
    return np.concatenate([sound.silence(3.0, 8000), words, sound.silence(1.0, 8000)])


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_a_caller_on_hold_comes_back(
    driver: str, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """Five seconds without a frame: the bot gets silence in time, and then the caller again."""
    runner.bot_options = {}
    words = np.concatenate([sound.speech_like(1.0, 8000), sound.silence(0.5, 8000)])
    short = sound.write(pbx.folder / "takes", "hold", 8000, words)
    caller = await call(pbx, DRIVERS[driver], short, 8000, f"HOLD={HOLD}", exten="hold")
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    await caller.ended()
    record = await bridge.outcome(call_id)
    assert record["outcome"] == "caller-hangup"
    assert record["quality"]["caller_frames_filled"] >= 0.9 * HOLD * 50
    # The stream toward the bot did not pause: as many seconds of audio as of time.
    span = bot.audio[-1].at - bot.audio[0].at
    seconds = len(bot.pcm()) / 2 / 16000
    assert abs(seconds - span) < 0.3, (seconds, span)
    heard = np.frombuffer(bot.pcm(), "<i2").astype(float) / sound.FULL_SCALE
    spoken = np.abs(heard[-16000:]).max()
    assert spoken > 0.1, "the caller was not heard after the hold"


@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
@pytest_twisted.ensureDeferred
async def test_dial_without_c_is_understood(
    codec: str, pbx: Pbx, runner: RunnerDouble, measured: Measurements
) -> None:
    """G.711 under the kind of linear audio: recognised, warned about, and right."""
    runner.bot_options = {}
    daemon = Bridge(runner.url, {"audiosocket": {"g711": codec}})
    await daemon.start()
    signal = _signal()
    said = sound.write(pbx.folder / "takes", f"said-{codec}", 8000, signal)
    caller = await call(pbx, "bare@suite", said, 8000, *daemon.variables, codec=codec)
    call_id = await caller.variable("PIPECAT_CALL")
    await echo_from_now_on(runner, call_id)
    await caller.ended()
    record = await daemon.outcome(call_id)
    assert "c(slin)" in daemon.log
    await daemon.stop()
    result = judged(caller, signal)
    measured.add(f"echo of a {codec} caller without c()", **result.figures)
    check_sound(result, record["quality"])  # twice through G.711, which itself has 38 dB
