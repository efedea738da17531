"""The metrics of all workers on one page. Counters do not go back when a worker is replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

EACH: Final = ("process_", "python_")
"""Prefixes of the metrics of a process. They are shown for each worker, with the label `worker`."""

ONLY_GROW: Final = frozenset({"counter", "summary", "histogram"})
"""Types of metrics whose values never become smaller."""

_LARGEST: Final = frozenset(
    {
        "pipecat_bridge_runner_state",
        "pipecat_bridge_webhook_dead",
        "pipecat_bridge_webhook_off",
        "pipecat_bridge_webhook_oldest_seconds",
        "pipecat_bridge_webhook_waiting",
    }
)
_SMALLEST: Final = frozenset({"pipecat_bridge_runner_health", "pipecat_bridge_store_up"})

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""

Family = tuple[str, str, str]
"""A metric's name, help and type."""


def merged(name: str, values: Iterable[float]) -> float:
    """One value from the values of several workers: maximum, minimum or sum.

    The states of runners and of the store are the worst that any worker sees. All workers see the
    same deliveries to webhooks.
    """
    if name.endswith("_max") or name in _LARGEST:
        return max(values)
    return min(values) if name in _SMALLEST else sum(values)


class Page(Collector):
    """The last metrics of each worker, and the counts of workers that have ended."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}  # by the name of the sample
        self._last: dict[str, dict[Key, float]] = {}
        self._gone: dict[Key, float] = {}

    def update(self, worker: str, text: str) -> None:
        """Take the present metrics of `worker`, in Prometheus's text format."""
        samples: dict[Key, float] = {}
        for family in text_string_to_metric_families(text):
            each = family.name.startswith(EACH)
            for sample in family.samples:
                labels = {**sample.labels, "worker": worker} if each else sample.labels
                samples[sample.name, tuple(labels.items())] = sample.value
                self._families[sample.name] = family.name, family.documentation, family.type
        self._last[worker] = samples

    def end(self, worker: str) -> None:
        """Take note that `worker` has ended. Its last known counts stay in the sums."""
        for (name, labels), value in self._last.pop(worker, {}).items():
            if self._families[name][2] in ONLY_GROW and not name.startswith(EACH):
                self._gone[name, labels] = self._gone.get((name, labels), 0.0) + value

    def collect(self) -> Iterator[Metric]:
        """All metrics, merged from the workers that run and those that have ended."""
        values: dict[Key, list[float]] = {}
        for samples in [*self._last.values(), self._gone]:
            for key, value in samples.items():
                values.setdefault(key, []).append(value)
        metrics: dict[Family, Metric] = {}
        for (name, labels), each in values.items():
            family = self._families[name]
            metric = metrics.setdefault(family, Metric(*family))
            metric.add_sample(name, dict(labels), merged(name, each))
        yield from metrics.values()
