"""The picture of a call: its envelope, and that it can be drawn whatever the call was."""

from __future__ import annotations

import numpy as np
import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.picture import Phrase, Sketch, draw, envelope
from pipecat_bridge.tools.phone.recording import Span, Timeline
from tests.unit.files import scratch

pytestmark = pytest.mark.tools


class EnvelopeTests(SynchronousTestCase):
    def test_lows_and_highs_at_their_places(self) -> None:
        samples = np.zeros(160_000, dtype=np.int16)
        samples[40_000], samples[120_000] = 20_000, -10_000
        low, high = envelope(samples)
        self.assertEqual((low.size, high.size), (1600, 1600))
        self.assertEqual((int(high.argmax()), int(low.argmin())), (400, 1200))
        self.assertAlmostEqual(float(high.max()), 0.85)
        self.assertAlmostEqual(float(low.min()), -0.425)

    def test_silence_and_nothing(self) -> None:
        for size in (0, 1, 5000):
            low, high = envelope(np.zeros(size, dtype=np.int16))
            self.assertEqual(float(np.abs(low).sum() + np.abs(high).sum()), 0.0)


class DrawTests(SynchronousTestCase):
    def test_full_and_empty_calls(self) -> None:
        samples = np.random.default_rng(1).integers(-9000, 9000, 80_000).astype(np.int16)
        timeline = Timeline(8000, samples, samples, [], 0.0)
        phrases = [Phrase(bool(n % 2), Span(n, n + 0.8), "some words " * 20) for n in range(9)]
        full = Sketch(
            "title",
            "subtitle",
            timeline,
            phrases,
            [Span(1.8, 2.0)],
            [Span(9.0, 10.0)],
            Span(3.0, 3.3),
        )
        nothing = np.zeros(160, dtype=np.int16)
        empty = Sketch("", "", Timeline(8000, nothing, nothing, [], 0.0), [], [], [], None)
        for sketch in (full, empty):
            path = scratch(self).with_suffix(".png")
            draw(sketch, path)
            self.assertEqual(path.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
