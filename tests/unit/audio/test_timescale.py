"""One period is left out or repeated: the pitch stays, and no seam is heard."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.timescale import (
    LONGEST,
    NEEDED,
    SHORTEST,
    Samples,
    crossfade,
    lengthen,
    level,
    period_of,
    shorten,
)
from tests.unit.audio.hearing import noise, voice

RATES = (8000, 16000, 24000, 48000)


def buzz(frequency: float, rate: int, seconds: float = 0.06) -> Samples:
    """A sound with overtones, like that of a voice."""
    time = np.arange(round(seconds * rate)) / rate
    parts = [np.sin(2 * np.pi * frequency * n * time) / n for n in range(1, 8)]
    return np.rint(6000 * np.sum(parts, axis=0)).astype(np.int16)


def error(heard: Samples, wanted: Samples) -> float:
    """The level of the difference, over the level of the sound."""
    return level((heard.astype(np.int32) - wanted).astype(np.int16)) / level(wanted)


class TimescaleTests(SynchronousTestCase):
    def test_a_periodic_sound_goes_on_as_if_nothing_had_happened(self) -> None:
        for rate in RATES:
            for frequency in (70, 100, 125, 200, 250, 333):
                with self.subTest(rate=rate, frequency=frequency):
                    sound = buzz(frequency, rate)
                    longer = buzz(frequency, rate, 0.08)
                    less, more = shorten(sound, rate), lengthen(sound, rate)
                    assert less is not None
                    assert more is not None
                    for scaled, sign in ((less, -1), (more, 1)):
                        self.assertEqual(scaled.samples.size, sound.size + sign * scaled.changed)
                        periods = scaled.changed * frequency / rate
                        self.assertApproximates(periods, round(periods), 0.05)
                        self.assertLess(error(scaled.samples, longer[: scaled.samples.size]), 0.1)

    def test_the_first_and_the_last_samples_stay(self) -> None:
        sound = voice(1.0)[2000:2480]
        for scale in (shorten, lengthen):
            scaled = scale(sound, 8000, 0.0)
            assert scaled is not None
            self.assertEqual(scaled.samples[0], sound[0])
            self.assertTrue(np.array_equal(scaled.samples[-100:], sound[-100:]))

    def test_what_is_left_out_is_within_the_limits(self) -> None:
        for seed in range(50):
            sound = np.random.default_rng(seed).normal(0, 3000, 480).astype(np.int16)
            for most in (LONGEST, 0.008, 0.004):
                scaled = shorten(sound, 8000, -1.0, most=most)
                assert scaled is not None
                self.assertGreaterEqual(scaled.changed, SHORTEST * 8000)
                self.assertLessEqual(scaled.changed, most * 8000)

    def test_a_hiss_has_no_period(self) -> None:
        for seed in range(20):
            sound = np.random.default_rng(seed).normal(0, 3000, 480).astype(np.int16)
            self.assertIsNone(shorten(sound, 8000))
            self.assertIsNone(lengthen(sound, 8000))

    def test_too_little_audio(self) -> None:
        for size in (0, 1, 10, 59):
            self.assertIsNone(shorten(np.zeros(size, np.int16), 8000, -1.0))
        self.assertIsNotNone(shorten(noise(NEEDED, 100), 8000, -1.0))

    def test_silence_can_be_shortened(self) -> None:
        scaled = shorten(np.zeros(480, np.int16), 8000, -1.0)
        assert scaled is not None
        self.assertFalse(np.any(scaled.samples))

    def test_the_period_at_the_end(self) -> None:
        for rate in RATES:
            for frequency in (80, 125, 300):
                periods = period_of(buzz(frequency, rate), rate) * frequency / rate
                self.assertApproximates(periods, max(1, round(periods)), 0.05)

    def test_full_scale_does_not_overflow(self) -> None:
        square = np.where(np.arange(480) // 40 % 2, 32767, -32768).astype(np.int16)
        scaled = shorten(square, 8000)
        assert scaled is not None
        self.assertEqual(set(np.unique(scaled.samples)), {-32768, 32767})

    def test_a_crossfade_begins_with_one_and_ends_with_the_other(self) -> None:
        old, new = np.full(40, 1000, np.int16), np.full(40, -1000, np.int16)
        faded = crossfade(old, new)
        self.assertEqual((faded[0], faded[-1]), (1000, -1000))
        self.assertTrue(np.all(np.diff(faded.astype(int)) < 0))
