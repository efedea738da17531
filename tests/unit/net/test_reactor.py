"""What is asked of the reactor: monotonic timers, and sockets read in batches; on real ones."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any
from unittest import skipUnless
from unittest.mock import patch

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from pipecat_bridge.net.reactor import (
    AT_ONCE,
    PER_SOCKET,
    SHORTEST,
    SOON,
    BatchedPolling,
    keep_time,
    poll_in_batches,
    polling_of,
)

INTERVAL = SHORTEST


def close(reactor: Any) -> None:
    for reader in list(reactor._internalReaders):
        reactor.removeReader(reader)
        reader.connectionLost(None)
    if hasattr(reactor, "_poller"):
        reactor._poller.close()


class MonotonicTimeTests(SynchronousTestCase):
    def reactor(self) -> Any:
        reactor = SelectReactor()
        self.addCleanup(close, reactor)
        return reactor

    def test_timers_do_not_follow_the_wall_clock(self) -> None:
        reactor = self.reactor()
        keep_time(reactor)
        self.assertIs(reactor.seconds, time.monotonic)
        timer = reactor.callLater(10.0, lambda: None)
        with patch("time.time", lambda: 0.0):
            self.assertTrue(9.0 < reactor.timeout() <= 10.0)
        timer.cancel()

    def test_timers_that_run_already_are_left_alone(self) -> None:
        reactor = self.reactor()
        timer = reactor.callLater(10.0, lambda: None)
        keep_time(reactor)
        self.assertIsNot(reactor.seconds, time.monotonic)
        timer.cancel()

    def test_a_clock_of_a_test_is_left_alone(self) -> None:
        clock = Clock()
        keep_time(clock)
        clock.advance(5.0)
        self.assertEqual(clock.seconds(), 5.0)


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 9))
        self.now += seconds


@implementer(IReadDescriptor, IWriteDescriptor)
class Descriptor:
    """One end of a connected pair; `then` runs when it has read, and what it returns is the end."""

    def __init__(self, then: Callable[[], Exception | None] = lambda: None) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.then = then
        self.got: list[bytes] = []
        self.writes = 0
        self.lost: Failure | None = None

    def fileno(self) -> int:
        return self.near.fileno()

    def logPrefix(self) -> str:
        return "Descriptor"

    def doRead(self) -> Exception | None:
        data = self.near.recv(100)
        if not data:
            return ConnectionDone()
        self.got.append(data)
        return self.then()

    def doWrite(self) -> Exception | None:
        self.writes += 1
        return None

    def connectionLost(self, reason: Failure) -> None:
        self.lost = reason
        self.close()

    def close(self) -> None:
        self.near.close()
        self.far.close()


@skipUnless(hasattr(select, "epoll"), "epoll is Linux's")
class BatchedPollingTests(SynchronousTestCase):
    def setUp(self) -> None:
        from twisted.internet.epollreactor import EPollReactor

        self.reactor: Any = EPollReactor()
        self.addCleanup(close, self.reactor)
        self.time = Time()
        self.polling = self.with_interval(INTERVAL)

    def with_interval(self, interval: float) -> BatchedPolling:
        return BatchedPolling(self.reactor, interval, lambda: self.time.now, self.time.sleep)

    def descriptor(self, then: Callable[[], Exception | None] = lambda: None) -> Descriptor:
        descriptor = Descriptor(then)
        self.addCleanup(descriptor.close)
        self.reactor.addReader(descriptor)
        return descriptor

    def make_busy(self) -> Descriptor:
        """Two events in one poll, and then a third one that waits."""
        one, two = self.descriptor(), self.descriptor()
        for each in (one, two):
            each.far.send(b"first")
        self.polling(0.0)
        one.far.send(b"second")
        return one

    # Dispatching

    def test_what_is_there_is_read(self) -> None:
        one, two, other = self.descriptor(), self.descriptor(), self.descriptor()
        one.far.send(b"1")
        two.far.send(b"2")
        self.polling(None)
        self.assertEqual([one.got, two.got, other.got], [[b"1"], [b"2"], []])

    def test_nothing_there(self) -> None:
        self.polling(0.0)
        self.polling(0.0)
        self.assertEqual(self.time.slept, [])

    def test_an_end_that_reading_finds(self) -> None:
        broken = self.descriptor(then=ConnectionLost)
        sound = self.descriptor()
        for each in (broken, sound):
            each.far.send(b"x")
        self.polling(0.0)
        assert broken.lost is not None
        self.assertTrue(broken.lost.check(ConnectionLost))
        self.assertEqual(self.reactor.getReaders().count(broken), 0)
        sound.far.send(b"y")
        self.time.now += 1
        self.polling(0.0)
        self.assertEqual(sound.got, [b"x", b"y"])

    def test_a_fault_costs_that_connection_and_is_logged(self) -> None:
        def fail() -> None:
            raise RuntimeError("a fault of this protocol")

        faulty, sound = self.descriptor(then=fail), self.descriptor()
        for each in (faulty, sound):
            each.far.send(b"x")
        self.polling(0.0)
        assert faulty.lost is not None
        self.assertTrue(faulty.lost.check(RuntimeError))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(sound.got, [b"x"])

    def test_a_peer_that_has_closed(self) -> None:
        left = self.descriptor()
        left.far.send(b"last words")
        left.far.close()
        self.polling(0.0)
        self.assertEqual(left.got, [b"last words"])
        self.time.now += 1
        self.polling(0.0)
        assert left.lost is not None
        self.assertTrue(left.lost.check(ConnectionDone))

    def test_one_that_waits_to_write(self) -> None:
        writer = self.descriptor()
        self.reactor.addWriter(writer)
        writer.far.send(b"x")
        self.polling(0.0)
        self.assertEqual([writer.got, writer.writes], [[b"x"], 1])

    def test_one_that_another_has_ended_in_the_same_batch(self) -> None:
        pair: list[Descriptor] = []

        def end_both() -> None:
            for each in pair:
                self.reactor.removeReader(each)

        pair += [self.descriptor(end_both), self.descriptor(end_both)]
        for each in pair:
            each.far.send(b"x")
        self.polling(0.0)
        self.assertEqual(sum(len(each.got) for each in pair), 1)

    # Batches

    def test_batches_grow_with_the_number_of_sockets_up_to_the_limit(self) -> None:
        longest = 0.002
        for sockets, expected in ((40, SHORTEST), (150, 150 * PER_SOCKET), (5000, longest)):
            with self.subTest(sockets=sockets):
                self.time.slept.clear()
                self.polling = self.with_interval(longest)
                one = self.make_busy()
                others = range(10_000, 10_000 + sockets - len(self.reactor._selectables))
                self.reactor._selectables.update(dict.fromkeys(others))
                self.polling(1.0)
                self.assertEqual(one.got, [b"first", b"second"])
                self.assertEqual(self.time.slept, [round(expected, 9)])
                for other in others:
                    del self.reactor._selectables[other]

    def test_after_a_single_event_nothing_waits(self) -> None:
        one = self.descriptor()
        one.far.send(b"1")
        self.polling(None)
        one.far.send(b"2")
        self.polling(None)
        self.assertEqual([one.got, self.time.slept], [[b"1", b"2"], []])

    def test_close_events_make_it_wait_once_until_a_wait_finds_one_only(self) -> None:
        one = self.descriptor()
        slept = []
        for number in range(4):
            one.far.send(b"%d" % number)
            self.time.now += INTERVAL / 4
            self.polling(None)
            slept.append(round(sum(self.time.slept) / INTERVAL, 6))
        self.assertEqual(slept, [0, 0, 0.75, 0.75])
        self.assertEqual(len(one.got), 4)

    def test_busy_sockets_are_looked_at_once_in_an_interval(self) -> None:
        one = self.make_busy()
        self.time.now += INTERVAL / 4
        self.polling(None)
        self.assertAlmostEqual(self.time.slept[0], INTERVAL * 3 / 4)
        self.assertEqual(one.got, [b"first", b"second"])

    def test_it_does_not_wait_when_the_interval_is_over(self) -> None:
        self.make_busy()
        self.time.now += INTERVAL
        self.polling(None)
        self.assertEqual(self.time.slept, [])

    def test_a_pause_ends_it(self) -> None:
        one = self.make_busy()
        self.time.now += 5 * INTERVAL
        self.polling(None)
        one.far.send(b"third")
        self.polling(None)
        self.assertEqual(self.time.slept, [])
        self.assertEqual(one.got, [b"first", b"second", b"third"])

    def test_a_timer_comes_first_and_the_sockets_right_after_it(self) -> None:
        for left in (0.0, INTERVAL / 4, INTERVAL * (1 + SOON / 2)):
            with self.subTest(left=left):
                self.time.now += 5 * INTERVAL
                self.polling(0.0)
                self.time.slept.clear()
                one = self.make_busy()
                self.polling(left)
                self.assertEqual(one.got, [b"first"])
                self.polling(None)
                self.assertEqual(one.got, [b"first", b"second"])
                self.assertAlmostEqual(sum(self.time.slept), left)

    def test_it_is_busy_still_after_a_timer(self) -> None:
        one = self.make_busy()
        self.polling(INTERVAL / 4)
        self.polling(None)
        one.far.send(b"third")
        self.polling(None)
        self.assertEqual(one.got, [b"first", b"second", b"third"])
        self.assertEqual(self.time.slept, [INTERVAL / 4, INTERVAL])

    def test_timers_without_end_do_not_keep_it_from_the_sockets(self) -> None:
        one = self.make_busy()
        for _ in range(2):
            self.polling(0.0)
        self.assertEqual(one.got, [b"first", b"second"])

    def test_what_is_slept_is_taken_off_the_timeout(self) -> None:
        self.make_busy()
        polled = []

        def poll(left: float, _most: int) -> list[tuple[int, int]]:
            polled.append(round(left, 9))
            return []

        self.polling._poll = poll
        self.polling(INTERVAL * 3)
        self.assertEqual([self.time.slept, polled], [[INTERVAL], [INTERVAL * 2]])

    def test_more_than_are_handled_at_once(self) -> None:
        crowd = [self.descriptor() for _ in range(2 * AT_ONCE + 2)]
        for each in crowd:
            each.far.send(b"x")
        read = []
        for _ in range(3):
            self.polling(None)
            read.append(sum(len(each.got) for each in crowd))
        self.assertEqual(read, [AT_ONCE, 2 * AT_ONCE, 2 * AT_ONCE + 2])
        self.assertEqual(self.time.slept, [])
        self.polling(INTERVAL / 2)
        self.assertEqual(self.time.slept, [INTERVAL / 2])

    # Where

    def test_it_is_for_the_epoll_reactor(self) -> None:
        self.assertEqual(polling_of(self.reactor), "twisted")
        poll_in_batches(self.reactor, INTERVAL)
        self.assertEqual(polling_of(self.reactor), "batched")

    def test_without_an_interval_polling_stays_twisteds_own(self) -> None:
        own = self.reactor.doIteration
        poll_in_batches(self.reactor, 0.0)
        self.assertEqual(self.reactor.doIteration, own)
        self.assertEqual(polling_of(self.reactor), "twisted")

    def test_one_that_is_built_otherwise_is_left_alone(self) -> None:
        poller = self.reactor._poller
        self.addCleanup(setattr, self.reactor, "_poller", poller)
        del self.reactor._poller
        poll_in_batches(self.reactor, INTERVAL)
        self.assertEqual(polling_of(self.reactor), "twisted")

    def test_others_are_left_alone(self) -> None:
        class Own(type(self.reactor)):  # type: ignore[misc]
            """Somebody's own."""

        for other in (SelectReactor(), Own()):
            self.addCleanup(close, other)
            poll_in_batches(other, INTERVAL)
            self.assertEqual(polling_of(other), "twisted")
        poll_in_batches(Clock(), INTERVAL)
