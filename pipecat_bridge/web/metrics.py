"""Prometheus metrics: counters of ended calls and of those that run, added up when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.record import stats
from pipecat_bridge.call.registry import Calls

COUNTERS = {
    "caller_frames": "Audio frames from phones",
    "caller_frames_filled": "Frames of silence sent to bots while a phone sent nothing",
    "caller_frames_odd": "Frames from phones that were dropped for an odd number of bytes",
    "caller_frames_dropped": "Frames of callers that were dropped because a bot was slow",
    "bot_frames": "Audio frames from bots",
    "bot_frames_bad": "Messages from bots that could not be used",
    "bot_frames_played": "20 ms frames of bot audio that were sent to phones",
    "phone_frames": "20 ms frames sent to phones, silence included",
    "phone_frames_skipped": "Frames not sent because Asterisk did not read",
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


class CallCollector(Collector):
    """Adds up the counters of calls. `extra` gives further counters: name -> (help, value)."""

    def __init__(
        self, calls: Calls, extra: dict[str, tuple[str, Callable[[], int]]] | None = None
    ) -> None:
        self._calls = calls
        self._extra = extra or {}
        self._ended: Counter[str] = Counter()
        calls.on_ended(self._add)

    def _add(self, call: Call) -> None:
        counters = stats(call)
        self._ended.update({name: counters[name] for name in COUNTERS})

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
        for name, text in COUNTERS.items():
            total = self._ended[name] + sum(each[name] for each in running)
            yield CounterMetricFamily(f"pipecat_bridge_{name}", text, value=total)
        for name, text in GAUGES.items():
            value = sum(each[name] for each in running)
            yield GaugeMetricFamily(f"pipecat_bridge_{name}", text, value=value)
        for name, (text, read) in self._extra.items():
            yield CounterMetricFamily(f"pipecat_bridge_{name}", text, value=read())


def registry(collector: CallCollector) -> CollectorRegistry:
    """A registry of its own, with Python's and the process's metrics."""
    own = CollectorRegistry()
    own.register(collector)
    ProcessCollector(registry=own)
    PlatformCollector(registry=own)
    GCCollector(registry=own)
    return own
