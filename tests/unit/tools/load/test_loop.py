"""The event loop of the load generator."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load import loop
from pipecat_bridge.tools.load.loop import EARLY, Loop

pytestmark = pytest.mark.tools


class JobTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop = Loop()
        self.ran: list[str] = []
        self.now = 1000.0
        clock = patch.object(loop.time, "monotonic", lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)

    def job(self, name: str, due: float, again: float | None = None) -> None:
        def run() -> float | None:
            self.ran.append(name)
            return again if self.ran.count(name) == 1 else None

        self.loop.at(due, run)

    def test_in_the_order_of_their_times_and_not_before(self) -> None:
        self.job("third", self.now + 2 * EARLY)
        self.job("second", self.now)
        self.job("first", self.now - 1)
        self.loop._run_jobs(self.now)
        self.assertEqual(self.ran, ["first", "second"])
        self.now += EARLY
        self.loop._run_jobs(self.now)
        self.assertEqual(self.ran, ["first", "second", "third"])

    def test_again_at_the_time_that_it_returns(self) -> None:
        self.job("one", self.now, again=self.now + 1)
        self.loop._run_jobs(self.now)
        self.assertEqual(self.ran, ["one"])
        self.now += 1 - EARLY
        self.loop._run_jobs(self.now)
        self.assertEqual(self.ran, ["one", "one"])

    def test_a_job_that_begins_early_and_adds_one_that_is_due_before_it(self) -> None:
        due = self.now + EARLY

        def early() -> None:
            self.ran.append("early")
            self.job("added", self.now)

        self.loop.at(due, early)
        self.loop._run_jobs(self.now)
        self.now = due
        self.loop._run_jobs(due)
        self.assertEqual(self.ran, ["early", "added"])
