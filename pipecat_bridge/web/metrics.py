"""Prometheus metrics: sums over ended and running calls, calculated for each scrape."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.record import quality
from pipecat_bridge.call.registry import Calls
from pipecat_bridge.call.warnings import KINDS
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.records import Records
from pipecat_bridge.runner.pool.breaker import BreakerState
from pipecat_bridge.runner.pool.upstream import RESULTS, Upstream
from pipecat_bridge.sinks.webhook import Verdict
from pipecat_bridge.sinks.webhooks import Webhooks
from pipecat_bridge.store.store import Store
from pipecat_bridge.store.uploads import Uploads

COUNTERS = {
    "caller_frames": "Audio frames from phones",
    "caller_frames_filled": "Frames of silence sent to bots while a phone sent nothing",
    "caller_frames_odd": "Frames from phones, dropped because of an odd number of bytes",
    "caller_frames_dropped": "Frames from callers, dropped because a bot was slow",
    "bot_frames": "Audio frames from bots",
    "bot_frames_bad": "Messages from bots that the bridge could not use",
    "bot_frames_played": "20 ms frames of bot audio sent to phones",
    "bot_dropped_ms": "Milliseconds of bot audio dropped because too much waited",
    "bots_replaced": "Lost bots that another bot replaced",
    "phone_frames": "20 ms frames sent to phones, silence included",
    "phone_frames_skipped": "Frames not sent because Asterisk did not read",
    "phone_unknown_messages": "Unknown AudioSocket messages from phones, skipped",
    "underruns": "Bot audio underruns within an utterance",
    "underrun_ms": "Milliseconds of audio missing in underruns",
    "concealed_ms": "Milliseconds of missing bot audio hidden by the sound before",
    "shortened_ms": "Milliseconds of bot audio left out to shorten the delay",
    "stretched_ms": "Milliseconds of bot audio repeated to lengthen the delay",
    "scaled_ms": "Milliseconds in which bot audio was left out or repeated",
    "interruptions": "Barge-ins",
    "flushed_ms": "Milliseconds of bot audio dropped by barge-ins",
}
"""Name of a counter in the record of a call -> its help text."""

GAUGES = {
    "caller_queued": "Frames from callers that bots have not read yet",
    "bot_queued_ms": "Milliseconds of bot audio that wait to be played",
}

RUNNER_STATES: Final[dict[BreakerState, int]] = {"closed": 0, "half-open": 1, "open": 2}
"""State of a runner's circuit breaker -> the value of the metric."""


class CallCollector(Collector):
    """Sums up the counters of all calls. `extra` has more counters: name -> (help, value)."""

    def __init__(
        self, calls: Calls, extra: dict[str, tuple[str, Callable[[], int]]] | None = None
    ) -> None:
        self._calls = calls
        self._extra = extra or {}
        self._ended: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()
        calls.on_ended(self._add)

    def _add(self, call: Call) -> None:
        counters = quality(call)
        self._ended.update({name: getattr(counters, name) for name in COUNTERS})
        self._warnings.update(call.warnings.counts)

    def collect(self) -> Iterator[Metric]:
        """All metrics, with their current values."""
        running = [quality(call) for call in self._calls.running]
        yield GaugeMetricFamily("pipecat_bridge_calls", "Running calls", value=len(running))
        ended = CounterMetricFamily(
            "pipecat_bridge_calls_ended", "Ended calls, by outcome", labels=["outcome"]
        )
        for outcome in Outcome:
            ended.add_metric([outcome.value], self._calls.outcomes[outcome.value])
        yield ended
        yield self._all_warnings()
        for name, text in COUNTERS.items():
            total = self._ended[name] + sum(getattr(each, name) for each in running)
            yield CounterMetricFamily(f"pipecat_bridge_{name}", text, value=total)
        for name, text in GAUGES.items():
            value = sum(getattr(each, name) for each in running)
            yield GaugeMetricFamily(f"pipecat_bridge_{name}", text, value=value)
        for name, (text, read) in self._extra.items():
            yield CounterMetricFamily(f"pipecat_bridge_{name}", text, value=read())

    def _all_warnings(self) -> Metric:
        counts = self._warnings.copy()
        for call in self._calls.running:
            counts.update(call.warnings.counts)
        metric = CounterMetricFamily(
            "pipecat_bridge_warnings", "Warnings in calls, by kind", labels=["kind"]
        )
        for kind in KINDS:
            metric.add_metric([kind], counts[kind])
        return metric


