"""A runner's circuit breaker: when it is left alone, and how it is trusted again."""

from __future__ import annotations

import random
from typing import Final, Literal

from twisted.internet.interfaces import IReactorTime

BreakerState = Literal["closed", "half-open", "open"]

JITTER: Final = 0.2
"""Share by which a delay is longer or shorter, so that many bridges do not knock together."""

FULL_TRUST: Final = 64
"""Starts under way at once from which on there is no limit: above what a bridge asks for at once by
default (`[runner] max_requests`, 50)."""

BUSY: Final = 1.0
"""Seconds for which a runner that says it is busy, but not for how long, is passed over: any call
of its that ends makes room."""

LONGEST_BUSY: Final = 60.0
"""Seconds for which a runner can have itself passed over at most; a day would lose it for good."""


def jitter(chance: random.Random) -> float:
    """A factor around 1."""
    return chance.uniform(1 - JITTER, 1 + JITTER)


class Trial:
    """A start or a check, between its beginning and what came of it; the breaker knows it by that.

    `limit` is the one that was in force, `opening` how often the breaker had opened before.
    """

    __slots__ = ("limit", "opening")

    def __init__(self, limit: int | None, opening: int) -> None:
        self.limit = limit
        self.opening = opening


class Breaker:
    """Three states, told by the clock without a timer.

    - closed: starts are let through. `failures` of them in a row open it.
    - open: the runner is left alone for `delay` seconds; for twice as long each time that it opens
      again before a bot was ready, but never for longer than `max_delay`.
    - half-open: when that is over, one attempt at a time is let through, the probe. Its success
      closes the breaker, its failure opens it again.

    Closed again, there is a `limit` to the starts that are to be under way at once, 1 at first: the
    runner is empty, and would get every new call of the pool. A success of a start that was begun
    under the limit in force doubles it; two that were begun side by side tell the same. A check
    proves less than a bot: closed by one, the breaker opens at the first failure.

    A bot that was ready and is lost at once tells of trouble too, though its start was a success:
    as many of them in a row, with none between them that stayed, open the breaker, and until one
    stays a single loss opens it again.

    What was begun before it opened tells nothing new and is ignored. A runner that is `busy` has
    not failed: it is passed over for some time, in whatever state.
    """

    def __init__(
        self,
        clock: IReactorTime,
        chance: random.Random,
        failures: int = 3,
        delay: float = 1.0,
        max_delay: float = 30.0,
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._allowed = failures
        self._delay = delay
        self._max_delay = max_delay / (1 + JITTER)
        self._next_delay = delay
        self._in_a_row = 0
        self._lost_in_a_row = 0
        self._opening = 0
        self._open_until: float | None = None  # None when it is closed
        self._overdue_at = 0.0
        self._busy_until = float("-inf")
        self._probe: Trial | None = None
        self.limit: int | None = None

    @property
    def state(self) -> BreakerState:
        """As of now."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock.seconds() < self._open_until else "half-open"

    @property
    def probing(self) -> bool:
        """Whether the probe is under way."""
        return self._probe is not None

    @property
    def overdue(self) -> bool:
        """Whether it is open only because its delay was doubled: who has no choice may `knock`."""
        return self.state == "open" and self._clock.seconds() >= self._overdue_at

    @property
    def left(self) -> float:
        """Seconds until it is half-open."""
        return max(0.0, (self._open_until or 0.0) - self._clock.seconds())

    @property
    def busy_for(self) -> float:
        """Seconds for which it is passed over as it asked to be."""
        return max(0.0, self._busy_until - self._clock.seconds())

    def knock(self) -> None:
        """End the delay now."""
        if self.state == "open":
            self._open_until = self._clock.seconds()

    def begin(self) -> Trial:
        """A start or a check begins; half-open it is the probe, unless that is under way."""
        attempt = Trial(self.limit, self._opening)
        if self.state == "half-open" and self._probe is None:
            self._probe = attempt
        return attempt

    def succeeded(self, attempt: Trial) -> None:
        """A bot is ready."""
        if not self._counts(attempt):
            return
        if self._open_until is not None:
            self._close()
        elif self.limit is not None and attempt.limit == self.limit:
            self.limit = self.limit * 2 if self.limit * 2 < FULL_TRUST else None
        self._in_a_row = 0
        if not self._lost_in_a_row:
            self._next_delay = self._delay

    def lost(self, attempt: Trial) -> bool:
        """A bot was lost soon after it was ready; True when that has opened it."""
        if self._open_until is not None or attempt.opening != self._opening:
            return False
        self._lost_in_a_row += 1
        opens = self._lost_in_a_row >= self._allowed
        if opens:
            self._open()
            self._lost_in_a_row = self._allowed - 1
        return opens

    def kept(self) -> None:
        """A bot has not been lost soon, and stayed until the end of its call."""
        self._lost_in_a_row = 0

    def answered(self, attempt: Trial) -> None:
        """A check was answered well: enough to close it, not to forget failures."""
        if self._open_until is not None and self._counts(attempt):
            self.found_back()

    def failed(self, attempt: Trial) -> bool:
        """A start or a check has failed; True when that has opened it."""
        if not self._counts(attempt):
            return False
        self._in_a_row += 1
        opens = self._open_until is not None or self._in_a_row >= self._allowed
        if opens:
            self._open()
        return opens

    def abandoned(self, attempt: Trial) -> None:
        """Nothing came of it, neither good nor bad; no more than that the next may be the probe."""
        if attempt is self._probe:
            self._probe = None

    def busy(self, attempt: Trial, seconds: float | None) -> None:
        """The runner takes nothing now, for so long if it has said so; a probe is abandoned."""
        self.abandoned(attempt)
        wait = BUSY if seconds is None else min(seconds, LONGEST_BUSY)
        self._busy_until = max(self._busy_until, self._clock.seconds() + wait)

    def found_back(self) -> None:
        """The runner, which did not answer or took no calls, does so again: closed, limit 1."""
        if self._open_until is not None:
            self._close()
            self._in_a_row = self._allowed - 1
        self.limit = 1

    def _counts(self, attempt: Trial) -> bool:
        if self._open_until is None:
            return attempt.opening == self._opening
        return attempt is self._probe

    def _close(self) -> None:
        self._open_until = self._probe = None

    def _open(self) -> None:
        now, factor = self._clock.seconds(), jitter(self._chance)
        delay = min(self._next_delay, self._max_delay)
        self._open_until = now + delay * factor
        self._overdue_at = now + min(self._delay, delay) * factor
        self._next_delay = delay * 2
        self._in_a_row = 0
        self._opening += 1
        self._probe = None
        self.limit = 1
