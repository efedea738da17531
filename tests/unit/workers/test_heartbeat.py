"""A worker that stands still is noticed; one that answers late, or is lost otherwise, is not."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.workers.heartbeat import INTERVAL, MISSED, Heartbeat


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pings: list[Deferred[Any]] = []
        self.silences: list[float] = []
        self.heartbeat = Heartbeat(self.clock, self.ping, self.silent)
        self.heartbeat.start()

    def ping(self) -> Deferred[Any]:
        self.pings.append(Deferred())
        return self.pings[-1]

    def silent(self) -> None:
        self.silences.append(self.clock.seconds())

    def test_no_answer_from_the_beginning(self) -> None:
        self.clock.pump([INTERVAL] * (MISSED - 1))
        self.assertEqual(self.silences, [])
        self.clock.pump([INTERVAL] * 5)
        self.assertEqual((self.silences, len(self.pings)), ([INTERVAL * MISSED], 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_late_but_in_time(self) -> None:
        for _ in range(20):
            self.clock.pump([INTERVAL] * (MISSED - 1))
            self.pings[-1].callback({})
            self.clock.advance(INTERVAL)
        self.assertEqual((self.silences, len(self.pings)), ([], 21))

    def test_stands_still_later(self) -> None:
        for _ in range(5):
            self.pings[-1].callback({})
            self.clock.advance(INTERVAL)
        self.clock.pump([INTERVAL] * MISSED)
        self.assertEqual(self.silences, [INTERVAL * (5 + MISSED)])

    def test_a_supervisor_that_stood_still_reads_the_answer_first(self) -> None:
        self.clock.advance(INTERVAL * MISSED * 10)
        self.assertEqual(self.silences, [], "the answer may wait in the socket")
        self.pings[-1].callback({})
        self.clock.pump([INTERVAL] * (MISSED - 1))
        self.assertEqual(self.silences, [])

    def test_a_worker_that_is_lost_and_starts_again(self) -> None:
        self.clock.pump([INTERVAL] * (MISSED - 1))
        self.heartbeat.stop()
        self.pings[-1].errback(ConnectionLost())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.heartbeat.start()
        self.clock.pump([INTERVAL] * (MISSED - 1))
        self.assertEqual((self.silences, len(self.pings)), ([], 2))
