"""One runner of a pool, and the places of its bots."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pipecat_bridge.errors import brief
from pipecat_bridge.runner.pool.address import RunnerAddress
from pipecat_bridge.runner.pool.breaker import Breaker, BreakerState, Trial

RunnerHealth = Literal["unchecked", "unknown", "fine", "draining", "silent"]
StartResult = Literal["ready", "failed", "busy"]

_IN_WORDS: Final[dict[RunnerHealth, str]] = {
    "draining": "says that it takes no calls",
    "silent": "fails its health check",
}

RESULTS: Final[tuple[StartResult, ...]] = ("ready", "failed", "busy")

STARTING: Final = 4
"""Load of a bot that starts, in bots that run. A start costs a runner more, and starts pile up at a
runner that hangs. With 50 starts a second over three runners, one of which hangs, about 25 callers
wait in vain until its breaker opens; with a load of 1 about 60."""


RECENT: Final = 10.0
"""Seconds for which a bot that failed or was lost still counts as one bot that runs. Without it, a
runner whose bots fail at once would look idle and get more calls."""

SOON: Final = 5.0
"""Seconds after a bot was ready in which its loss counts as a fault of the runner."""


class Upstream:
    """One runner of a pool. The pool sets `breaker`, `clock` and `turn` before it uses the runner.

    `name`: the URL without secrets, for logs and metrics. `turn`: a number that is larger the later
    the runner got its last call. `calls`: bots that start or run there. `starting`: bots that
    start. `starts`: counts of starts by result. `lost`: count of bots that were lost soon after
    they were ready. `health`: the result of the last health check.
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
        self._fault = ""  # reason of the last failure
        self._weighing: deque[float] = deque()  # for each failed bot: the time until it counts

    @property
    def state(self) -> BreakerState:
        """The state of the breaker."""
        return self.breaker.state

    @property
    def available(self) -> bool:
        """Whether the runner may get a start now."""
        return self.rank is not None

    @property
    def rank(self) -> int | None:
        """How good a choice the runner is, 0 the best; None if it may get no start.

        0: nothing speaks against it. 1: it has reached the limit of starts, or failed its last
        health check. 2: half-open with health checks, so a check can be the probe and not a call.
        3: open, but for longer than the first delay. 4: busy, but for longer than `BUSY_SECONDS`.
        """
        if self.health == "draining" or self.breaker.probing:
            return None
        if self.state == "open" and not self.breaker.overdue:
            return None
        if self.breaker.busy_for > 0:
            return 4 if self.breaker.busy_overdue else None
        if self.state == "open":
            return 3
        if self.state == "half-open":
            return 0 if self.health == "unchecked" else 2
        limit = self.breaker.limit
        return int(self.health == "silent" or (limit is not None and self.starting >= limit))

    @property
    def load(self) -> int:
        """The load, in bots that run. It decides between runners of the same rank."""
        now, weighing = self.clock.seconds(), self._weighing
        while weighing and weighing[0] <= now:
            weighing.popleft()
        remembered = 0 if self.state == "half-open" else len(weighing)  # the probe is due
        return self.calls + (STARTING - 1) * self.starting + remembered

    def lease(self) -> Lease:
        """A place for one bot. The runner must be available."""
        self.breaker.knock()
        self.calls += 1
        self.starting += 1
        return Lease(self, self.breaker.begin())

    def succeeded(self, attempt: Trial) -> None:
        """Count a start whose bot is ready."""
        with self._telling_of_return():
            self.breaker.succeeded(attempt)

    def failed(self, attempt: Trial, reason: str) -> None:
        """Count a failed start or check."""
        self._fault = brief(reason)
        if self.breaker.failed(attempt):
            self._tell_left_alone()

    def lost_soon(self, attempt: Trial, reason: str) -> None:
        """Count a bot that was lost soon after it was ready."""
        self.lost += 1
        self._fault = brief(reason)
        if self.breaker.lost(attempt):
            self._tell_left_alone()

    def remember(self) -> None:
        """Let a failed bot count as load for `RECENT` seconds."""
        self._weighing.append(self.clock.seconds() + RECENT)

    def _tell_left_alone(self) -> None:
        self._log.warn(
            "runner {name} fails and gets no calls for {seconds:.1f} s: {reason}",
            name=self.name,
            seconds=self.breaker.left,
            reason=self._fault,
        )

    # From its checks

    def begin_check(self) -> Trial:
        """Begin a health check."""
        if self.health == "unchecked":
            self.health = "unknown"
        return self.breaker.begin()

    def fine(self, attempt: Trial) -> None:
        """The health check got a good answer."""
        before, self.health = self.health, "fine"
        if before in ("draining", "silent"):
            self.breaker.found_back()
            self._log.info("runner {name} is back", name=self.name)
            return
        with self._telling_of_return():
            self.breaker.answered(attempt)

    def draining(self, what: str) -> None:
        """The runner answered the health check that it takes no calls."""
        self._learn("draining", what)

    def silent(self, attempt: Trial, why: str) -> None:
        """The health check got no answer, or one that shows a fault."""
        self._learn("silent", why)
        self.failed(attempt, why)

    def has_no_address(self) -> None:
        """The runner still starts. Calls wait for it, so this is no failure."""
        self.health = "unknown" if self.health == "unchecked" else "silent"

    def _learn(self, health: RunnerHealth, what: str) -> None:
        before, self.health = self.health, health
        if health != before:
            self._log.warn(
                "runner {name} {state}: {what}",
                name=self.name,
                state=_IN_WORDS[health],
                what=brief(what),
            )

    @contextmanager
    def _telling_of_return(self) -> Iterator[None]:
        before = self.state
        yield
        if before != "closed" and self.state == "closed":
            self._weighing.clear()
            self._log.info("runner {name} takes calls again", name=self.name)

    def describe(self) -> str:
        """Why the runner gets no start, in a few words."""
        if self.breaker.busy_for > 0:
            return f"{self.name} is busy, for {self.breaker.busy_for:.1f} s more"
        if self.health == "draining":
            return f"{self.name} {_IN_WORDS[self.health]}"
        if self.state == "open":
            return f"{self.name} gets no calls for {self.breaker.left:.1f} s more ({self._fault})"
        return f"{self.name} is being tried with one call ({self._fault})"


