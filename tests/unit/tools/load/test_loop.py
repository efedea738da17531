"""The event loop of the load generator."""

from __future__ import annotations

import time

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load.loop import EARLY, Loop

pytestmark = pytest.mark.tools


class JobTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop = Loop()
        self.ran: list[str] = []
        self.now = time.monotonic() + 60  # far from the time that the loop reads after a job

    def job(self, name: str, due: float, again: float | None = None) -> None:
        def run() -> float | None:
            self.ran.append(name)
            return again

        self.loop.at(due, run)

    def test_in_the_order_of_their_times_and_not_before(self) -> None:
        self.job("third", self.now + 1)
        self.job("second", self.now)
        self.job("first", self.now - 1)
        self.loop._run_jobs(self.now)
        self.assertEqual(self.ran[:1], ["first"])
        self.assertNotIn("third", self.ran)

    def test_again_at_the_time_that_it_returns(self) -> None:
        self.job("one", 0.0, again=self.now)
        self.loop._run_jobs(1.0)
        self.assertEqual(self.ran, ["one"])
        self.loop._run_jobs(self.now)
        self.assertEqual(self.ran, ["one", "one"])

    def test_a_job_that_begins_early_and_adds_one_that_is_due_before_it(self) -> None:
        due = time.monotonic() + 60

        def early() -> None:
            self.ran.append("early")
            self.job("added", due - EARLY / 2)

        self.loop.at(due, early)
        self.loop._run_jobs(due - EARLY / 2)
        self.loop._run_jobs(due)
        self.assertEqual(self.ran, ["early", "added"])
