"""How the daemon itself is: pauses of the garbage collector, lateness of the event loop."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IDelayedCall, IReactorTime

LOOK_EVERY: Final = 0.1
"""Seconds from one look at the loop's lateness to the next."""

RECENT: Final = 30.0
"""The longest is that of the last 30 to 60 s."""

Now = Callable[[], float]


class Durations:
    """Counts and adds up durations in seconds, and knows the longest of late."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._begun = now()
        self._longest = self._longest_before = 0.0
        self.count = 0
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._turn()
        self.count += 1
        self.sum += seconds
        self._longest = max(self._longest, seconds)

    @property
    def longest(self) -> float:
        """The longest of the last 30 to 60 s."""
        self._turn()
        return max(self._longest, self._longest_before)

    def _turn(self) -> None:
        elapsed = self._now() - self._begun
        if elapsed >= RECENT:
            self._longest_before = self._longest if elapsed < 2 * RECENT else 0.0
            self._longest = 0.0
            self._begun = self._now()


class Health(Collector):
    """Watches from `start` to `stop`; the metrics are there at any time.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, reactor: IReactorTime, now: Now = time.perf_counter) -> None:
        self._reactor = reactor
        self._now = now
        self._timer: IDelayedCall | None = None
        self._paused_at = 0.0
        self.pauses = Durations(now)
        self.lag = Durations(now)

    def start(self) -> None:
        """Watch from now on."""
        gc.callbacks.append(self._collecting)
        self._look_again()

    def stop(self) -> None:
        """Watch no more."""
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
                f"{name}_max", f"{text}: the longest of the last minute", value=durations.longest
            )
