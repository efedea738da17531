"""Limits of what a peer can cause as often as it likes."""

from __future__ import annotations

from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net.rate_limit import BURST, BoundedLog, RateLimit
from tests.unit.bot_side import warnings


class RateLimitTests(SynchronousTestCase):
    def test_a_burst_and_then_a_rate(self) -> None:
        limit = RateLimit(10, 2.0)
        admitted = [limit.admit(100.0 + n / 10) for n in range(100)]
        self.assertEqual(admitted[:10], [True] * 10)
        self.assertEqual(sum(admitted), 10 + 19)  # 9.9 s have passed

    def test_no_more_than_the_burst_after_a_long_time(self) -> None:
        limit = RateLimit(3, 1.0)
        for now in (1e3, 1e6):
            self.assertEqual([limit.admit(now) for _ in range(5)], [True] * 3 + [False] * 2)

    def test_a_clock_that_is_set_back(self) -> None:
        limit = RateLimit(1, 1.0)
        self.assertTrue(limit.admit(10_000.0))
        self.assertFalse(limit.admit(0.0))
        self.assertTrue(limit.admit(1.0))


class BoundedLogTests(SynchronousTestCase):
    def test_what_is_left_out_is_counted(self) -> None:
        now = [0.0]
        log = BoundedLog(Logger(namespace="pipecat_bridge"), lambda: now[0])
        with warnings() as said:
            for _ in range(BURST + 7):
                log.warn("{what}", what="x")
            now[0] = 1.0
            log.warn("{what}", what="y")
            now[0] = 2.0
            log.warn("{what}", what="z")
        count = "(7 lines like this one were left out before)"
        self.assertEqual(said, [*["x"] * BURST, f"y {count}", "z"])

    def test_the_first_faults_have_their_traceback(self) -> None:
        now = [0.0]
        log = BoundedLog(Logger(namespace="pipecat_bridge"), lambda: now[0])
        with capturedLogs() as events:
            for at in [0.0] * (BURST + 7) + [1.0]:
                now[0] = at
                log.failure("it {what}", Failure(ZeroDivisionError()), what="failed")
        self.assertEqual(len(events), BURST + 1)
        self.assertTrue(all(event["log_failure"] for event in events))
        text = "it failed (7 lines like this one were left out before)"
        self.assertEqual(formatEvent(events[-1]), text)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), BURST + 1)
