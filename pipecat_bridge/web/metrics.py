"""Prometheus metrics: counters of ended calls and of those that run, added up when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.record import stats
from pipecat_bridge.call.registry import Calls
from pipecat_bridge.call.warnings import KINDS
from pipecat_bridge.runner.pool.breaker import BreakerState
from pipecat_bridge.runner.pool.upstream import RESULTS, Upstream

COUNTERS = {
    "caller_frames": "Audio frames from phones",
    "caller_frames_filled": "Frames of silence sent to bots while a phone sent nothing",
    "caller_frames_odd": "Frames from phones that were dropped for an odd number of bytes",
    "caller_frames_dropped": "Frames of callers that were dropped because a bot was slow",
    "bot_frames": "Audio frames from bots",
    "bot_frames_bad": "Messages from bots that could not be used",
    "bot_frames_played": "20 ms frames of bot audio that were sent to phones",
    "bots_replaced": "Bots that took the place of lost ones",
    "phone_frames": "20 ms frames sent to phones, silence included",
    "phone_frames_skipped": "Frames not sent because Asterisk did not read",
    "phone_unknown_messages": "Messages from phones that are not AudioSocket's, and were skipped",
    "underruns": "Times that bot audio ran dry in the midst of an utterance",
    "underrun_ms": "Milliseconds that were missing then",
    "interruptions": "Barge-ins",
    "flushed_ms": "Milliseconds of bot audio dropped by barge-ins",
}
"""Name in a call's record -> what it counts."""

GAUGES = {
    "caller_queued": "Frames of callers that bots have not read yet",
    "bot_queued_ms": "Milliseconds of bot audio that wait to be played",
}

RUNNER_STATES: Final[dict[BreakerState, int]] = {"closed": 0, "half-open": 1, "open": 2}
"""State of a runner's circuit breaker -> its number."""


class CallCollector(Collector):
    """Adds up the counters of calls. `extra` gives further counters: name -> (help, value)."""

    def __init__(
        self, calls: Calls, extra: dict[str, tuple[str, Callable[[], int]]] | None = None
    ) -> None:
        self._calls = calls
        self._extra = extra or {}
        self._ended: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()
        calls.on_ended(self._add)

    def _add(self, call: Call) -> None:
        counters = stats(call)
        self._ended.update({name: counters[name] for name in COUNTERS})
        self._warnings.update(call.warnings.counts)

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now."""
        running = [stats(call) for call in self._calls.running]
        yield GaugeMetricFamily("pipecat_bridge_calls", "Calls that run", value=len(running))
        ended = CounterMetricFamily(
            "pipecat_bridge_calls_ended", "Calls that have ended, by outcome", labels=["outcome"]
        )
        for outcome in Outcome:
            ended.add_metric([outcome.value], self._calls.outcomes[outcome.value])
        yield ended
        yield self._all_warnings()
        for name, text in COUNTERS.items():
            total = self._ended[name] + sum(each[name] for each in running)
            yield CounterMetricFamily(f"pipecat_bridge_{name}", text, value=total)
        for name, text in GAUGES.items():
            value = sum(each[name] for each in running)
            yield GaugeMetricFamily(f"pipecat_bridge_{name}", text, value=value)
        for name, (text, read) in self._extra.items():
            yield CounterMetricFamily(f"pipecat_bridge_{name}", text, value=read())

    def _all_warnings(self) -> Metric:
        counts = self._warnings.copy()
        for call in self._calls.running:
            counts.update(call.warnings.counts)
        metric = CounterMetricFamily(
            "pipecat_bridge_warnings", "Faults in calls that went on, by kind", labels=["kind"]
        )
        for kind in KINDS:
            metric.add_metric([kind], counts[kind])
        return metric


class RunnerCollector(Collector):
    """What the pool knows of each runner; the label `runner` is its name.

    There is no health of a runner that is not checked, or of which nothing is known yet.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = upstreams

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now."""
        calls = _runner_gauge("calls", "Bots that start or run at a runner")
        states = _runner_gauge(
            "state", "Circuit breaker of a runner: 0 closed, 1 half-open, 2 open"
        )
        health = _runner_gauge("health", "Whether a runner answered its last check well: 1, else 0")
        starts = CounterMetricFamily(
            "pipecat_bridge_runner_starts",
            "Starts of bots at a runner, by what became of them",
            labels=["runner", "result"],
        )
        lost = CounterMetricFamily(
            "pipecat_bridge_runner_bots_lost",
            "Bots of a runner that were lost within 5 s of being ready",
            labels=["runner"],
        )
        for upstream in self._upstreams:
            name = [upstream.name]
            calls.add_metric(name, upstream.calls)
            states.add_metric(name, RUNNER_STATES[upstream.state])
            if upstream.health not in ("unchecked", "unknown"):
                health.add_metric(name, upstream.health == "fine")
            lost.add_metric(name, upstream.lost)
            for result in RESULTS:
                starts.add_metric([*name, result], upstream.starts[result])
        yield from (calls, states, health, starts, lost)


def _runner_gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pipecat_bridge_runner_{name}", text, labels=["runner"])


def registry(collector: CallCollector) -> CollectorRegistry:
    """A registry of its own, with Python's and the process's metrics."""
    own = CollectorRegistry()
    own.register(collector)
    ProcessCollector(registry=own)
    PlatformCollector(registry=own)
    GCCollector(registry=own)
    return own
