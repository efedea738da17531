"""Computes the figures of a run from the marks that callers and bots heard."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from pipecat_bridge.tools.load.bots import HeardByBot
from pipecat_bridge.tools.load.callers import FRAME, HeardByCaller
from pipecat_bridge.tools.load.calls import Role
from pipecat_bridge.tools.load.marks import EVERY, LEAD, NUMBERS

LATE: Final = 2 * FRAME
"""Seconds. A frame that comes later than this after the frame before is late."""

_TOLERANCE: Final = 2
"""Samples by which the distance of two marks may differ: each is found to one sample."""

Spread = dict[str, float]


class Delay(NamedTuple):
    """The delay of one mark. `sent`: when it was sent. `seconds`: how long it took."""

    call: int
    sent: float
    seconds: float


def spread(values: Iterable[float], scale: float = 1000.0) -> Spread:
    """p50, p95, p99 and max of the values times `scale`; {} if there are none. The default scale
    makes milliseconds of seconds."""
    array = np.fromiter(values, float) * scale
    if not len(array):
        return {}
    p50, p95, p99 = np.percentile(array, [50, 95, 99])
    figures = {"p50": p50, "p95": p95, "p99": p99, "max": array.max()}
    return {name: round(float(value), 3) for name, value in figures.items()}


def to_bot(sent: Mapping[int, Sequence[float]], heard: Iterable[HeardByBot]) -> list[Delay]:
    """Delays from callers to bots. `sent[call]`: the times when marks of the call were sent."""
    delays = []
    for call, number, time, *_ in heard:
        begun = _latest(sent[call], number, time)
        if begun is not None:
            delays.append(Delay(call, begun, time - begun - LEAD))
    return delays


def _latest(times: Sequence[float], number: int, heard: float) -> float | None:
    """The time when the last mark with this number was sent before `heard`."""
    last = bisect_right(times, heard) - 1
    last -= (last - number) % NUMBERS
    return times[last] if last >= 0 else None


def to_caller(echoed: Iterable[HeardByBot], heard: Iterable[HeardByCaller]) -> list[Delay]:
    """Delays from bots to callers."""
    sent: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for mark in echoed:
        sent[mark.call, mark.number].append(mark.echoed)
    delays = []
    for call, number, time, _ in heard:
        times = sent[call, number]
        last = bisect_right(times, time) - 1
        if last >= 0:
            delays.append(Delay(call, times[last], time - times[last]))
    return delays


class Gaps(NamedTuple):
    """Audio between marks that was lost, and that was repeated or added, in frames."""

    lost: float
    repeated: float


def gaps(heard: Iterable[HeardByBot] | Iterable[HeardByCaller], rate: int) -> Gaps:
    """Compare the distances of heard marks, in samples at `rate`, with those that were sent."""
    streams: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for mark in heard:
        streams[mark.call].append((mark.number, mark.sample))
    frame = rate * FRAME
    lost = repeated = 0.0
    for marks in streams.values():
        for (number, sample), (next_number, next_sample) in pairwise(marks):
            expected = (next_number - number) % NUMBERS * EVERY * frame
            surplus = next_sample - sample - expected
            if abs(surplus) > _TOLERANCE:
                lost += max(0.0, -surplus) / frame
                repeated += max(0.0, surplus) / frame
    return Gaps(round(lost, 1), round(repeated, 1))


def pace(intervals: Mapping[Role, Sequence[float]]) -> dict[str, Any]:
    """How far intervals between frames at the phones are from 20 ms, in calls without faults.

    An interval of nan is `unknown`: of one of its frames the time of arrival is not known.
    """
    every = np.array(intervals.get(Role.STEADY, []))
    values = every[~np.isnan(every)]
    return {
        "deviation_ms": spread(np.abs(values - FRAME)),
        "late": int((values > LATE).sum()),
        "unknown": len(every) - len(values),
    }


def only(role: Role, roles: Mapping[int, Role], marks: Iterable[Any]) -> list[Any]:
    """The marks of calls with this role."""
    return [mark for mark in marks if roles.get(mark.call) is role]