class Lease:
    """One bot's place at a runner, from its start to its end.

    The first call of `ready`, `failed`, `busy` or `give_back` sets the result of the start. After
    that, `failed` and `busy` do the same as `give_back`, which may be called any number of times.
    """

    __slots__ = ("_attempt", "_held", "_ready_at", "_settled", "upstream")

    def __init__(self, upstream: Upstream, attempt: Trial) -> None:
        self.upstream = upstream
        self._attempt = attempt
        self._settled = False
        self._held = True
        self._ready_at: float | None = None

    def ready(self) -> None:
        """The bot is ready."""
        if self._settle("ready"):
            self._ready_at = self.upstream.clock.seconds()
            self.upstream.succeeded(self._attempt)

    def failed(self, reason: str) -> None:
        """The bot did not become ready, and the runner is to blame."""
        if self._settle("failed"):
            self.upstream.remember()
            self.upstream.failed(self._attempt, reason)
        self.give_back()

    def busy(self, seconds: float | None = None) -> None:
        """The runner is busy. It gets no starts for `seconds`, at most `LONGEST_BUSY`."""
        if self._settle("busy"):
            self.upstream.breaker.busy(self._attempt, seconds)
        self.give_back()

    def lost(self, reason: str, busy: bool) -> None:
        """The ready bot is lost. `busy`: the runner restarts, or has no room."""
        soon = self._ready_at is not None and self._age() < SOON
        self._ready_at = None
        self.upstream.remember()
        if busy:
            self.upstream.breaker.busy(self._attempt, None)
        elif soon:
            self.upstream.lost_soon(self._attempt, reason)
        self.give_back()

    def give_back(self) -> None:
        """Give the place back: the call is over, or ended before the start had a result."""
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
        """Set the result of the start; False if it has one already."""
        if self._settled:
            return False
        self._settled = True
        self.upstream.starting -= 1
        if result is not None:
            self.upstream.starts[result] += 1
        return True
