"""One runner of a pool, and a bot's place at it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pipecat_bridge.runner.pool.address import RunnerAddress
from pipecat_bridge.runner.pool.breaker import Breaker, BreakerState, Trial

RunnerHealth = Literal["unchecked", "unknown", "fine", "draining", "silent"]
StartResult = Literal["ready", "failed", "busy"]

_IN_WORDS: Final[dict[RunnerHealth, str]] = {
    "draining": "says that it takes no calls",
    "silent": "is not well",
}

RESULTS: Final[tuple[StartResult, ...]] = ("ready", "failed", "busy")

STARTING: Final = 4
"""A bot that starts weighs as much as so many that run: it costs a runner more, and starts pile up
at one that hangs. With 50 starts a second over three runners, one of which hangs, about 25 callers
wait in vain until its breaker opens; with a weight of 1 about 60."""


RECENT: Final = 10.0
"""Seconds for which a bot that failed or was lost weighs as one that runs: a runner whose bots come
and go at once must not look idle."""

SOON: Final = 5.0
"""Seconds after a bot was ready in which its loss tells of trouble at its runner."""


class Upstream:
    """One runner of a pool; of use once the pool has given it `breaker`, `clock` and `turn`.

    `name` is for logs and metrics: its URL without secrets. `turn` says when it was last given a
    call: the larger, the later. `calls` are the bots that start or run there, `starting` those of
    them that start; `starts` counts what became of starts, `lost` the bots that were lost soon
    after they were ready. `health` is what its checks say, where it is checked.
    """

    _log = Logger()
    breaker: Breaker
    clock: IReactorTime
    turn: float

    def __init__(self, name: str, address: RunnerAddress) -> None:
        self.name = name
        self.address = address
        self.calls = 0
        self.starting = 0
        self.starts: Counter[StartResult] = Counter()
        self.lost = 0
        self.health: RunnerHealth = "unchecked"
        self._fault = ""  # the last one
        self._failed: deque[float] = deque()  # until when bots that are gone weigh

    @property
    def state(self) -> BreakerState:
        """Of its breaker."""
        return self.breaker.state

    @property
    def available(self) -> bool:
        """Whether it may take a start now."""
        return self.rank is not None

    @property
    def rank(self) -> int | None:
        """How good a choice it is, 0 the best; None when it may take no start.

        0: nothing is against it; 1: it has as many starts under way as it is trusted with, or did
        not answer its last check; 2: half-open, and a check can be the probe instead of somebody's
        call; 3: open, but longer than the first delay.
        """
        if self.health == "draining" or self.breaker.busy_for > 0:
            return None
        if self.state == "open":
            return 3 if self.breaker.overdue else None
        if self.breaker.probing:
            return None
        if self.state == "half-open":
            return 0 if self.health == "unchecked" else 2
        limit = self.breaker.limit
        return int(self.health == "silent" or (limit is not None and self.starting >= limit))

    @property
    def load(self) -> int:
        """By which runners of a rank are compared."""
        now, failed = self.clock.seconds(), self._failed
        while failed and failed[0] <= now:
            failed.popleft()
        remembered = 0 if self.state == "half-open" else len(failed)  # the probe is due
        return self.calls + (STARTING - 1) * self.starting + remembered

    def lease(self) -> Lease:
        """A place for one bot; it must be available."""
        self.breaker.knock()
        self.calls += 1
        self.starting += 1
        return Lease(self, self.breaker.begin())

    def succeeded(self, attempt: Trial) -> None:
        """A bot is ready."""
        with self._telling_of_return():
            self.breaker.succeeded(attempt)

    def failed(self, attempt: Trial, reason: str) -> None:
        """A start or a check has failed."""
        self._fault = reason
        if self.breaker.failed(attempt):
            self._tell_left_alone(reason)

    def lost_soon(self, attempt: Trial, reason: str) -> None:
        """A bot was lost soon after it was ready."""
        self.lost += 1
        self._fault = reason
        if self.breaker.lost(attempt):
            self._tell_left_alone(reason)

    def remember(self) -> None:
        """A bot that has failed weighs for a while."""
        self._failed.append(self.clock.seconds() + RECENT)

    def _tell_left_alone(self, reason: str) -> None:
        self._log.warn(
            "runner {name} fails and is left alone for {seconds:.1f} s: {reason}",
            name=self.name,
            seconds=self.breaker.left,
            reason=reason,
        )

    # From its checks

    def begin_check(self) -> Trial:
        """It is asked how it is."""
        if self.health == "unchecked":
            self.health = "unknown"
        return self.breaker.begin()

    def fine(self, attempt: Trial) -> None:
        """It has answered."""
        before, self.health = self.health, "fine"
        if before in ("draining", "silent"):
            self.breaker.found_back()
            self._log.info("runner {name} is back", name=self.name)
            return
        with self._telling_of_return():
            self.breaker.answered(attempt)

    def draining(self, what: str) -> None:
        """It has answered that it takes no calls."""
        self._learn("draining", what)

    def silent(self, attempt: Trial, why: str) -> None:
        """It has not answered, or not well."""
        self._learn("silent", why)
        self.failed(attempt, why)

    def has_no_address(self) -> None:
        """It is being started; calls wait for that, so it is no failure."""
        self.health = "unknown" if self.health == "unchecked" else "silent"

    def _learn(self, health: RunnerHealth, what: str) -> None:
        before, self.health = self.health, health
        if health != before:
            self._log.warn(
                "runner {name} {state}: {what}", name=self.name, state=_IN_WORDS[health], what=what
            )

    @contextmanager
    def _telling_of_return(self) -> Iterator[None]:
        before = self.state
        yield
        if before != "closed" and self.state == "closed":
            self._failed.clear()
            self._log.info("runner {name} takes calls again", name=self.name)

    def describe(self) -> str:
        """Why it takes no start, in a few words."""
        if self.breaker.busy_for > 0:
            return f"{self.name} is busy, for {self.breaker.busy_for:.1f} s more"
        if self.health == "draining":
            return f"{self.name} {_IN_WORDS[self.health]}"
        wait = f"for {self.breaker.left:.1f} s more" if self.state == "open" else "but for one"
        return f"{self.name} is left alone {wait} ({self._fault})"


class Lease:
    """One bot's place at a runner, from its start to its end.

    The first of `ready`, `failed`, `busy` and `give_back` says what became of the start; after it
    `failed` and `busy` are no more than `give_back`, which may be called any number of times.
    """

    __slots__ = ("_attempt", "_held", "_ready_at", "_settled", "upstream")

    def __init__(self, upstream: Upstream, attempt: Trial) -> None:
        self.upstream = upstream
        self._attempt = attempt
        self._settled = False
        self._held = True
        self._ready_at: float | None = None

    def ready(self) -> None:
        """The bot is there, and ready."""
        if self._settle("ready"):
            self._ready_at = self.upstream.clock.seconds()
            self.upstream.succeeded(self._attempt)

    def failed(self, reason: str) -> None:
        """It did not become ready, and that is the runner's fault."""
        if self._settle("failed"):
            self.upstream.remember()
            self.upstream.failed(self._attempt, reason)
        self.give_back()

    def busy(self, seconds: float | None = None) -> None:
        """The runner takes none now: it is passed over for `seconds`, within bounds."""
        if self._settle("busy"):
            self.upstream.breaker.busy(self._attempt, seconds)
        self.give_back()

    def lost(self, reason: str, busy: bool) -> None:
        """The bot was ready and is lost; `busy`: its runner restarts, or has no room."""
        soon = self._ready_at is not None and self._age() < SOON
        self._ready_at = None
        self.upstream.remember()
        if busy:
            self.upstream.breaker.busy(self._attempt, None)
        elif soon:
            self.upstream.lost_soon(self._attempt, reason)
        self.give_back()

    def give_back(self) -> None:
        """The call is over, or was given up before anything was known of the runner."""
        if self._settle(None):
            self.upstream.breaker.abandoned(self._attempt)
        if self._held:
            self._held = False
            self.upstream.calls -= 1
            if self._ready_at is not None and self._age() >= SOON:
                self.upstream.breaker.kept()

    def _age(self) -> float:
        """Seconds since the bot was ready."""
        return self.upstream.clock.seconds() - (self._ready_at or 0.0)

    def _settle(self, result: StartResult | None) -> bool:
        """Note what became of the start; false when that is known already."""
        if self._settled:
            return False
        self._settled = True
        self.upstream.starting -= 1
        if result is not None:
            self.upstream.starts[result] += 1
        return True
