"""Barge-ins, each of which a bot may tell of in up to three ways."""

from __future__ import annotations

from collections import Counter
from typing import Literal

SAME_BARGE_IN = 0.5
"""Seconds after a barge-in in which a signal of another kind tells of the same one once more."""

Signal = Literal["frame", "rtvi", "text"]


class BargeIns:
    """Tells the first signal of a barge-in from those that repeat it in another way.

    The n-th signal of a kind tells of the n-th of the barge-ins that follow each other closely.
    """

    def __init__(self) -> None:
        self._last = float("-inf")
        self._told: Counter[Signal] = Counter()

    def is_new(self, signal: Signal, now: float) -> bool:
        """Count a signal that came at `now` seconds; True when it is a barge-in of its own."""
        if now - self._last >= SAME_BARGE_IN:
            self._told.clear()
        known = max(self._told.values(), default=0)
        self._told[signal] += 1
        if self._told[signal] <= known:
            return False
        self._last = now
        return True
