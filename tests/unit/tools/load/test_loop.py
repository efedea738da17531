"""The event loop of the load generator."""

from __future__ import annotations

import socket
from unittest.mock import patch

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load import loop as load_loop
from pipecat_bridge.tools.load.loop import EARLY, Loop

pytestmark = pytest.mark.tools


class JobTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop = Loop()
        self.ran: list[str] = []
        self.now = 1000.0
        clock = patch.object(load_loop.time, "monotonic", lambda: self.now)
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


class UnreadTests(SynchronousTestCase):
    """How long what is read now may have waited."""

    def test_time_in_which_the_loop_was_busy_counts_and_time_asleep_does_not(self) -> None:
        now = 1000.0
        one, other = socket.socketpair()
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        seen: list[float] = []
        loop = Loop()

        def wait(*_: object) -> None:
            nonlocal now
            now += 10.0

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        def read() -> None:
            nonlocal now
            seen.append(loop.unread_for)
            now += 0.25  # busy
            if len(seen) == 2:
                loop.stop()

        with (
            patch.object(load_loop.time, "monotonic", lambda: now),
            patch.object(load_loop.time, "sleep", sleep),
            patch.object(load_loop.select, "select", wait),
        ):
            other.send(b"x")
            loop.read(one.fileno(), read)
            loop.run()
        self.assertEqual(seen, [0.0, 0.25])
