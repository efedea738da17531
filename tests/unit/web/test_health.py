"""Pauses of the garbage collector and delay of the event loop, in /metrics."""

from __future__ import annotations

import gc

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge import native
from pipecat_bridge.web.health import LOOK_EVERY, ProcessHealth


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.health = ProcessHealth(self.clock, self.clock.seconds)
        self.health.startService()
        self.addCleanup(self.health.stopService)
        self.registry = CollectorRegistry()
        self.registry.register(self.health)
        gc.disable()  # a collection of its own accord would be a pause as well
        self.addCleanup(gc.enable)

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"pipecat_bridge_{name}")

    def test_every_collection_is_a_pause(self) -> None:
        before = self.value("gc_pause_seconds_count") or 0
        gc.collect()
        gc.collect()
        self.assertEqual(self.value("gc_pause_seconds_count"), before + 2)

    def test_a_pause_lasts_from_start_to_stop(self) -> None:
        for seconds in (0.03, 0.01):
            self.health._collecting("start", {})
            self.clock.rightNow += seconds
            self.health._collecting("stop", {})
        self.assertApproximates(self.value("gc_pause_seconds_sum"), 0.04, 1e-9)
        self.assertApproximates(self.value("gc_pause_seconds_max"), 0.03, 1e-9)

    def test_how_the_sockets_are_polled(self) -> None:
        found = self.registry.get_sample_value("pipecat_bridge_polling", {"kind": "twisted"})
        self.assertEqual(found, 1)

    def test_whether_the_loops_are_compiled(self) -> None:
        self.assertEqual(self.value("compiled"), int(native.COMPILED))

    def test_what_is_kept_shows_in_the_blocks(self) -> None:
        before = self.value("memory_blocks") or 0
        kept = [[number] for number in range(10_000)]
        self.assertGreater((self.value("memory_blocks") or 0) - before, 9_000)
        del kept

    def test_a_loop_in_time_has_no_lag(self) -> None:
        for _ in range(10):
            self.clock.advance(LOOK_EVERY)
        self.assertEqual(self.value("loop_lag_seconds_count"), 10)
        self.assertApproximates(self.value("loop_lag_seconds_sum"), 0, 1e-9)

    def test_a_loop_that_stalls_is_late_by_the_stall(self) -> None:
        self.clock.advance(LOOK_EVERY + 0.25)
        self.clock.advance(LOOK_EVERY)
        self.assertApproximates(self.value("loop_lag_seconds_sum"), 0.25, 1e-9)
        self.assertApproximates(self.value("loop_lag_seconds_max"), 0.25, 1e-9)

    def test_after_stop_nothing_is_left(self) -> None:
        self.health.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn(self.health._collecting, gc.callbacks)
        self.health.stopService()

    def test_the_longest_is_told_once(self) -> None:
        self.health.pauses.add(2.0)
        self.health.pauses.add(1.0)
        self.assertEqual(self.value("gc_pause_seconds_max"), 2.0)
        self.assertEqual(self.value("gc_pause_seconds_max"), 0.0)
        self.health.pauses.add(0.5)
        self.assertEqual(self.value("gc_pause_seconds_max"), 0.5)
        self.assertEqual(self.value("gc_pause_seconds_sum"), 3.5)
