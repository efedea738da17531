"""Slices: one in each turn, nothing read meanwhile, the rest forgotten with the connection."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net.slices import Slices
from tests.unit.turns import turn


class Owner:
    """Has some slices to work on, and a transport that notes whether it reads."""

    def __init__(self, clock: Clock, slices: int) -> None:
        self.left = slices
        self.reads = True
        self.slices = Slices(clock, self, self.work)

    def pauseProducing(self) -> None:
        self.reads = False

    def resumeProducing(self) -> None:
        self.reads = True

    def work(self) -> None:
        self.left -= 1
        if self.left:
            self.slices.later()


class SlicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def test_one_in_each_turn_and_nothing_is_read_meanwhile(self) -> None:
        one, other = Owner(self.clock, 4), Owner(self.clock, 3)
        one.work()
        other.work()
        seen = []
        for _ in range(4):
            seen.append((one.left, one.reads, other.left, other.reads))
            turn(self.clock)
        self.assertEqual(
            seen,
            [(3, False, 2, False), (2, False, 1, False), (1, False, 0, True), (0, True, 0, True)],
        )

    def test_a_single_slice_never_pauses(self) -> None:
        one = Owner(self.clock, 1)
        one.work()
        self.assertEqual((one.left, one.reads, self.clock.getDelayedCalls()), (0, True, []))

    def test_data_that_comes_although_nothing_is_read(self) -> None:
        one = Owner(self.clock, 4)
        one.work()
        one.work()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_an_owner_that_does_not_want_to_read(self) -> None:
        one = Owner(self.clock, 3)
        one.work()
        one.slices.read(False)
        self.clock.pump([0] * 3)
        self.assertEqual((one.left, one.reads), (0, False))
        one.slices.read(True)
        self.assertTrue(one.reads)

    def test_an_owner_that_wants_to_read_again_before_the_rest_is_done(self) -> None:
        one = Owner(self.clock, 3)
        one.slices.read(False)
        one.work()
        one.slices.read(True)
        self.assertFalse(one.reads)
        self.clock.pump([0] * 3)
        self.assertEqual((one.left, one.reads), (0, True))

    def test_after_the_end_nothing_is_left(self) -> None:
        one = Owner(self.clock, 3)
        one.work()
        one.slices.close()
        self.clock.advance(1)
        self.assertEqual((one.left, self.clock.getDelayedCalls()), (2, []))
        one.slices.close()
