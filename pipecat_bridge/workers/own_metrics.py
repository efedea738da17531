"""The supervisor's own metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipecat_bridge.net.descriptors import EXHAUSTED_HELP, Descriptors
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.runner.start.embedded import EmbeddedRunner
from pipecat_bridge.web.metrics import ConnectionCollector
from pipecat_bridge.workers.switchboard import Switchboard

SUPERVISOR: Final = "supervisor"
"""Value of the label `worker` for the process of the supervisor."""


class OwnMetrics(Collector):
    """Metrics about workers, phones without a worker, and the embedded runner."""

    def __init__(
        self,
        switchboard: Switchboard,
        descriptors: Descriptors,
        embedded: EmbeddedRunner | None,
    ) -> None:
        self._switchboard = switchboard
        self._descriptors = descriptors
        self._embedded = embedded

    def collect(self) -> Iterator[Metric]:
        """The present values of all metrics."""
        board = self._switchboard
        yield GaugeMetricFamily(
            "pipecat_bridge_workers", "Workers that take calls", value=len(board.ready)
        )
        calls = GaugeMetricFamily(
            "pipecat_bridge_worker_calls", "Calls of a worker", labels=["worker"]
        )
        restarts = CounterMetricFamily(
            "pipecat_bridge_worker_restarts", "Restarts of a worker", labels=["worker"]
        )
        for worker in board.workers:
            calls.add_metric([str(worker.number)], board.places.calls_of(worker))
            restarts.add_metric([str(worker.number)], worker.restarts)
        yield from (calls, restarts)
        yield CounterMetricFamily(
            "pipecat_bridge_calls_lost", "Calls that ended with their worker", board.calls_lost
        )
        yield CounterMetricFamily(
            "pipecat_bridge_phones_without_worker",
            "Phones that no worker could take",
            board.phones_refused,
        )
        yield CounterMetricFamily(
            "pipecat_bridge_descriptors_exhausted",
            EXHAUSTED_HELP,
            self._descriptors.exhausted,
        )
        if self._embedded is not None:
            yield CounterMetricFamily(
                "pipecat_bridge_runner_restarts",
                "Restarts of the embedded runner",
                self._embedded.restarts,
            )


def own_registry(
    switchboard: Switchboard,
    descriptors: Descriptors,
    embedded: EmbeddedRunner | None,
    limits: Callable[[], Iterable[ConnectionLimit[Any]]],
) -> CollectorRegistry:
    """A registry of the supervisor's metrics, and those of Python and of its process."""
    own = CollectorRegistry()
    own.register(OwnMetrics(switchboard, descriptors, embedded))
    own.register(ConnectionCollector(limits))
    ProcessCollector(registry=own)
    PlatformCollector(registry=own)
    GCCollector(registry=own)
    return own
