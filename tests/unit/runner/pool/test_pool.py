"""The pool of runners: leases, choice, and rules that hold in any order of events."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.pool.address import FixedAddress
from pipecat_bridge.runner.pool.breaker import BUSY_SECONDS
from pipecat_bridge.runner.pool.pool import Lease, Pool, Upstream
from pipecat_bridge.runner.pool.upstream import RECENT, SOON, STARTING
from tests.unit.chance import Middle


class PoolCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.make(3)

    def make(self, runners: int, chance: random.Random | None = None, **options: float) -> None:
        names = [f"http://{letter}" for letter in "abcdefgh"[:runners]]
        self.upstreams = [Upstream(name, FixedAddress(name)) for name in names]
        chance = chance or Middle(7)
        self.pool = Pool(self.upstreams, self.clock, RunnerOptions(**options), chance)

    def take(self, *tried: Upstream) -> Lease:
        could = self.pool.could_try(tried)
        lease = self.pool.take(tried)
        self.assertEqual(could, lease is not None)
        assert lease is not None
        return lease

    def take_at(self, upstream: Upstream) -> Lease:
        return self.take(*[each for each in self.upstreams if each is not upstream])

    def none(self, *tried: Upstream) -> None:
        self.assertFalse(self.pool.could_try(tried))
        self.assertIsNone(self.pool.take(tried))

    def open(self, upstream: Upstream) -> None:
        while upstream.state != "open":
            self.take_at(upstream).failed("refused")

    def close(self, upstream: Upstream) -> None:
        """Close an open breaker by a call."""
        self.clock.advance(upstream.breaker.left + 0.001)
        self.take_at(upstream).ready()
        self.assertEqual(upstream.state, "closed")

    @property
    def calls(self) -> list[int]:
        return [upstream.calls for upstream in self.upstreams]


class LeaseTests(PoolCase):
    def setUp(self) -> None:
        super().setUp()
        self.make(1)
        [self.upstream] = self.upstreams

    def counts(self) -> tuple[int, int]:
        return self.upstream.calls, self.upstream.starting

    def test_a_call_from_beginning_to_end(self) -> None:
        lease = self.take()
        self.assertIs(lease.upstream, self.upstream)
        self.assertEqual(self.counts(), (1, 1))
        lease.ready()
        self.assertEqual(self.counts(), (1, 0))
        lease.give_back()
        self.assertEqual(self.counts(), (0, 0))

    def test_the_first_word_counts_and_the_place_is_given_back_once(self) -> None:
        words: dict[str, Callable[[Lease], None]] = {
            "ready": lambda lease: lease.ready(),
            "failed": lambda lease: lease.failed("refused"),
            "busy": lambda lease: lease.busy(5.0),
            "given back": lambda lease: lease.give_back(),
        }
        for first, say in words.items():
            for second, say_more in words.items():
                with self.subTest(first=first, second=second):
                    self.make(1, breaker_failures=2)
                    [self.upstream] = self.upstreams
                    self.take().ready()  # a place that must not be given back for another
                    lease = self.take()
                    for _ in range(2):
                        say(lease)
                    for _ in range(2):
                        say_more(lease)
                    kept = first == second == "ready"
                    self.assertEqual(self.counts(), (2 if kept else 1, 0))
                    wanted = Counter({"ready": 1})
                    wanted.update([first] if first != "given back" else [])
                    self.assertEqual(self.upstream.starts, wanted)
                    self.assertEqual(self.upstream.state, "closed")
                    self.assertEqual(self.upstream.available, first != "busy")

    def test_a_probe_that_tells_nothing_lets_another_in(self) -> None:
        for end in (lambda lease: lease.give_back(), lambda lease: lease.busy(0.0)):
            self.open(self.upstream)
            self.clock.advance(self.upstream.breaker.left + 0.001)
            probe = self.take()
            self.none()
            end(probe)
            self.assertEqual(self.upstream.state, "half-open")
            self.take().ready()
            self.assertEqual(self.upstream.state, "closed")


class ChoiceTests(PoolCase):
    def connect(self) -> Lease:
        lease = self.take()
        lease.ready()
        return lease

    def test_least_loaded(self) -> None:
        leases = [self.connect() for _ in range(30)]
        self.assertEqual(self.calls, [10, 10, 10])
        ended = [lease for lease in leases if lease.upstream is self.upstreams[1]][:4]
        for lease in ended:
            lease.give_back()
        self.assertEqual([self.connect().upstream for _ in ended], [self.upstreams[1]] * 4)
        self.assertEqual(self.calls, [10, 10, 10])

    def test_one_that_starts_weighs_as_much_as_some_that_run(self) -> None:
        first, second, third = self.upstreams
        for _ in range(STARTING - 1):
            self.take_at(first).ready()
            self.take_at(second).ready()
        self.take_at(third)
        self.assertNotIn(third, [self.take().upstream for _ in range(2)])
        self.assertIs(self.take().upstream, third)

    def test_bots_that_are_gone_weigh_for_a_while(self) -> None:
        """A runner whose bots fail or are lost at once must not look idle."""
        first, second, third = self.upstreams
        for other in (second, third):
            self.take_at(other).ready()
        self.take_at(first).failed("x")
        lost = self.take_at(first)
        lost.ready()
        lost.lost("reset", busy=False)
        self.assertEqual((first.calls, first.load), (0, 2))
        self.assertNotIn(first, [self.take().upstream for _ in range(2)])
        self.clock.advance(RECENT)
        self.assertEqual(first.load, 0)

    def test_a_busy_one_is_not_remembered(self) -> None:
        first = self.upstreams[0]
        self.take_at(first).busy(None)
        self.assertEqual(first.load, 0)

    def test_what_is_lost_late_is_no_trouble_of_its_runner(self) -> None:
        first = self.upstreams[0]
        for _ in range(9):
            lease = self.take_at(first)
            lease.ready()
            self.clock.advance(SOON)
            lease.lost("reset", busy=False)
        self.assertEqual((first.lost, first.state), (0, "closed"))

    def test_a_caller_who_leaves_soon_says_nothing_for_the_bot(self) -> None:
        first = self.upstreams[0]
        for number in range(3):
            self.assertEqual(first.state, "closed")
            short = self.take_at(first)
            short.ready()
            short.give_back()
            lost = self.take_at(first)
            lost.ready()
            lost.lost("reset", busy=False)
            self.assertEqual(first.lost, number + 1)
        self.assertEqual(first.state, "open")

    def test_equals_take_turns_in_an_order_that_is_left_to_chance(self) -> None:
        orders: set[tuple[str, ...]] = set()
        for seed in range(30):
            self.make(3, random.Random(seed))
            taken = []
            for _ in range(6):
                lease = self.take()
                taken.append(lease.upstream.name)
                lease.give_back()
            self.assertEqual(taken[:3], taken[3:])
            self.assertEqual(len(set(taken)), 3)
            orders.add(tuple(taken[:3]))
        self.assertEqual(len(orders), 6)

    def test_none_that_was_tried(self) -> None:
        first, second, third = self.upstreams
        self.assertIs(self.take(first, third).upstream, second)
        self.none(first, second, third)

    def test_none_whose_breaker_is_open(self) -> None:
        first, *others = self.upstreams
        self.open(first)
        self.assertFalse(first.available)
        for _ in range(20):
            self.assertIn(self.take().upstream, others)

    def test_others_than_one_that_is_busy_until_it_is_not(self) -> None:
        first, *others = self.upstreams
        self.take_at(first).busy(5.0)
        self.assertEqual((first.state, first.available, first.calls), ("closed", False, 0))
        for _ in range(4):
            self.assertIn(self.take().upstream, others)
        self.clock.advance(4.9)
        for _ in range(4):
            self.assertIn(self.take().upstream, others)
        self.clock.advance(0.2)
        self.assertIs(self.take().upstream, first)
        self.assertIsNone(first.breaker.limit)

    def test_the_least_busy_after_a_second_if_all_are_busy(self) -> None:
        first, second, third = self.upstreams
        for each, seconds in ((first, 60.0), (second, 30.0), (third, 45.0)):
            self.take_at(each).busy(seconds)
        self.clock.advance(BUSY_SECONDS - 0.1)
        self.none()
        self.clock.advance(0.2)
        for each in (second, third, first):
            lease = self.take()
            self.assertIs(lease.upstream, each)
            lease.busy(60.0)
        self.none()
        self.clock.advance(BUSY_SECONDS)
        self.take().ready()
        self.assertFalse(self.pool.available, "all have asked for a minute")

    def test_none_that_is_busy_and_whose_breaker_is_open(self) -> None:
        first, *others = self.upstreams
        self.take_at(first).busy(60.0)
        self.clock.advance(BUSY_SECONDS)
        self.open(first)
        self.none(*others)

    def test_a_half_open_one_takes_one_call_to_see(self) -> None:
        first, *others = self.upstreams
        self.open(first)
        for each in others:
            self.take_at(each).ready()
        self.clock.advance(1.1)
        self.assertEqual((first.state, first.available), ("half-open", True))
        probe = self.take()
        self.assertIs(probe.upstream, first)
        self.assertEqual((first.state, first.available), ("half-open", False))
        for _ in range(10):
            self.assertIn(self.take().upstream, others)
        probe.failed("refused")
        self.assertEqual(first.state, "open")

    def test_that_is_no_callers_risk_where_checks_can_tell(self) -> None:
        first, *others = self.upstreams
        first.health = "silent"
        self.open(first)
        self.clock.advance(1.1)
        for _ in range(10):
            self.assertIn(self.take().upstream, others)
        self.assertIs(self.take(*others).upstream, first)

    def test_one_that_did_not_answer_its_last_check_comes_after_the_others(self) -> None:
        first, *others = self.upstreams
        first.health = "silent"
        for _ in range(10):
            self.assertIn(self.take().upstream, others)
        self.assertIs(self.take(*others).upstream, first)

    def test_none_that_is_draining(self) -> None:
        first, *others = self.upstreams
        first.health = "draining"
        self.none(*others)

    def test_one_that_is_back_gets_one_then_two_then_four(self) -> None:
        first, *others = self.upstreams
        for _ in range(400):
            self.take(first).ready()
        self.open(first)
        self.close(first)
        for under_way in (1, 2, 4, 8, 16, 32):
            leases = [self.take() for _ in range(under_way)]
            self.assertEqual({lease.upstream for lease in leases}, {first})
            self.assertIn(self.take().upstream, others)
            for lease in leases:
                lease.ready()
                lease.give_back()
        self.assertEqual([self.take().upstream for _ in range(40)].count(first), 40)

    def test_no_call_is_lost_for_that_limit(self) -> None:
        first = self.upstreams[0]
        self.open(first)
        self.close(first)
        self.take_at(first)
        self.assertIs(self.take_at(first).upstream, first)


class NoChoiceTests(PoolCase):
    """When no runner is left, mostly with a single runner."""

    def setUp(self) -> None:
        super().setUp()
        self.make(1)
        [self.upstream] = self.upstreams

    def test_calls_fail_at_once_while_it_is_open(self) -> None:
        self.open(self.upstream)
        self.assertFalse(self.pool.available)
        self.none()
        self.clock.advance(0.99)
        self.none()

    def test_one_call_a_second_is_let_through_however_long_it_has_failed(self) -> None:
        self.open(self.upstream)
        for _ in range(10):
            self.clock.advance(0.99)
            self.none()
            self.clock.advance(0.02)
            probe = self.take()
            self.none()
            probe.failed("refused")
        self.assertGreater(self.upstream.breaker.left, 20)
        self.clock.advance(1.01)
        self.take().ready()
        self.assertEqual((self.upstream.state, self.pool.available), ("closed", True))

    def test_in_a_pool_the_doubled_delay_is_kept_while_others_are_there(self) -> None:
        self.make(3)
        first, *others = self.upstreams
        self.open(first)
        self.clock.advance(1.1)
        self.take_at(first).failed("refused")
        self.clock.advance(1.1)
        self.assertIn(self.take().upstream, others)
        self.assertIs(self.take(*others).upstream, first)
        self.assertEqual(first.state, "half-open")

    def test_the_reason(self) -> None:
        self.make(5)
        first, second, third, *_ = self.upstreams
        self.open(first)
        self.take_at(second).busy(4.0)
        third.health = "draining"
        wanted = (
            "no runner is left: http://a gets no calls for 1.0 s more (refused); http://b is busy,"
            " for 4.0 s more; http://c says that it takes no calls; and 2 more"
        )
        self.assertEqual(self.pool.why_none(), wanted)
        self.clock.advance(1.1)
        self.take_at(first)
        self.assertIn("http://a is being tried with one call (refused)", self.pool.why_none())

    def test_of_one(self) -> None:
        self.open(self.upstream)
        wanted = "no runner is left: http://a gets no calls for 1.0 s more (refused)"
        self.assertEqual(self.pool.why_none(), wanted)


class ReadyTests(PoolCase):
    def test_as_long_as_one_is(self) -> None:
        for upstream in self.upstreams:
            self.assertTrue(self.pool.available)
            self.open(upstream)
        self.assertFalse(self.pool.available)
        self.clock.advance(1.1)
        self.assertTrue(self.pool.available)

    def test_one_that_calls_may_try_for_want_of_another_is_not(self) -> None:
        self.make(1)
        [upstream] = self.upstreams
        self.open(upstream)
        self.clock.advance(1.1)
        self.take().failed("refused")
        self.clock.advance(1.1)
        self.assertEqual((self.pool.could_try(), self.pool.available), (True, False))

    def test_what_its_checks_say_counts(self) -> None:
        self.make(1)
        [upstream] = self.upstreams
        for health in ("unchecked", "unknown", "fine", "draining", "silent"):
            upstream.health = health
            self.assertEqual(self.pool.available, health in ("unchecked", "fine"), health)

    def test_calls_may_come_before_the_first_check_has_ended(self) -> None:
        self.make(1)
        self.upstreams[0].health = "unknown"
        self.take()


class LogTests(PoolCase):
    def test_that_a_runner_is_left_alone_and_that_it_is_back(self) -> None:
        first, *_ = self.upstreams
        with capturedLogs() as captured:
            self.open(first)
            self.close(first)
            self.take_at(first).ready()
        wanted = [
            "runner http://a fails and gets no calls for 1.0 s: refused",
            "runner http://a takes calls again",
        ]
        self.assertEqual([formatEvent(event) for event in captured], wanted)


class NameTests(PoolCase):
    def test_they_are_kept_apart(self) -> None:
        upstreams = [Upstream("http://a", FixedAddress(f"http://a?key={key}")) for key in "123"]
        Pool(upstreams, self.clock, RunnerOptions(), Middle())
        names = [upstream.name for upstream in upstreams]
        self.assertEqual(names, ["http://a", "http://a#2", "http://a#3"])


class SequenceTests(PoolCase):
    """Rules that hold for any events in any order."""

    WORDS = (
        Lease.ready,
        lambda lease: lease.failed("refused"),
        lambda lease: lease.failed("refused"),
        lambda lease: lease.busy(None),
        lambda lease: lease.busy(3.0),
        Lease.give_back,
    )

    @settings(deadline=None, max_examples=100)
    @given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(1, 4))
    def test_counts_and_probes(self, chance: random.Random, runners: int, failures: int) -> None:
        self.clock = Clock()  # each example from the same time on, to the last digit
        self.make(runners, random.Random(chance.random()), breaker_failures=failures)
        leases: list[Lease] = []
        held: Counter[Upstream] = Counter()
        probes: dict[Upstream, set[Lease]] = {each: set() for each in self.upstreams}
        for _ in range(150):
            step = chance.random()
            if step < 0.4:
                tried = [each for each in self.upstreams if chance.random() < 0.2]
                could, ready = self.pool.could_try(tried), self.ready(tried)
                lease = self.pool.take(tried)
                self.assertEqual(lease is not None, could)
                self.assertTrue(lease is not None or not ready)
                if lease is not None:
                    self.assertNotIn(lease.upstream, tried)
                    leases.append(lease)
                    held[lease.upstream] += 1
                    if lease.upstream.state == "half-open":
                        probes[lease.upstream].add(lease)
            elif step < 0.8 and leases:
                lease = chance.choice(leases)
                word = chance.choice(self.WORDS)
                word(lease)
                probes[lease.upstream].discard(lease)
                if word is not Lease.ready:
                    leases.remove(lease)
                    held[lease.upstream] -= 1
                    word(lease)
            else:
                self.clock.advance(chance.choice((0.1, 0.5, 2.0, 40.0)))
            for each in self.upstreams:
                self.assertEqual(each.calls, held[each])
                self.assertLessEqual(0, each.starting)
                self.assertLessEqual(each.starting, each.calls)
                if each.state == "half-open":
                    self.assertLessEqual(len(probes[each]), 1)
                else:
                    probes[each].clear()
        for lease in leases:
            lease.give_back()
        self.assertEqual(sum(self.calls) + sum(each.starting for each in self.upstreams), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ready(self, tried: list[Upstream]) -> bool:
        return any(
            each.state == "closed" and not each.breaker.busy_for and each not in tried
            for each in self.upstreams
        )
