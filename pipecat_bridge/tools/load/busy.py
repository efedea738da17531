"""Another program that uses the bridge's processor."""

from __future__ import annotations

import time
from typing import Final

from pipecat_bridge.tools.load.loop import Loop

PERIOD: Final = 0.05


class Busy:
    """Computes for `share` of each 50 ms."""

    def __init__(self, loop: Loop, share: float) -> None:
        self._seconds = share * PERIOD
        self._due = time.monotonic()
        loop.at(self._due, self._compute)

    def _compute(self) -> float:
        used = time.thread_time() + self._seconds
        while time.thread_time() < used:
            pass
        self._due = max(self._due + PERIOD, time.monotonic())
        return self._due
