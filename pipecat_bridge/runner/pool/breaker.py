"""A runner's circuit breaker: stops starts at a runner that fails, and lets them through again."""

from __future__ import annotations

import random
from typing import Final, Literal

from twisted.internet.interfaces import IReactorTime

BreakerState = Literal["closed", "half-open", "open"]

JITTER: Final = 0.2
"""Random share by which a delay is longer or shorter. Many bridges then do not ask a runner at the
same moment."""

FULL_TRUST: Final = 64
"""Starts at the same time; at this number the limit is removed. It is above the number of requests
that a bridge sends at once by default (`[runner] max_requests`, 50)."""

BUSY_SECONDS: Final = 1.0
"""Seconds without new starts at a busy runner that does not say for how long. It is short because
the runner has room as soon as one of its calls ends."""

LONGEST_BUSY: Final = 60.0
"""Upper limit of the seconds without new starts that a runner can ask for. With a wait of a day
the bridge would lose the runner."""


def jitter(chance: random.Random) -> float:
    """A random factor from 1 - JITTER to 1 + JITTER."""
    return chance.uniform(1 - JITTER, 1 + JITTER)


class Trial:
    """One start or health check, as the breaker counts it.

    `limit`: the limit when it began. `opening`: how often the breaker had opened before it began.
    """

    __slots__ = ("limit", "opening")

    def __init__(self, limit: int | None, opening: int) -> None:
        self.limit = limit
        self.opening = opening


class Breaker:
    """Has three states. They follow from the clock, without a timer.

    - closed: the runner gets starts. `failures` failed starts in a row open the breaker.
    - open: the runner gets no starts for `delay` seconds. The delay doubles each time the breaker
      opens again before a bot was ready, up to `max_delay`.
    - half-open: the delay is over, and one attempt at a time is let through, the probe. If it
      succeeds the breaker closes. If it fails the breaker opens again.

    When the breaker closes again, `limit` is the number of starts at the same time, 1 at first.
    Without it the runner, which is empty, would get every new call of the pool. The limit doubles
    when a start succeeds that began under the present limit; so starts that ran side by side double
    it only once. A health check proves less than a bot: if a check closed the breaker, the first
    failure opens it.

    A bot that is lost soon after it was ready counts as well, though its start succeeded.
    `failures` such bots in a row open the breaker. After that, each further such bot opens it
    again, until a bot stays.

    The result of an attempt that began before the breaker opened is ignored. A `busy` runner has
    not failed: in any state, it gets no starts for some time. A pool without another runner tries
    it after `BUSY_SECONDS`, whatever it has asked for.
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
        self._patient_until = float("-inf")
        self._probe: Trial | None = None
        self.limit: int | None = None

    @property
    def state(self) -> BreakerState:
        """The state now."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock.seconds() < self._open_until else "half-open"

    @property
    def probing(self) -> bool:
        """Whether the probe is under way."""
        return self._probe is not None

    @property
    def overdue(self) -> bool:
        """Whether it is open only because the delay was doubled. A pool without another runner may
        then `knock`."""
        return self.state == "open" and self._clock.seconds() >= self._overdue_at

    @property
    def left(self) -> float:
        """Seconds until the breaker is half-open."""
        return max(0.0, (self._open_until or 0.0) - self._clock.seconds())

    @property
    def busy_for(self) -> float:
        """Seconds for which the runner still wants no starts."""
        return max(0.0, self._busy_until - self._clock.seconds())

    @property
    def busy_overdue(self) -> bool:
        """Whether it is busy only because the runner asked for more than `BUSY_SECONDS`. A pool
        without another runner may then try it."""
        return self.busy_for > 0 and self._clock.seconds() >= self._patient_until

    def knock(self) -> None:
        """End the delay now."""
        if self.state == "open":
            self._open_until = self._clock.seconds()

    def begin(self) -> Trial:
        """Begin a start or a check. In the state half-open the first one is the probe."""
        attempt = Trial(self.limit, self._opening)
        if self.state == "half-open" and self._probe is None:
            self._probe = attempt
        return attempt

    def succeeded(self, attempt: Trial) -> None:
        """Count a start whose bot is ready."""
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
        """Count a bot that was lost soon after it was ready. True if that opened the breaker."""
        if self._open_until is not None or attempt.opening != self._opening:
            return False
        self._lost_in_a_row += 1
        opens = self._lost_in_a_row >= self._allowed
        if opens:
            self._open()
            self._lost_in_a_row = self._allowed - 1
        return opens

    def kept(self) -> None:
        """Count a bot that was not lost soon after it was ready."""
        self._lost_in_a_row = 0

    def answered(self, attempt: Trial) -> None:
        """Count a good health check. It closes the breaker, but past failures still count."""
        if self._open_until is not None and self._counts(attempt):
            self.found_back()

    def failed(self, attempt: Trial) -> bool:
        """Count a failed start or check. True if that opened the breaker."""
        if not self._counts(attempt):
            return False
        self._in_a_row += 1
        opens = self._open_until is not None or self._in_a_row >= self._allowed
        if opens:
            self._open()
        return opens

    def abandoned(self, attempt: Trial) -> None:
        """Forget an attempt that has no result. If it was the probe, the next attempt is."""
        if attempt is self._probe:
            self._probe = None

    def busy(self, attempt: Trial, seconds: float | None) -> None:
        """Pass over a busy runner for `seconds`, None if it did not say. A probe is abandoned."""
        self.abandoned(attempt)
        now = self._clock.seconds()
        wait = BUSY_SECONDS if seconds is None else min(seconds, LONGEST_BUSY)
        self._busy_until = max(self._busy_until, now + wait)
        self._patient_until = now + BUSY_SECONDS

    def found_back(self) -> None:
        """Close the breaker with limit 1: the runner answers its health checks and takes calls
        again."""
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
