"""The runners that take calls: which of them gets the next one."""

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
"""Runners that are told of in the reason of a call that found none."""


class Pool:
    """Chooses runners, and keeps count of what they have.

    The least loaded one of the best rank gets a call; among equals the one that has waited longest
    for one. The order in which that begins is left to chance: bridges that share runners and begin
    together would go round in step.

    When no runner is left a call fails at once, so that the dialplan has its fallback soon. But
    doubled delays are for pools with another choice: with none, the first delay (about a second) is
    enough for a call to be let through to a runner that has failed, one at a time. So with a single
    runner, too, one that is back is found within about a second of calls. For the same reason the
    limit after a return is not what a call is lost for: it only sends calls elsewhere.
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
            if seen[upstream.name] > 1:  # URLs that differ in their query; metrics need names apart
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
        """Whether a runner is there that is not known to be in trouble; for /readyz."""
        return any(
            upstream.available
            and upstream.state != "open"
            and upstream.health in ("unchecked", "fine")
            for upstream in self.upstreams
        )

    def take(self, tried: Collection[Upstream] = ()) -> Lease | None:
        """A place at the best runner that is not among `tried`; None when there is none."""
        choices = [each for each in self.upstreams if each.available and each not in tried]
        if not choices:
            return None
        best = min(choices, key=lambda each: (each.rank or 0, each.load, each.turn))
        best.turn = next(self._turns)
        return best.lease()

    def could_try(self, tried: Collection[Upstream] = ()) -> bool:
        """Whether `take` would give one."""
        return any(each.available for each in self.upstreams if each not in tried)

    def why_none(self) -> str:
        """A sentence for a call that got none."""
        told = "; ".join(each.describe() for each in self.upstreams[:NAMED])
        more = len(self.upstreams) - NAMED
        return f"no runner is left: {told}" + (f"; and {more} more" if more > 0 else "")
