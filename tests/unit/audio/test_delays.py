"""Delays of frames: their mean, the longest one, and quantiles that are exact to a step."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.delays import STEP, STEPS, Delays, merged

SECONDS = st.lists(st.floats(0.0, 1.5 * STEP * STEPS), max_size=50)


def delays(*seconds: float) -> Delays:
    """These delays."""
    made = Delays()
    for each in seconds:
        made.add(each)
    return made


class FigureTests(SynchronousTestCase):
    def test_of_none(self) -> None:
        none = delays()
        self.assertEqual((none.count, none.total, none.mean, none.longest), (0, 0.0, 0.0, 0.0))
        self.assertEqual((none.quantile(0.5), none.quantile(1.0, undelayed=10)), (0.0, 0.0))

    def test_mean_and_longest(self) -> None:
        some = delays(0.01, 0.06, 0.02)
        self.assertEqual((some.count, some.longest), (3, 0.06))
        self.assertApproximates(some.total, 0.09, 1e-9)
        self.assertApproximates(some.mean, 0.03, 1e-9)

    def test_quantiles(self) -> None:
        hundred = delays(*(number / 100 for number in range(1, 101)))
        for part, wanted in ((0.5, 0.5), (0.95, 0.95), (0.99, 0.99), (1.0, 1.0)):
            self.assertTrue(wanted <= hundred.quantile(part) + 1e-9, part)
            self.assertTrue(hundred.quantile(part) <= wanted + STEP + 1e-9, part)

    def test_one_delay_is_all_quantiles(self) -> None:
        for seconds in (0.0, 0.003, 0.5, 7.0):
            for part in (0.01, 0.5, 1.0):
                self.assertEqual(delays(seconds).quantile(part), seconds)

    def test_more_than_a_second(self) -> None:
        some = delays(0.1, 2.0, 3.0, 60.0)
        self.assertApproximates(some.quantile(0.25), 0.1, STEP)
        self.assertEqual((some.quantile(0.5), some.quantile(1.0)), (60.0, 60.0))


class UndelayedTests(SynchronousTestCase):
    """Most frames are not delayed at all, and are counted elsewhere."""

    def test_they_are_the_shortest(self) -> None:
        ten = delays(*[0.3] * 10)
        self.assertEqual(ten.quantile(0.95), 0.3)
        self.assertEqual(ten.quantile(0.95, undelayed=190), 0.0)
        self.assertEqual(ten.quantile(0.95, undelayed=189), 0.3)
        self.assertEqual(ten.quantile(1.0, undelayed=1_000_000), 0.3)

    @given(seconds=SECONDS, undelayed=st.integers(0, 50), part=st.floats(0.01, 1.0))
    def test_as_if_each_had_been_sorted(
        self, seconds: list[float], undelayed: int, part: float
    ) -> None:
        every = sorted([0.0] * undelayed + seconds)
        exact = every[ceil(len(every) * part) - 1] if every else 0.0
        found = delays(*seconds).quantile(part, undelayed)
        self.assertGreaterEqual(found, exact - 1e-9)
        if exact < STEP * STEPS:
            self.assertLessEqual(found, exact + STEP + 1e-9)
        else:
            self.assertEqual(found, max(seconds))


class MergeTests(SynchronousTestCase):
    @given(st.lists(SECONDS, max_size=4))
    def test_it_is_as_if_one_had_counted_all(self, several: list[list[float]]) -> None:
        one = delays(*(each for part in several for each in part))
        together = merged(delays(*part) for part in several)
        self.assertEqual((together.count, together.longest), (one.count, one.longest))
        self.assertApproximates(together.total, one.total, 1e-6)
        for part in (0.1, 0.5, 0.95, 1.0):
            self.assertEqual(together.quantile(part), one.quantile(part))

    def test_those_that_are_merged_stay_as_they_are(self) -> None:
        first, second = delays(0.1), delays(0.4)
        together = merged([first, second])
        together.add(0.9)
        first.add(0.2)
        self.assertEqual((first.count, second.count, together.count), (2, 1, 3))
        self.assertEqual((first.longest, second.longest), (0.2, 0.4))
        self.assertEqual(second.quantile(1.0), 0.4)
