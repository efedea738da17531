"""The circuit breaker, on a simulated clock: every input in every state, delays, limits."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.runner.pool.breaker import (
    BUSY_SECONDS,
    FULL_TRUST,
    JITTER,
    LONGEST_BUSY,
    Breaker,
    BreakerState,
    Trial,
)
from tests.unit.chance import Middle

Input = Callable[[Breaker, Trial], object]

CONNECTED: Input = Breaker.succeeded
ANSWERED: Input = Breaker.answered
FAILED: Input = Breaker.failed
ABANDONED: Input = Breaker.abandoned
BUSY_FOR_LONG: Input = lambda breaker, attempt: breaker.busy(attempt, 30.0)  # noqa: E731
FOUND_BACK: Input = lambda breaker, _: breaker.found_back()  # noqa: E731
KNOCK: Input = lambda breaker, _: breaker.knock()  # noqa: E731

INPUTS = (CONNECTED, ANSWERED, FAILED, ABANDONED, BUSY_FOR_LONG, FOUND_BACK, KNOCK)


class BreakerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.breaker = self.make()

    def make(self, chance: random.Random | None = None, **options: float) -> Breaker:
        numbers = {"failures": 3, "delay": 1.0, "max_delay": 30.0, **options}
        return Breaker(self.clock, chance or Middle(), **numbers)

    def failures(self, times: int) -> None:
        for _ in range(times):
            self.breaker.failed(self.breaker.begin())

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.succeeded(self.breaker.begin())

    def open(self) -> float:
        """Open the breaker. Returns the seconds until it is half-open."""
        self.failures(3)
        self.assertEqual(self.breaker.state, "open")
        return self.breaker.left

    def half_open(self) -> None:
        self.open()
        self.wait()

    def wait(self) -> None:
        """Turn the clock until the breaker is half-open. By rounding, one step may be too short."""
        while self.breaker.state == "open":
            self.clock.advance(max(self.breaker.left, 1e-9))
        self.assertEqual(self.breaker.state, "half-open")


class StateTests(BreakerCase):
    def outcomes(self, prepare: Callable[[], Trial]) -> list[tuple[BreakerState, bool]]:
        """The state and whether a probe is under way, after each input in INPUTS."""
        outcomes = []
        for put in INPUTS:
            self.breaker = self.make()
            put(self.breaker, prepare())
            outcomes.append((self.breaker.state, self.breaker.probing))
        return outcomes

    def test_closed(self) -> None:
        self.assertEqual(self.outcomes(lambda: self.breaker.begin()), [("closed", False)] * 7)

    def test_closed_before_the_last_failure_in_a_row(self) -> None:
        def prepare() -> Trial:
            self.failures(2)
            return self.breaker.begin()

        closed, opened = ("closed", False), ("open", False)
        wanted = [closed, closed, opened, closed, closed, closed, closed]
        self.assertEqual(self.outcomes(prepare), wanted)

    def test_open(self) -> None:
        def prepare() -> Trial:
            self.open()
            return self.breaker.begin()

        still, closed, half = ("open", False), ("closed", False), ("half-open", False)
        wanted = [still, still, still, still, still, closed, half]
        self.assertEqual(self.outcomes(prepare), wanted)

    def test_half_open_the_probe(self) -> None:
        def prepare() -> Trial:
            self.half_open()
            return self.breaker.begin()

        closed, opened, free = ("closed", False), ("open", False), ("half-open", False)
        wanted = [closed, closed, opened, free, free, closed, ("half-open", True)]
        self.assertEqual(self.outcomes(prepare), wanted)

    def test_half_open_what_is_not_the_probe(self) -> None:
        def beside_a_probe() -> Trial:
            self.half_open()
            self.breaker.begin()
            return self.breaker.begin()

        def begun_while_open() -> Trial:
            self.open()
            attempt = self.breaker.begin()
            self.wait()
            self.breaker.begin()
            return attempt

        def begun_before() -> Trial:
            attempt = self.breaker.begin()
            self.half_open()
            self.breaker.begin()
            return attempt

        same = ("half-open", True)
        for prepare in (beside_a_probe, begun_while_open, begun_before):
            with self.subTest(prepare=prepare.__name__):
                wanted = [same] * 5 + [("closed", False), same]
                self.assertEqual(self.outcomes(prepare), wanted)

    def test_only_time_makes_it_half_open(self) -> None:
        left = self.open()
        self.clock.advance(left - 0.01)
        self.assertEqual(self.breaker.state, "open")
        self.clock.advance(0.02)
        self.assertEqual((self.breaker.state, self.breaker.left), ("half-open", 0))
        self.clock.advance(1e6)
        self.assertEqual(self.breaker.state, "half-open")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures_count_in_a_row(self) -> None:
        for _ in range(10):
            self.failures(2)
            self.succeed()
        self.assertEqual(self.breaker.state, "closed")
        self.failures(2)
        self.assertEqual(self.breaker.state, "closed")
        self.failures(1)
        self.assertEqual(self.breaker.state, "open")

    def test_a_good_check_does_not_interrupt_a_row(self) -> None:
        for state in ("closed", "closed", "open"):
            self.failures(1)
            self.breaker.answered(self.breaker.begin())
            self.assertEqual(self.breaker.state, state)

    def test_the_number_is_an_option(self) -> None:
        self.breaker = self.make(failures=1)
        self.failures(1)
        self.assertEqual(self.breaker.state, "open")

    def test_failed_says_whether_it_opened(self) -> None:
        told = [self.breaker.failed(self.breaker.begin()) for _ in range(5)]
        self.assertEqual(told, [False, False, True, False, False])
        self.wait()
        self.assertTrue(self.breaker.failed(self.breaker.begin()))

    def test_what_was_begun_before_it_opened_counts_no_more(self) -> None:
        old = [self.breaker.begin() for _ in range(8)]
        for attempt in old[:5]:
            self.breaker.failed(attempt)
        self.assertEqual(self.breaker.left, 1.0)
        self.clock.advance(1.0)
        self.succeed()
        self.assertEqual((self.breaker.state, self.breaker.limit), ("closed", 1))
        for attempt in old[5:]:
            self.breaker.failed(attempt)
        self.assertEqual(self.breaker.state, "closed")
        self.breaker.succeeded(old[7])
        self.assertEqual(self.breaker.limit, 1)


class DelayTests(BreakerCase):
    def delays(self, times: int) -> list[float]:
        """The delays of a runner that fails at every probe."""
        delays = [self.open()]
        while len(delays) < times:
            self.wait()
            self.failures(1)
            delays.append(self.breaker.left)
        return delays

    def test_it_doubles_up_to_the_greatest(self) -> None:
        self.assertEqual(self.delays(8), [1, 2, 4, 8, 16, 25, 25, 25])  # 25 and a fifth is 30

    def test_it_begins_anew_when_a_bot_has_connected(self) -> None:
        self.delays(4)
        self.wait()
        self.succeed()
        self.assertEqual(self.open(), 1.0)

    def test_it_goes_on_after_a_check_alone(self) -> None:
        self.delays(3)
        self.wait()
        self.breaker.answered(self.breaker.begin())
        self.assertEqual(self.breaker.state, "closed")
        self.failures(1)
        self.assertEqual((self.breaker.state, self.breaker.left), ("open", 8.0))

    def test_one_failure_is_enough_after_a_check_and_three_after_a_bot(self) -> None:
        self.half_open()
        self.breaker.answered(self.breaker.begin())
        self.succeed()
        self.failures(2)
        self.assertEqual(self.breaker.state, "closed")
        self.open()
        self.wait()
        self.succeed()
        self.failures(2)
        self.assertEqual(self.breaker.state, "closed")

    def test_overdue_after_the_first_delay(self) -> None:
        self.delays(4)
        for overdue in (False, False, True, True):
            self.assertEqual((self.breaker.state, self.breaker.overdue), ("open", overdue))
            self.clock.advance(0.51)
        self.clock.advance(8)
        self.assertEqual((self.breaker.state, self.breaker.overdue), ("half-open", False))

    def test_a_failed_knock_doubles_like_any_probe(self) -> None:
        self.open()
        self.clock.advance(0.25)
        self.breaker.knock()
        self.failures(1)
        self.assertEqual((self.breaker.state, self.breaker.left), ("open", 2.0))

    @settings(deadline=None)
    @given(st.integers(), st.floats(0.01, 100), st.floats(0.01, 100), st.integers(1, 30))
    def test_jitter_is_bounded_and_so_is_the_delay(
        self, seed: int, delay: float, greatest: float, times: int
    ) -> None:
        self.breaker = self.make(random.Random(seed), delay=delay, max_delay=greatest)
        plain = min(delay, greatest / (1 + JITTER))
        for number, wait in enumerate(self.delays(times)):
            wanted = min(plain * 2**number, greatest / (1 + JITTER))
            self.assertGreaterEqual(wait, wanted * (1 - JITTER) * 0.999)
            self.assertLessEqual(wait, min(wanted * (1 + JITTER), greatest) * 1.001)

    def test_jitter_spreads(self) -> None:
        waits = []
        for seed in range(1000):
            self.breaker = self.make(random.Random(seed))
            waits.append(self.open())
        self.assertLess(min(waits), 0.82)
        self.assertGreater(max(waits), 1.18)
        self.assertApproximates(sum(waits) / len(waits), 1.0, 0.02)


class LimitTests(BreakerCase):
    def back(self) -> None:
        self.half_open()
        self.succeed()

    def test_none_from_the_beginning(self) -> None:
        self.succeed(3)
        self.failures(2)
        self.succeed(3)
        self.assertIsNone(self.breaker.limit)

    def test_it_doubles_with_each_success_that_follows_another_up_to_full_trust(self) -> None:
        self.back()
        limits = []
        while (limit := self.breaker.limit) is not None:
            limits.append(limit)
            self.succeed()
        self.assertEqual(limits, [1, 2, 4, 8, 16, 32])
        self.assertEqual(limits[-1] * 2, FULL_TRUST)
        self.succeed()
        self.assertIsNone(self.breaker.limit)

    def test_starts_that_were_begun_side_by_side_double_it_once(self) -> None:
        self.back()
        for limit in (2, 4, 8):
            side_by_side = [self.breaker.begin() for _ in range(limit)]
            for attempt in side_by_side:
                self.breaker.succeeded(attempt)
            self.assertEqual(self.breaker.limit, limit)

    def test_checks_do_not_raise_it(self) -> None:
        self.back()
        self.breaker.answered(self.breaker.begin())
        self.assertEqual(self.breaker.limit, 1)

    def test_failures_do_not_lower_it(self) -> None:
        self.back()
        self.succeed(3)
        self.failures(2)
        self.assertEqual(self.breaker.limit, 8)

    def test_found_back_without_having_opened(self) -> None:
        self.succeed(5)
        self.failures(1)
        self.breaker.found_back()
        self.assertEqual((self.breaker.state, self.breaker.limit), ("closed", 1))
        self.failures(1)  # the second in a row, no more
        self.assertEqual(self.breaker.state, "closed")

    def test_found_back_while_a_call_is_the_probe(self) -> None:
        self.half_open()
        probe = self.breaker.begin()
        self.breaker.found_back()
        self.assertEqual((self.breaker.state, self.breaker.limit), ("closed", 1))
        self.breaker.succeeded(probe)
        self.assertEqual(self.breaker.limit, 2)


class BusyTests(BreakerCase):
    def busy(self, seconds: float | None) -> float:
        self.breaker = self.make()
        self.breaker.busy(self.breaker.begin(), seconds)
        return self.breaker.busy_for

    def test_as_long_as_it_was_said_within_bounds(self) -> None:
        self.assertEqual(self.busy(None), BUSY_SECONDS)
        self.assertEqual(self.busy(7.0), 7.0)
        self.assertEqual(self.busy(86400.0), LONGEST_BUSY)
        self.assertEqual(self.busy(0.0), 0.0)
        self.assertEqual(self.busy(-5.0), 0.0)

    def test_it_ends(self) -> None:
        self.busy(5.0)
        self.clock.advance(3.0)
        self.assertEqual(self.breaker.busy_for, 2.0)
        self.clock.advance(3.0)
        self.assertEqual(self.breaker.busy_for, 0.0)

    def test_the_longest_of_several_holds(self) -> None:
        attempts = [self.breaker.begin() for _ in range(3)]
        for attempt, seconds in zip(attempts, (5.0, 9.0, None), strict=True):
            self.breaker.busy(attempt, seconds)
        self.assertEqual(self.breaker.busy_for, 9.0)

    def test_it_is_no_failure_and_no_success(self) -> None:
        self.failures(2)
        for _ in range(5):
            self.breaker.busy(self.breaker.begin(), None)
        self.assertEqual(self.breaker.state, "closed")
        self.failures(1)
        self.assertEqual(self.breaker.state, "open")


class LostTests(BreakerCase):
    """Bots that are lost soon after they were ready."""

    def ready(self) -> Trial:
        attempt = self.breaker.begin()
        self.breaker.succeeded(attempt)
        return attempt

    def lose(self, times: int) -> list[bool]:
        return [self.breaker.lost(self.ready()) for _ in range(times)]

    def test_as_many_in_a_row_as_failures_open_it(self) -> None:
        self.assertEqual(self.lose(3), [False, False, True])
        self.assertEqual(self.breaker.state, "open")

    def test_one_that_stays_ends_the_row(self) -> None:
        self.lose(2)
        self.breaker.kept()
        self.assertEqual(self.lose(2), [False, False])

    def test_those_that_do_not_become_ready_are_another_row(self) -> None:
        self.lose(2)
        self.failures(2)
        self.assertEqual(self.breaker.state, "closed")

    def test_afterwards_one_is_enough_and_the_delay_doubles_until_one_stays(self) -> None:
        self.lose(3)
        first = self.breaker.left
        self.wait()
        self.assertEqual(self.lose(1), [True])
        self.assertAlmostEqual(self.breaker.left, first * 2)
        self.wait()
        self.ready()
        self.breaker.kept()
        self.assertEqual(self.lose(3), [False, False, True])

    def test_one_that_was_ready_before_it_opened_tells_nothing_new(self) -> None:
        early = self.ready()
        self.open()
        left = self.breaker.left
        self.assertFalse(self.breaker.lost(early))
        self.wait()
        self.ready()
        self.assertFalse(self.breaker.lost(early))
        self.assertEqual((self.breaker.state, self.breaker.left), ("closed", 0.0))
        self.assertGreater(left, 0)
