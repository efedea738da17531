"""How long frames were delayed: their number, mean, longest and a quantile, in little memory."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Final

STEP: Final = 0.005
"""Seconds. A quantile is exact to so much."""

STEPS: Final = 200
"""Delays of more than a second are counted together, with the longest."""

_PER_SECOND: Final = 1 / STEP
_COUNTED_APART: Final = STEP * STEPS


class Delays:
    """Delays in seconds."""

    __slots__ = ("_steps", "count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.longest = 0.0
        self._steps = [0] * (STEPS + 1)

    def add(self, delay: float) -> None:
        """Count a frame."""
        self.count += 1
        self.total += delay
        if delay > self.longest:
            self.longest = delay
        self._steps[int(delay * _PER_SECOND) if delay < _COUNTED_APART else STEPS] += 1

    def merge(self, other: Delays) -> None:
        """Count what another one has counted, too."""
        self.count += other.count
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        self._steps = [a + b for a, b in zip(self._steps, other._steps, strict=True)]

    @property
    def mean(self) -> float:
        """The mean of all; 0 if there is none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, part: float, undelayed: int = 0) -> float:
        """The delay that a part of all frames does not exceed, `undelayed` more ones included."""
        left = ceil((self.count + undelayed) * part) - undelayed
        if left <= 0:
            return 0.0
        for step, count in enumerate(self._steps[:STEPS]):
            left -= count
            if left <= 0:
                return min((step + 1) * STEP, self.longest)
        return self.longest


def merged(several: Iterable[Delays]) -> Delays:
    """All of them together."""
    one = Delays()
    for each in several:
        one.merge(each)
    return one
