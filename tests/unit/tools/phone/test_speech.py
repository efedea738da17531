"""Where somebody speaks, found in synthetic sound."""

from __future__ import annotations

import numpy as np
import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.microphone import Samples
from pipecat_bridge.tools.phone.recording import Span
from pipecat_bridge.tools.phone.speech import SpeechDetector, spans, trimmed

pytestmark = pytest.mark.tools


def sound(seconds: float, rate: int, rms: float = 3000.0) -> Samples:
    """Noise like speech in level."""
    noise = np.random.default_rng(5).normal(0, rms, round(seconds * rate))
    return noise.clip(-32768, 32767).astype(np.int16)


def quiet(seconds: float, rate: int) -> Samples:
    """A quiet room."""
    return sound(seconds, rate, 20.0)


def near(test: SynchronousTestCase, found: list[Span], wanted: list[tuple[float, float]]) -> None:
    test.assertEqual(len(found), len(wanted), found)
    for one, (start, end) in zip(found, wanted, strict=True):
        test.assertLess(abs(one.start - start), 0.0101)
        test.assertLess(abs(one.end - end), 0.0101)


class SpansTests(SynchronousTestCase):
    def test_begin_and_end_to_10_ms_at_every_rate(self) -> None:
        for rate in (8000, 16000, 44100, 48000):
            with self.subTest(rate=rate):
                parts = [quiet(0.4, rate), sound(1.0, rate), quiet(1.0, rate), sound(0.5, rate)]
                near(self, spans(np.concatenate(parts), rate), [(0.4, 1.4), (2.4, 2.9)])

    def test_a_pause_does_not_end_speech(self) -> None:
        parts = [sound(0.5, 8000), quiet(0.6, 8000), sound(0.5, 8000), quiet(0.9, 8000)]
        samples = np.concatenate(parts)
        near(self, spans(samples, 8000), [(0.0, 1.6)])
        near(self, spans(samples, 8000, pause=0.5), [(0.0, 0.5), (1.1, 1.6)])

    def test_clicks_and_rooms_are_not_speech(self) -> None:
        parts = [quiet(1.0, 8000), sound(0.03, 8000), quiet(1.0, 8000)]
        self.assertEqual(spans(np.concatenate(parts), 8000), [])
        self.assertEqual(spans(np.zeros(0, dtype=np.int16), 8000), [])

    def test_trimmed(self) -> None:
        speech = np.concatenate((sound(0.5, 8000), quiet(1.0, 8000), sound(0.5, 8000)))
        samples = np.concatenate((quiet(0.3, 8000), speech, quiet(0.4, 8000)))
        np.testing.assert_array_equal(trimmed(samples, 8000), speech)
        self.assertEqual(trimmed(quiet(1.0, 8000), 8000).size, 0)


class DetectorTests(SynchronousTestCase):
    def feed(self, detector: SpeechDetector, samples: Samples, size: int, start: float) -> float:
        """Feed in chunks of `size` samples at 8000; the time of the end."""
        for offset in range(0, samples.size, size):
            detector.feed(start + offset / 8000, samples[offset : offset + size], 8000)
        return start + samples.size / 8000

    def test_begins_and_ends_with_the_sound_whatever_the_chunks(self) -> None:
        for size in (37, 80, 160, 320, 4000):
            with self.subTest(size=size):
                detector = SpeechDetector(pause=0.5)
                at = self.feed(detector, quiet(1.0, 8000), size, 0.0)
                self.assertFalse(detector.speaking)
                at = self.feed(detector, sound(0.2, 8000), size, at)
                self.assertTrue(detector.speaking)
                self.assertLess(abs(detector.began - 1.0), 0.02)
                at = self.feed(detector, quiet(0.48, 8000), size, at)
                self.assertTrue(detector.speaking)
                self.feed(detector, quiet(0.1, 8000), size, at)
                self.assertFalse(detector.speaking)
                self.assertLess(abs(detector.ended - 1.2), 0.02)

    def test_a_click_is_not_speech(self) -> None:
        detector = SpeechDetector()
        at = self.feed(detector, sound(0.03, 8000), 160, 0.0)
        at = self.feed(detector, quiet(0.5, 8000), 160, at)
        self.feed(detector, sound(0.03, 8000), 160, at)
        self.assertFalse(detector.speaking)
