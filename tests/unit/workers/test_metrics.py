"""The metrics of several workers on one page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.workers.metrics import Page


def page(calls: float, ended: float, longest: float, cpu: float = 0.5, state: int = 0) -> str:
    return f"""\
# HELP pipecat_bridge_calls Calls that run
# TYPE pipecat_bridge_calls gauge
pipecat_bridge_calls {calls}
# HELP pipecat_bridge_calls_ended_total Calls that have ended
# TYPE pipecat_bridge_calls_ended_total counter
pipecat_bridge_calls_ended_total{{outcome="completed"}} {ended}
pipecat_bridge_calls_ended_total{{outcome="drained"}} 1
# HELP pipecat_bridge_loop_lag_seconds Lateness
# TYPE pipecat_bridge_loop_lag_seconds summary
pipecat_bridge_loop_lag_seconds_count 10
pipecat_bridge_loop_lag_seconds_sum 0.5
# HELP pipecat_bridge_loop_lag_seconds_max Lateness: the longest
# TYPE pipecat_bridge_loop_lag_seconds_max gauge
pipecat_bridge_loop_lag_seconds_max {longest}
# HELP pipecat_bridge_runner_state Circuit breaker
# TYPE pipecat_bridge_runner_state gauge
pipecat_bridge_runner_state{{runner="a"}} {state}
# HELP pipecat_bridge_runner_health Health
# TYPE pipecat_bridge_runner_health gauge
pipecat_bridge_runner_health{{runner="a"}} {1 - state / 2}
# HELP pipecat_bridge_store_up 1 if it is up
# TYPE pipecat_bridge_store_up gauge
pipecat_bridge_store_up {1 if state == 0 else 0}
# HELP pipecat_bridge_webhook_dead Dead
# TYPE pipecat_bridge_webhook_dead gauge
pipecat_bridge_webhook_dead{{webhook="crm"}} 7
# HELP process_cpu_seconds_total CPU
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total {cpu}
# HELP h Some histogram
# TYPE h histogram
h_bucket{{le="1.0"}} 3
h_bucket{{le="+Inf"}} 4
h_count 4
h_sum 2.5
"""


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.page = Page()
        self.registry = CollectorRegistry()
        self.registry.register(self.page)

    def shown(self, name: str) -> dict[str, float]:
        """The samples of a metric, by the values of their labels."""
        text = generate_latest(self.registry).decode()
        families = list(text_string_to_metric_families(text))
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        samples = [sample for family in families for sample in family.samples]
        return {
            " ".join(sample.labels.values()): sample.value
            for sample in samples
            if sample.name == name
        }

    def test_counters_and_gauges_are_added_up(self) -> None:
        self.page.update("1", page(2, 10, 0.1))
        self.page.update("2", page(3, 20, 0.3))
        self.assertEqual(self.shown("pipecat_bridge_calls"), {"": 5})
        ended = self.shown("pipecat_bridge_calls_ended_total")
        self.assertEqual(ended, {"completed": 30, "drained": 2})
        self.assertEqual(self.shown("pipecat_bridge_loop_lag_seconds_sum"), {"": 1.0})
        self.assertEqual(self.shown("h_bucket"), {"1.0": 6, "+Inf": 8})
        self.assertEqual(self.shown("h_count"), {"": 8})

    def test_of_a_maximum_and_a_state_the_worst_is_shown(self) -> None:
        self.page.update("1", page(2, 10, 0.1, state=2))
        self.page.update("2", page(3, 20, 0.3))
        self.assertEqual(self.shown("pipecat_bridge_loop_lag_seconds_max"), {"": 0.3})
        self.assertEqual(self.shown("pipecat_bridge_runner_state"), {"a": 2})
        self.assertEqual(self.shown("pipecat_bridge_runner_health"), {"a": 0})
        self.assertEqual(self.shown("pipecat_bridge_store_up"), {"": 0})

    def test_what_is_in_the_store_is_there_once(self) -> None:
        self.page.update("1", page(2, 10, 0.1))
        self.page.update("2", page(3, 20, 0.3))
        self.assertEqual(self.shown("pipecat_bridge_webhook_dead"), {"crm": 7})

    def test_each_process_is_shown(self) -> None:
        self.page.update("1", page(2, 10, 0.1, cpu=1.5))
        self.page.update("2", page(3, 20, 0.3, cpu=2.5))
        self.assertEqual(self.shown("process_cpu_seconds_total"), {"1": 1.5, "2": 2.5})

    def test_counters_do_not_go_back_when_a_worker_is_replaced(self) -> None:
        self.page.update("1", page(2, 10, 0.1))
        self.page.update("2", page(3, 20, 0.3))
        self.page.end("2")
        self.assertEqual(self.shown("pipecat_bridge_calls"), {"": 2})
        self.assertEqual(self.shown("pipecat_bridge_calls_ended_total")["completed"], 30)
        self.assertEqual(self.shown("pipecat_bridge_loop_lag_seconds_max"), {"": 0.1})
        self.assertEqual(self.shown("process_cpu_seconds_total"), {"1": 0.5})
        self.page.update("2", page(0, 0, 0.0))
        self.assertEqual(self.shown("pipecat_bridge_calls_ended_total")["completed"], 30)
        self.page.update("2", page(0, 4, 0.0))
        self.assertEqual(self.shown("pipecat_bridge_calls_ended_total")["completed"], 34)
        self.page.end("2")
        self.page.update("2", page(0, 1, 0.0))
        self.assertEqual(self.shown("pipecat_bridge_calls_ended_total")["completed"], 35)
        self.assertEqual(self.shown("h_sum"), {"": 2.5 * 4})

    def test_one_that_was_never_heard(self) -> None:
        self.page.end("1")
        self.assertEqual(list(self.page.collect()), [])
