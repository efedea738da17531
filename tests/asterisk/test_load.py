"""Fifty calls at once, three times over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import Caller, call
from tests.asterisk.calls import DRIVERS, judged, lost, no_channels
from tests.asterisk.conftest import Measurements
from tests.asterisk.pbx import Pbx

CALLS = 50
RATE = 8000


def _signal(number: int) -> sound.Signal:
    """Of every caller something else, so that none can be mistaken for another."""
    words = sound.speech_like(3.0, RATE, seed=100 + number)
    return np.concatenate([sound.silence(4.0, RATE), words, sound.silence(1.0, RATE)])


async def _one(pbx: Pbx, bridge: Bridge, number: int, said: Path) -> tuple[Caller, str]:
    extension = list(DRIVERS.values())[number % 2]
    caller = await call(pbx, extension, said, RATE, "PIPECAT_FORMAT=slin", *bridge.variables)
    call_id = await caller.variable("PIPECAT_CALL")
    await caller.ended()
    return caller, call_id


@pytest.mark.parametrize("round_number", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_fifty_calls(
    round_number: int, pbx: Pbx, echo_bridge: Bridge, measured: Measurements
) -> None:
    """All complete, each has heard itself, every count agrees with Asterisk's own."""
    bridge = echo_bridge
    await no_channels(pbx)
    since = len(pbx.ami.events)
    before = await bridge.metric("pipecat_bridge_calls_ended_total", outcome="caller-hangup")
    signals = [_signal(number) for number in range(CALLS)]
    folder = pbx.folder / "takes"
    sounds = [sound.write(folder, f"load-{n}", RATE, x) for n, x in enumerate(signals)]
    calls = await gatherResults(
        [
            Deferred.fromCoroutine(_one(pbx, bridge, number, said))
            for number, said in enumerate(sounds)
        ]
    )
    records = [await bridge.outcome(call_id) for _, call_id in calls]
    await no_channels(pbx)
    results = [judged(caller, x) for (caller, _), x in zip(calls, signals, strict=True)]
    worst = min(result.correlation for result in results)
    delays = sorted(result.delay for result in results)
    underruns = sum(record["stats"]["underruns"] for record in records)
    measured.add(
        f"{CALLS} calls, round {round_number}",
        f"worst correlation {worst:.6f}, there and back p50 {1000 * delays[CALLS // 2]:.0f} ms, "
        f"max {1000 * delays[-1]:.0f} ms, {underruns} underruns",
    )
    for result, record in zip(results, records, strict=True):
        assert result.correlation >= 0.999, (result, record["stats"])
        assert not result.gaps, (result, record["stats"])
        assert not lost(result), (result, record["stats"])
    assert {record["outcome"] for record in records} == {"caller-hangup"}
    assert sum(record["stats"]["caller_frames_dropped"] for record in records) == 0
    # Asterisk may have closed before the last tick: that frame had nobody to go to.
    assert max(record["stats"]["phone_frames_skipped"] for record in records) <= 1
    after = await bridge.metric("pipecat_bridge_calls_ended_total", outcome="caller-hangup")
    assert after - before == CALLS
    events = pbx.ami.events[since:]
    born = {e["Uniqueid"] for e in events if e["Event"] == "Newchannel"}
    gone = {e["Uniqueid"] for e in events if e["Event"] == "Hangup"}
    assert born == gone
    # Two ends of a Local channel each, and one more where the channel driver is used.
    assert len(born) == CALLS * 2 + CALLS // 2
    _, listed = await bridge.request("GET", "/v1/calls")
    assert listed["running"] == []
