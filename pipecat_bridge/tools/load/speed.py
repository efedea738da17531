"""How fast the processor of the bridge is while it is measured: others may be using it, too.

Virtual machines share cores, and a core that is shared runs Python at half its speed and calls all
of it processor time. A fixed piece of work beside the bridge, at the lowest priority, tells.
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
    """Does the same work five times a second. Its public methods are called over a pipe."""

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
        """Begin anew."""
        self._times.clear()

    def stop(self) -> dict[str, Any]:
        """How long the work took as a median since `record`, as a multiple of its best time."""
        self._best = min([self._best, *self._times])
        median = statistics.median(self._times)
        return {"slowdown": round(median / self._best, 3), "work_us": round(1e6 * median, 1)}


class Elsewhere:
    """In place of `Speed` where the bridge runs on another machine."""

    def __init__(self, loop: Loop) -> None:
        pass

    def record(self) -> None:
        """Nothing can be told."""

    def stop(self) -> dict[str, Any]:
        """Not known."""
        return {"slowdown": float("nan"), "work_us": float("nan")}


def _work() -> float:
    begin = time.thread_time()
    total = 0
    for turn in range(_TURNS):
        total += turn * turn
    return time.thread_time() - begin
