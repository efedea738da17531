"""The health of the daemon itself: garbage collector pauses, event loop delay, memory."""

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

from pipecat_bridge import native
from pipecat_bridge.net.reactor import polling_of

LOOK_EVERY: Final = 0.1
"""Seconds between two measurements of the event loop's delay."""

Now = Callable[[], float]


class Durations:
    """Number and sum of durations, and the longest since it was last read. All in seconds."""

    def __init__(self) -> None:
        self._longest = 0.0
        self.count = 0
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self.count += 1
        self.sum += seconds
        self._longest = max(self._longest, seconds)

    def take_longest(self) -> float:
        """Return the longest duration since the last call of this method."""
        longest, self._longest = self._longest, 0.0
        return longest


class ProcessHealth(Service, Collector):
    """Measures while the service runs. Its metrics can be read at any time.

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
        """Begin to measure."""
        super().startService()
        gc.callbacks.append(self._collecting)
        self._look_again()

    def stopService(self) -> None:
        """Stop measuring."""
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
        """All metrics, with their current values."""
        for name, text, durations in (
            ("gc_pause", "Pauses of Python's garbage collector", self.pauses),
            ("loop_lag", "Delay of the event loop, measured ten times a second", self.lag),
        ):
            name = f"pipecat_bridge_{name}_seconds"
            yield SummaryMetricFamily(
                name, text, count_value=durations.count, sum_value=durations.sum
            )
            yield GaugeMetricFamily(
                f"{name}_max",
                f"{text}: longest since the last scrape",
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
            "pipecat_bridge_compiled",
            "Processes that run the compiled loops; without them a call costs a third more",
            value=int(native.COMPILED),
        )
        yield GaugeMetricFamily(
            "pipecat_bridge_memory_blocks",
            "Memory blocks that Python has allocated; a leak lets them grow without end",
            value=sys.getallocatedblocks(),
        )
