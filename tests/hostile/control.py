"""Notes when the machine itself stood still, so that nobody else is blamed for it."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Final, NamedTuple

from pipecat_bridge.tools.load.loop import Loop

PERIOD: Final = 0.005
NORMAL: Final = 0.002
"""Seconds by which a process may wake up too late on a machine that does nothing else."""


class Tick(NamedTuple):
    """One turn of the control. `at`: its time. `late`: seconds that it came too late. `waited`:
    seconds for which the daemon has wanted a processor and had none, since its start."""

    at: float
    late: float
    waited: float


class Control:
    """A bare ticker in the loop that measures. `daemon`: the process that is measured.

    Of a gap, those seconds are no fault of the daemon in which the control was late as well (the
    machine stood still, or this process did), or in which the daemon wanted a processor and others
    had them (the kernel counts that for each process).
    """

    def __init__(self, loop: Loop, daemon: int) -> None:
        self._waited = Path(f"/proc/{daemon}/schedstat")
        self._due = time.monotonic()
        self.ticks: list[Tick] = []
        loop.at(self._due, self._tick)

    def _tick(self) -> float | None:
        now = time.monotonic()
        try:
            waited = int(self._waited.read_text().split()[1]) / 1e9
        except OSError:
            return None  # the daemon has ended
        self.ticks.append(Tick(now, max(0.0, now - self._due - NORMAL), waited))
        self._due = max(self._due, now - PERIOD) + PERIOD
        return self._due

    def excused(self, begin: float, end: float) -> float:
        """Seconds between two times that are no fault of the daemon."""
        ticks = self.ticks
        first = max(0, bisect_right(ticks, begin, key=lambda tick: tick.at) - 1)
        last = min(len(ticks) - 1, bisect_left(ticks, end, key=lambda tick: tick.at) + 1)
        if last <= first:
            return 0.0
        late = sum(tick.late for tick in ticks[first + 1 : last + 1])
        return max(late, ticks[last].waited - ticks[first].waited)
