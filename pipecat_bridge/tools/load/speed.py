"""Measures how fast the bridge's processor is during a run: other programs may use it as well.

Virtual machines share cores. On a shared core Python may run at half the speed, and the system
counts all of that as processor time. So a fixed piece of work, at the lowest priority on the same
processor, shows the speed.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any, Final

from pipecat_bridge.tools.load.loop import Loop

EVERY: Final = 0.2
_TURNS: Final = 5000


class Speed:
    """Does the same work five times a second. The parent calls the public methods, over a pipe."""

    def __init__(self, loop: Loop) -> None:
        os.nice(19)
        self._best = min(_work() for _ in range(50))
        self._times: list[float] = []
        self._due = time.monotonic()
        loop.at(self._due, self._again)

    def _again(self) -> float:
        self._times.append(_work())
        self._due = max(self._due + EVERY, time.monotonic())
        return self._due

    def record(self) -> None:
        """Measure from now on."""
        self._times.clear()

    def stop(self) -> dict[str, Any]:
        """The median time of the work after `record`. "work_us": in microseconds. "slowdown": as a
        multiple of the best time."""
        self._best = min([self._best, *self._times])
        median = statistics.median(self._times)
        return {"slowdown": round(median / self._best, 3), "work_us": round(1e6 * median, 1)}


class Elsewhere:
    """Stands in for `Speed` if the bridge runs on another machine."""

    def __init__(self, loop: Loop) -> None:
        pass

    def record(self) -> None:
        """Does nothing."""

    def stop(self) -> dict[str, Any]:
        """nan for all values, because they are unknown."""
        return {"slowdown": float("nan"), "work_us": float("nan")}


def _work() -> float:
    begin = time.thread_time()
    total = 0
    for turn in range(_TURNS):
        total += turn * turn
    return time.thread_time() - begin
