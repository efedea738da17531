"""The measure that the tests with a real Asterisk judge sound by: it finds what is wrong."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.asterisk.compare import compare, unlike
from tests.asterisk.sound import Signal, speech_like

RATE = 8000
SAID = speech_like(6.0, RATE)


def with_hole(begin: float, seconds: float) -> Signal:
    """`SAID`, half a second later, with a silence in it."""
    heard = np.concatenate([np.zeros(RATE // 2), SAID])
    at = round((0.5 + begin) * RATE)
    heard[at : at + round(seconds * RATE)] = 0
    return heard


class UnlikeTests(SynchronousTestCase):
    def test_the_same_sound_later(self) -> None:
        self.assertEqual(unlike(SAID, with_hole(0.0, 0.0), RATE, ()), ())

    def test_a_hole(self) -> None:
        [second] = unlike(SAID, with_hole(3.25, 0.1), RATE, ())
        self.assertAlmostEqual(second, 3.2)

    def test_a_hole_where_asterisk_was_late(self) -> None:
        self.assertEqual(unlike(SAID, with_hole(3.25, 0.1), RATE, (3.3,)), ())

    def test_a_hole_elsewhere(self) -> None:
        [second] = unlike(SAID, with_hole(3.25, 0.1), RATE, (1.0, 5.0))
        self.assertAlmostEqual(second, 3.2)

    def test_what_comes_later_after_a_pause_is_the_same(self) -> None:
        heard = np.insert(with_hole(0.0, 0.0), round(3.5 * RATE), np.zeros(RATE // 5))
        self.assertEqual(unlike(SAID, heard, RATE, ()), ())


class CompareTests(SynchronousTestCase):
    def test_a_hole_is_a_gap(self) -> None:
        [(second, length)] = compare(SAID, with_hole(3.25, 0.1), RATE).gaps
        self.assertAlmostEqual(second, 3.25, delta=0.02)
        self.assertAlmostEqual(length, 0.1, delta=0.02)