class RunnerCollector(Collector):
    """Metrics of each runner in the pool. The label `runner` is the runner's name.

    A runner without health checks, or before its first health check, has no value for `health`.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = upstreams

    def collect(self) -> Iterator[Metric]:
        """All metrics, with their current values."""
        calls = _runner_gauge("calls", "Bots that start or run at a runner")
        states = _runner_gauge(
            "state", "Circuit breaker of a runner: 0 closed, 1 half-open, 2 open"
        )
        health = _runner_gauge(
            "health", "Last health check of a runner: 1 good; 0 failed, or it takes no calls"
        )
        starts = CounterMetricFamily(
            "pipecat_bridge_runner_starts",
            "Starts of bots at a runner: ready, failed, or busy",
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


class ConnectionCollector(Collector):
    """How many connections were closed by the limits that `limits` returns."""

    def __init__(self, limits: Callable[[], Iterable[ConnectionLimit[Any]]]) -> None:
        self._limits = limits

    def collect(self) -> Iterator[Metric]:
        """The metric, with its current values."""
        dropped = CounterMetricFamily(
            "pipecat_bridge_connections_dropped",
            "Connections closed because there were too many of their kind",
            labels=["kind"],
        )
        counts: Counter[str] = Counter()
        for each in self._limits():
            counts[each.kind] += each.dropped
        for kind, count in sorted(counts.items()):
            dropped.add_metric([kind], count)
        yield dropped


class StoreCollector(Collector):
    """Metrics of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """All metrics, with their current values."""
        store = self._store
        for name, text, value in (
            ("up", "1 if the store takes what happens to calls", not store.fault),
            ("waiting", "Entries that are not in the database yet", store.waiting),
            ("journal_bytes", "Bytes of the journal", store.journal_bytes),
        ):
            yield GaugeMetricFamily(f"pipecat_bridge_store_{name}", text, value=value)
        for name, text, value in (
            ("dropped", "Entries that are lost because too many waited", store.dropped),
            ("lost_calls", "Calls that ended with an earlier process", store.lost),
        ):
            yield CounterMetricFamily(f"pipecat_bridge_store_{name}", text, value=value)


class UploadCollector(Collector):
    """Metrics of the recordings on their way into a bucket."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads

    def collect(self) -> Iterator[Metric]:
        """All metrics, with their current values."""
        text = "Recordings that wait to be stored in the bucket, or deleted from it"
        name = "pipecat_bridge_uploads"
        yield GaugeMetricFamily(f"{name}_waiting", text, value=self._uploads.waiting)
        text = "Recordings stored and deleted, and attempts that failed"
        attempts = CounterMetricFamily(name, text, labels=["result"])
        for result, count in self._uploads.results.items():
            attempts.add_metric([result], count)
        yield attempts


class WebhookCollector(Collector):
    """Metrics of each webhook. `clock`: seconds since the epoch."""

    def __init__(self, webhooks: Webhooks, clock: Callable[[], float] = time.time) -> None:
        self._couriers = webhooks.couriers
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """All metrics, with their current values."""
        now = self._clock()
        for name, text, read in (
            ("waiting", "Events that wait for a webhook", lambda one: one.depth.waiting),
            (
                "oldest_seconds",
                "Age of the oldest event that waits for a webhook",
                lambda one: now - one.depth.oldest if one.depth.oldest else 0.0,
            ),
            ("dead", "Events that a webhook will not get", lambda one: one.depth.dead),
            ("off", "1 if a webhook is switched off", lambda one: bool(one.off)),
        ):
            gauge = GaugeMetricFamily(f"pipecat_bridge_webhook_{name}", text, labels=["webhook"])
            for each in self._couriers:
                gauge.add_metric([each.hook.name], read(each))
            yield gauge
        attempts = CounterMetricFamily(
            "pipecat_bridge_webhook_attempts",
            "Attempts to send an event to a webhook, by what followed",
            labels=["webhook", "result"],
        )
        for each in self._couriers:
            for verdict in Verdict:
                labels = [each.hook.name, verdict.value]
                attempts.add_metric(labels, each.results[verdict.value])
        yield attempts


def _runner_gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pipecat_bridge_runner_{name}", text, labels=["runner"])


def encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """The encoder of the format that a client accepts, and its content type.

    prometheus_client fails for some headers that are wrong, such as `version=a`. Those say nothing.
    """
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


def registry(collector: CallCollector) -> CollectorRegistry:
    """A new registry with the metrics of calls, of Python and of the process."""
    own = CollectorRegistry()
    own.register(collector)
    ProcessCollector(registry=own)
    PlatformCollector(registry=own)
    GCCollector(registry=own)
    return own


def collectors_of(records: Records) -> Iterator[Collector]:
    """The metrics of what is kept of calls, and of who is told."""
    if records.store is not None:
        yield StoreCollector(records.store)
    if records.webhooks is not None:
        yield WebhookCollector(records.webhooks)
    if records.recordings is not None and records.recordings.uploads is not None:
        yield UploadCollector(records.recordings.uploads)
