"""Twenty calls to bots that send what they hear back in chunks of 40 ms, as Pipecat does."""

from __future__ import annotations

import numpy as np
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import Caller, call
from tests.asterisk.calls import APPLICATION, CHANNEL, check_sound, judged, no_channels
from tests.asterisk.conftest import Measurements
from tests.asterisk.pbx import Pbx

CALLS = 20
LINES = ((APPLICATION, 8000, "slin"), (CHANNEL, 16000, "slin16"))
LATEST = 0.085
"""Seconds there and back. Asterisk and its recording go in steps of 20 ms, and the filters of the
resampler add 4.5 ms for a phone at 8 kHz: 64.5 or 84.5 ms for the same delay of the bridge."""


def _signal(number: int, rate: int) -> sound.Signal:
    words = sound.speech_like(8.0, rate, seed=300 + number)
    return np.concatenate([sound.silence(4.0, rate), words, sound.silence(1.0, rate)])


async def _one(pbx: Pbx, bridge: Bridge, number: int) -> tuple[Caller, sound.Signal, str]:
    extension, rate, audio_format = LINES[number % 2]
    signal = _signal(number, rate)
    said = sound.write(pbx.folder / "takes", f"chunks-{number}", rate, signal)
    variables = f"PIPECAT_FORMAT={audio_format}", *bridge.variables
    caller = await call(pbx, extension, said, rate, *variables)
    call_id = await caller.variable("PIPECAT_CALL")
    await caller.ended()
    return caller, signal, call_id


@pytest_twisted.ensureDeferred
async def test_no_hole_and_little_delay(
    pbx: Pbx, chunk_bridge: Bridge, measured: Measurements
) -> None:
    await no_channels(pbx)
    calls = await gatherResults(
        [Deferred.fromCoroutine(_one(pbx, chunk_bridge, number)) for number in range(CALLS)]
    )
    quality = [(await chunk_bridge.outcome(call_id))["quality"] for _, _, call_id in calls]
    await no_channels(pbx)
    results = [judged(caller, signal) for caller, signal, _ in calls]
    delays = sorted(result.delay for result in results)
    measured.add(
        f"{CALLS} calls, chunks of 40 ms",
        worst_correlation=round(min(result.correlation for result in results), 6),
        delay_p50_ms=round(1000 * delays[CALLS // 2]),
        delay_max_ms=round(1000 * delays[-1]),
        underruns=sum(each["underruns"] for each in quality),
        scaled_ms=sum(each["scaled_ms"] for each in quality),
    )
    for result, counted in zip(results, quality, strict=True):
        check_sound(result, counted)
        assert result.delay <= LATEST, (result, counted)
