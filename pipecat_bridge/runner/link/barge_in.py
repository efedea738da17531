"""Counts barge-ins. A bot may report the same barge-in in up to three ways."""

from __future__ import annotations

from collections import Counter
from typing import Literal

SAME_BARGE_IN = 0.5
"""Seconds after a barge-in in which a signal of another kind means the same barge-in."""

Signal = Literal["frame", "rtvi", "text"]


class BargeIns:
    """Finds the first signal of each barge-in. Signals of other kinds may repeat it.

    When barge-ins follow each other closely, the n-th signal of each kind means the n-th barge-in.
    """

    def __init__(self) -> None:
        self._last = float("-inf")
        self._told: Counter[Signal] = Counter()

    def is_new(self, signal: Signal, now: float) -> bool:
        """Count a signal that came at `now` seconds. True if it is a new barge-in."""
        if now - self._last >= SAME_BARGE_IN:
            self._told.clear()
        known = max(self._told.values(), default=0)
        self._told[signal] += 1
        if self._told[signal] <= known:
            return False
        self._last = now
        return True
