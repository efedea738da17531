"""Fifty calls at once, three times over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import Caller, call
from tests.asterisk.calls import DRIVERS, check_sound, judged, no_channels
from tests.asterisk.conftest import Measurements
from tests.asterisk.pbx import Pbx

CALLS = 50
RATE = 8000
SUMMED = ("caller_frames", "phone_frames", "phone_frames_skipped", "caller_frames_dropped")
"""Counters that the metrics and the records of the calls must agree on."""


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


async def _counted(bridge: Bridge) -> dict[str, float]:
    """What the metrics say of all calls so far."""
    found = {name: await bridge.metric(f"pipecat_bridge_{name}_total") for name in SUMMED}
    ended = "pipecat_bridge_calls_ended_total"
    return {**found, "caller-hangup": await bridge.metric(ended, outcome="caller-hangup")}


def _sum(records: list[dict[str, Any]], name: str) -> int:
    return sum(record["quality"][name] for record in records)


@pytest.mark.parametrize("round_number", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_fifty_calls(
    round_number: int, pbx: Pbx, echo_bridge: Bridge, measured: Measurements
) -> None:
    """All complete, each has heard itself, every count agrees with Asterisk's own."""
    bridge = echo_bridge
    await no_channels(pbx)
    since = len(pbx.ami.events)
    before = await _counted(bridge)
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
    delays = sorted(result.delay for result in results)
    measured.add(
        f"{CALLS} calls, round {round_number}",
        worst_correlation=round(min(result.correlation for result in results), 6),
        worst_snr_db=round(min(result.snr for result in results), 1),
        delay_p50_ms=round(1000 * delays[CALLS // 2]),
        delay_max_ms=round(1000 * delays[-1]),
        dropped=_sum(records, "caller_frames_dropped"),
        skipped=_sum(records, "phone_frames_skipped"),
        underruns=_sum(records, "underruns"),
    )
    for result, record in zip(results, records, strict=True):
        check_sound(result, record["quality"])
    assert {record["outcome"] for record in records} == {"caller-hangup"}
    assert _sum(records, "caller_frames_dropped") == 0
    assert _sum(records, "phone_frames_skipped") == 0
    after = await _counted(bridge)
    assert after["caller-hangup"] - before["caller-hangup"] == CALLS
    for name in SUMMED:
        assert after[name] - before[name] == _sum(records, name), name
    events = pbx.ami.events[since:]
    born = {e["Uniqueid"] for e in events if e["Event"] == "Newchannel"}
    gone = {e["Uniqueid"] for e in events if e["Event"] == "Hangup"}
    assert born == gone
    # Two ends of a Local channel each, and one more where the channel driver is used.
    assert len(born) == CALLS * 2 + CALLS // 2
    _, listed = await bridge.request("GET", "/v1/calls")
    assert [shown for shown in listed["calls"] if "ended_at" not in shown] == []
    assert await bridge.metric("pipecat_bridge_calls") == 0
