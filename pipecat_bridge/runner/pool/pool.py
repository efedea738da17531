"""The pool of runners: chooses the runner for each call."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import count
from typing import Final

from twisted.internet.interfaces import IReactorTime

from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.pool.breaker import Breaker
from pipecat_bridge.runner.pool.upstream import Lease, Upstream

__all__ = ["Lease", "Pool", "Upstream"]

NAMED: Final = 3
"""Runners that are described in the reason of a call that found none."""


class Pool:
    """Chooses runners, and counts their calls.

    A call goes to the runner with the best rank. Among several it goes to the one with the least
    load, and then to the one that has waited longest. The first order is random: otherwise bridges
    that share runners and start together would all ask the same runner.

    If no runner is left, a call fails at once, so that the dialplan gets its fallback soon. But a
    doubled delay only counts while another runner is available. Without another runner, calls are
    let through to a failed runner after the first delay (about a second), one at a time. So the
    bridge finds a single runner that is back within about a second. For the same reason the limit
    of a runner that is back never fails a call: it only sends calls to other runners. If all
    runners are busy, the one that is busy for the shortest time is tried again after a second.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        clock: IReactorTime,
        options: RunnerOptions,
        chance: random.Random,
    ) -> None:
        self.upstreams = list(upstreams)
        self._turns = count(1)
        seen: Counter[str] = Counter()
        for upstream in self.upstreams:
            seen[upstream.name] += 1
            if seen[upstream.name] > 1:  # same URL with another query; metrics need unique names
                upstream.name += f"#{seen[upstream.name]}"
            upstream.clock = clock
            upstream.turn = chance.random()
            upstream.breaker = Breaker(
                clock,
                chance,
                options.breaker_failures,
                options.breaker_delay,
                options.breaker_max_delay,
            )

    @property
    def available(self) -> bool:
        """Whether a runner takes calls and has no known fault; for /readyz."""
        return any(
            upstream.available
            and upstream.state != "open"
            and not upstream.breaker.busy_for
            and upstream.health in ("unchecked", "fine")
            for upstream in self.upstreams
        )

    def take(self, tried: Collection[Upstream] = ()) -> Lease | None:
        """A place at the best runner that is not in `tried`; None if there is no such runner."""
        choices = [each for each in self.upstreams if each.available and each not in tried]
        if not choices:
            return None
        best = min(choices, key=_order)
        best.turn = next(self._turns)
        return best.lease()

    def could_try(self, tried: Collection[Upstream] = ()) -> bool:
        """Whether `take` would return a place."""
        return any(each.available for each in self.upstreams if each not in tried)

    def why_none(self) -> str:
        """The reason for a call that got no runner."""
        told = "; ".join(each.describe() for each in self.upstreams[:NAMED])
        more = len(self.upstreams) - NAMED
        return f"no runner is left: {told}" + (f"; and {more} more" if more > 0 else "")


def _order(upstream: Upstream) -> tuple[int, float, int, float]:
    """The best runner has the least of these."""
    return upstream.rank or 0, upstream.breaker.busy_for, upstream.load, upstream.turn
