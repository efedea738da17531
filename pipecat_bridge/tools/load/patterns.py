"""When the messages of a bot or a phone arrive: chunks, pace, jitter and stalls."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple


class Stall(NamedTuple):
    """Nothing arrives for `length` seconds from `begin` on. Then everything comes at once."""

    begin: float
    length: float


class Pattern(NamedTuple):
    """How one side's audio arrives. Times are in seconds.

    `chunk`: audio in one message; 40 ms is what Pipecat sends. `speed`: seconds of audio that are
    sent in a second. `jitter`: mean delay of a message, exponentially distributed. Messages never
    overtake each other. `spurt`, `pause`: how long a bot speaks, and is silent then and sends
    nothing; with a pause of 0 it never pauses.
    """

    chunk: float = 0.04
    speed: float = 1.0
    jitter: float = 0.0
    stalls: tuple[Stall, ...] = ()
    spurt: float = 4.0
    pause: float = 0.0

    @property
    def delays(self) -> bool:
        """True if not every message arrives when it is sent."""
        return bool(self.jitter or self.stalls)

    def speaks(self, at: float) -> bool:
        """False in a pause."""
        return at % (self.spurt + self.pause) < self.spurt

    def arrivals(self, count: int, random: Random) -> Iterator[float]:
        """The times at which the first `count` messages arrive."""
        last = 0.0
        for number in range(count):
            last = max(last, self.delayed(number * self.chunk / self.speed, random))
            yield last

    def delayed(self, sent: float, random: Random) -> float:
        """When a message arrives that is sent at `sent`."""
        at = sent + (random.expovariate(1 / self.jitter) if self.jitter else 0.0)
        for begin, length in self.stalls:
            if begin <= at < begin + length:
                at = begin + length
        return at


def repeated(length: float, every: float, until: float) -> tuple[Stall, ...]:
    """A stall of `length` seconds at the end of each `every` seconds; none for a length of 0."""
    if not length:
        return ()
    return tuple(Stall(number * every, length) for number in range(1, int(until / every) + 1))
