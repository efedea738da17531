"""The metrics: what Prometheus reads, and that they agree with the calls before and after."""

from __future__ import annotations

import random
import re
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from treq.testing import StubTreq
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.record import quality
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.pool.address import FixedAddress
from pipecat_bridge.runner.pool.pool import Lease, Pool, Upstream
from pipecat_bridge.web.api import api_site
from pipecat_bridge.web.health import ProcessHealth
from pipecat_bridge.web.metrics import (
    COUNTERS,
    GAUGES,
    CallCollector,
    ConnectionCollector,
    RunnerCollector,
    registry,
)
from tests.unit.sides import BotSide, Exchange, PhoneSide

PAGE = Path(__file__).parents[3] / "docs" / "api.md"

COUNTED = {f"pipecat_bridge_{name}_total": name for name in COUNTERS}


class MetricsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange(on_bot_lost="restart")
        self.restarts = 0
        extra = {"runner_restarts": ("Restarts", lambda: self.restarts)}
        self.registry = registry(CallCollector(self.exchange.calls, extra))

    def samples(self) -> list[Sample]:
        text = generate_latest(self.registry).decode()
        families = text_string_to_metric_families(text)
        return [sample for family in families for sample in family.samples]

    def values(self) -> dict[str, float]:
        return {sample.name: sample.value for sample in self.samples() if not sample.labels}

    def busy_call(self, number: int) -> tuple[Call, PhoneSide, BotSide]:
        """A call with its second bot, in which no two counters are equal."""
        call, phone, _ = self.exchange.talk()
        call.bot_lost("connection", "broken")
        call.bot_ready("bot-ready")
        bot = self.exchange.runner.bots[-1]
        phone.stats.frames_in = 1 + number
        phone.stats.filled_frames = 2 + number
        phone.stats.odd_frames = 3 + number
        phone.stats.frames_out = 4 + number
        phone.stats.frames_skipped = 5 + number
        phone.stats.unknown_messages = 15 + number
        bot.link.stats.frames_in = 6 + number
        bot.link.stats.bad_frames = 7 + number
        call.interruptions = 8 + number
        bot.link.queue_stats.dropped = 9 + number
        bot.link.queued = 10 + number
        bot.playout.stats.delays.count = 11 + number
        bot.playout.stats.underruns = 12 + number
        bot.playout.stats.underrun_ms = 13.0 + number
        bot.playout.stats.flushed_ms = 14 + number
        bot.playout.stats.dropped_ms = 16.0 + number
        bot.playout.stats.concealed_ms = 17.0 + number
        bot.playout.stats.shortened_ms = 18.0 + number
        bot.playout.stats.stretched_ms = 19.0 + number
        bot.playout.stats.scaled_ms = 20 + number
        self.exchange.say(bot, 0.1 * (number + 1))
        return call, phone, bot


class CounterTests(MetricsCase):
    def test_they_are_those_of_the_calls(self) -> None:
        calls = [self.busy_call(number)[0] for number in range(3)]
        counted = [quality(call) for call in calls]
        values = self.values()
        for name, key in COUNTED.items():
            self.assertEqual(values[name], sum(getattr(each, key) for each in counted), name)
            self.assertGreater(values[name], 0, name)
        for key in GAUGES:
            wanted = sum(getattr(each, key) for each in counted)
            self.assertEqual(values[f"pipecat_bridge_{key}"], wanted)
            self.assertGreater(wanted, 0, key)
        self.assertEqual(values["pipecat_bridge_calls"], 3)

    def test_an_end_changes_no_counter(self) -> None:
        calls = [self.busy_call(number)[0] for number in range(3)]
        before = self.values()
        for running, call in zip((2, 1, 0), calls, strict=True):
            call.stop()
            after = self.values()
            for name in COUNTED:
                self.assertEqual(after[name], before[name], name)
            self.assertEqual(after["pipecat_bridge_calls"], running)
        for key in GAUGES:
            self.assertEqual(after[f"pipecat_bridge_{key}"], 0)

    def test_they_never_go_back(self) -> None:
        last = self.values()
        for number in range(4):
            call, _, _ = self.busy_call(number)
            for _ in range(2):
                now = self.values()
                self.assertEqual([name for name in COUNTED if now[name] < last[name]], [])
                last = now
                call.stop()

    def test_reading_them_while_a_call_ends_counts_it_once(self) -> None:
        seen: list[float] = []
        call, _, _ = self.busy_call(5)
        name = "pipecat_bridge_caller_frames_total"
        self.exchange.calls.on_ended(lambda _: seen.append(self.values()[name]))
        call.stop()
        self.assertEqual(seen, [6.0])

    def test_outcomes(self) -> None:
        for outcome in (Outcome.STOPPED, Outcome.DRAINED, Outcome.DRAINED):
            self.exchange.talk()[0].stop(outcome)
        self.exchange.calls.drain()
        self.exchange.calls.answer("42", PhoneSide(self.exchange.clock))
        ended = {
            sample.labels["outcome"]: sample.value
            for sample in self.samples()
            if sample.name == "pipecat_bridge_calls_ended_total"
        }
        self.assertEqual(set(ended), {outcome.value for outcome in Outcome})
        counted = {name: value for name, value in ended.items() if value}
        self.assertEqual(counted, {"stopped": 1, "drained": 2, "rejected": 1})

    def test_further_ones(self) -> None:
        self.restarts = 3
        self.assertEqual(self.values()["pipecat_bridge_runner_restarts_total"], 3)


class RunnerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.upstreams = [Upstream(name, FixedAddress(name)) for name in ("http://a", "http://b")]
        self.pool = Pool(self.upstreams, self.clock, RunnerOptions(), random.Random(1))
        self.registry = CollectorRegistry()
        self.registry.register(RunnerCollector(self.pool.upstreams))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pipecat_bridge_runner_{name}", labels)

    def take(self, number: int) -> Lease:
        lease = self.pool.take([self.upstreams[1 - number]])
        assert lease is not None
        return lease

    def test_calls_and_what_became_of_starts(self) -> None:
        for result in ("ready", "failed", "busy"):
            self.assertEqual(self.value("starts_total", runner="http://a", result=result), 0)
        for _ in range(3):
            self.take(0).ready()
        self.take(0).failed("refused")
        self.take(0).failed("refused")
        self.take(0).give_back()
        self.take(1).busy()
        self.assertEqual(self.value("calls", runner="http://a"), 3)
        self.assertEqual(self.value("calls", runner="http://b"), 0)
        for runner, result, count in (
            ("http://a", "ready", 3),
            ("http://a", "failed", 2),
            ("http://a", "busy", 0),
            ("http://b", "busy", 1),
        ):
            self.assertEqual(self.value("starts_total", runner=runner, result=result), count)

    def test_states(self) -> None:
        seen = [self.value("state", runner="http://a")]
        for _ in range(3):
            self.take(0).failed("refused")
        seen.append(self.value("state", runner="http://a"))
        self.clock.advance(1.3)
        seen.append(self.value("state", runner="http://a"))
        self.take(0).ready()
        seen.append(self.value("state", runner="http://a"))
        self.assertEqual(seen, [0, 2, 1, 0])
        self.assertEqual(self.value("state", runner="http://b"), 0)

    def test_health_is_told_where_it_is_known(self) -> None:
        wanted = {"unchecked": None, "unknown": None, "fine": 1, "draining": 0, "silent": 0}
        for health, value in wanted.items():
            self.upstreams[0].health = health
            self.assertEqual(self.value("health", runner="http://a"), value, health)


class PageTests(MetricsCase):
    def dropped(self, *limits: ConnectionLimit[int]) -> dict[str, dict[str, float]]:
        """Name of a metric -> its values by kind."""
        found: dict[str, dict[str, float]] = {}
        for family in ConnectionCollector(lambda: limits).collect():
            values = {sample.labels["kind"]: sample.value for sample in family.samples}
            found[f"{family.name}_total"] = values
        return found

    def test_connections_that_were_dropped(self) -> None:
        clock = Clock()
        limits = [
            ConnectionLimit[int](clock, kind, lambda _: None, lambda: 1)
            for kind in ("api", "proxy", "proxy")
        ]
        for limit, count in zip(limits, (1, 3, 4), strict=True):
            for connection in range(count):
                limit.wait(connection)
        wanted = {"pipecat_bridge_connections_dropped_total": {"api": 0, "proxy": 5}}
        self.assertEqual(self.dropped(*limits), wanted)

    def test_over_http(self) -> None:
        self.busy_call(1)
        descriptors = Descriptors(Clock())
        site = api_site(
            Clock(), self.exchange.calls, None, lambda: succeed(True), descriptors, self.registry
        )
        treq = StubTreq(site.resource)
        response = self.successResultOf(treq.get("http://bridge/metrics"))
        self.assertEqual(response.code, 200)
        [content_type] = response.headers.getRawHeaders("content-type")
        self.assertTrue(content_type.startswith("text/plain; version=0.0.4"), content_type)
        text = self.successResultOf(response.text())
        names = {family.name for family in text_string_to_metric_families(text)}
        self.assertTrue({"pipecat_bridge_calls", "process_resident_memory_bytes"} <= names)
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        response = self.successResultOf(treq.get("http://bridge/metrics", headers=accept))
        self.assertTrue(self.successResultOf(response.text()).endswith("# EOF\n"))

    def test_the_page_in_docs_names_all_of_them_and_no_other(self) -> None:
        own = {sample.name for sample in self.samples() if "pipecat_bridge" in sample.name}
        service = {
            "ticks_skipped",
            "phones_refused",
            "descriptors_exhausted",
            "bot_sockets_refused",
            "runner_restarts",
        }
        own |= {f"pipecat_bridge_{name}_total" for name in service}
        health = [
            sample for family in ProcessHealth(Clock()).collect() for sample in family.samples
        ]
        own |= {sample.name for sample in health}
        upstream = Upstream("http://a", FixedAddress("http://a"))
        pool = Pool([upstream], Clock(), RunnerOptions(), random.Random())
        upstream.health = "fine"
        runner = [
            sample for each in RunnerCollector(pool.upstreams).collect() for sample in each.samples
        ]
        own |= {sample.name for sample in runner}
        own |= set(self.dropped())
        named = set(re.findall(r"`(pipecat_bridge_\w+)", PAGE.read_text("utf-8")))
        # Those of a store and of webhooks need both: tests/e2e/test_api.py.
        kept = {name for name in named if re.match("pipecat_bridge_(store|uploads|webhook)_", name)}
        self.assertEqual(named - kept, own)
