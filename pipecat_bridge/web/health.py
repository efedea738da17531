"""How the daemon itself is: the garbage collector's pauses, the event loop's lateness, memory."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.net.reactor import polling_of

LOOK_EVERY: Final = 0.1
"""Seconds from one look at the loop's lateness to the next."""

Now = Callable[[], float]


class Durations:
    """Counts and adds up durations in seconds, and knows the longest since it was last asked."""

    def __init__(self) -> None:
        self._longest = 0.0
        self.count = 0
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.sum += seconds
        self._longest = max(self._longest, seconds)

    def take_longest(self) -> float:
        """The longest since this was called before."""
        longest, self._longest = self._longest, 0.0
        return longest


class ProcessHealth(Service, Collector):
    """Watches while it runs; the metrics are there at any time.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, reactor: IReactorTime, now: Now = time.perf_counter) -> None:
        self._reactor = reactor
        self._now = now
        self._timer: IDelayedCall | None = None
        self._paused_at = 0.0
        self.pauses = Durations()
        self.lag = Durations()

    def startService(self) -> None:
        """Watch from now on."""
        super().startService()
        gc.callbacks.append(self._collecting)
        self._look_again()

    def stopService(self) -> None:
        """Watch no more."""
        super().stopService()
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _collecting(self, phase: str, _: Mapping[str, Any]) -> None:
        if phase == "start":
            self._paused_at = self._now()
        else:
            self.pauses.add(self._now() - self._paused_at)

    def _look_again(self) -> None:
        self._due = self._now() + LOOK_EVERY
        self._timer = self._reactor.callLater(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self.lag.add(max(0.0, self._now() - self._due))
        self._look_again()

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now."""
        for name, text, durations in (
            ("gc_pause", "Pauses of Python's garbage collector", self.pauses),
            ("loop_lag", "Lateness of a timer, looked at ten times a second", self.lag),
        ):
            name = f"pipecat_bridge_{name}_seconds"
            yield SummaryMetricFamily(
                name, text, count_value=durations.count, sum_value=durations.sum
            )
            yield GaugeMetricFamily(
                f"{name}_max",
                f"{text}: the longest since the last scrape",
                value=durations.take_longest(),
            )
        polling = GaugeMetricFamily(
            "pipecat_bridge_polling",
            "Processes by how their sockets are polled: batched, or as Twisted does it",
            labels=["kind"],
        )
        polling.add_metric([polling_of(self._reactor)], 1)
        yield polling
        yield GaugeMetricFamily(
            "pipecat_bridge_memory_blocks",
            "Blocks of memory that Python objects have; grows without end where there is a leak",
            value=sys.getallocatedblocks(),
        )
