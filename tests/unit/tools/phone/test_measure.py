"""Turns, silences and what was heard after a moment, from synthetic calls."""

from __future__ import annotations

import numpy as np
import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.measure import Turn, heard_after, messages_after, silences, turns_of
from pipecat_bridge.tools.phone.microphone import Samples, Utterance
from pipecat_bridge.tools.phone.recording import Chunk, Span, Timeline

pytestmark = pytest.mark.tools

RATE = 8000


def track(seconds: float, *sounds: tuple[float, float]) -> Samples:
    """Silence with noise of a voice's level in some places."""
    samples = np.zeros(round(seconds * RATE), dtype=np.int16)
    for start, end in sounds:
        part = slice(round(start * RATE), round(end * RATE))
        samples[part] = np.random.default_rng(4).integers(-8000, 8000, part.stop - part.start)
    return samples


def call(caller: list[tuple[float, float]], bot: list[tuple[float, float]]) -> Timeline:
    return Timeline(RATE, track(20.0, *caller), track(20.0, *bot), [], 0.0)


def rounded(span: Span | None) -> tuple[float, float] | None:
    return None if span is None else (round(span.start, 2), round(span.end, 2))


class TurnTests(SynchronousTestCase):
    def turns(
        self, caller: list[tuple[float, float]], bot: list[tuple[float, float]]
    ) -> list[Turn]:
        spoken = [Utterance("", round(a * RATE), round(b * RATE)) for a, b in caller]
        return turns_of(call(caller, bot), spoken)

    def test_greeting_and_answers(self) -> None:
        turns = self.turns(
            [(3.0, 4.0), (8.0, 9.0)], [(1.0, 2.0), (4.6, 5.0), (5.5, 6.5), (9.5, 10)]
        )
        self.assertEqual(
            [rounded(turn.heard) for turn in turns], [(1.0, 2.0), (4.6, 6.5), (9.5, 10.0)]
        )
        self.assertEqual([rounded(turn.said) for turn in turns], [None, (3.0, 4.0), (8.0, 9.0)])
        waits = [turn.answered_after for turn in turns]
        self.assertEqual([one and round(one, 2) for one in waits], [None, 0.6, 0.5])
        self.assertFalse(any(turn.interrupted for turn in turns))

    def test_an_interrupted_answer_belongs_to_its_own_turn(self) -> None:
        turns = self.turns([(1.0, 2.0), (5.0, 6.0)], [(2.5, 5.4), (6.5, 7.0)])
        self.assertEqual([rounded(turn.heard) for turn in turns], [None, (2.5, 5.4), (6.5, 7.0)])
        self.assertEqual([turn.interrupted for turn in turns], [False, True, False])

    def test_no_answer(self) -> None:
        (_, turn) = self.turns([(1.0, 2.0)], [])
        self.assertEqual((turn.heard, turn.answered_after, turn.interrupted), (None, None, False))


class HeardAfterTests(SynchronousTestCase):
    def test_from_the_moment_to_the_end_of_that_speech(self) -> None:
        timeline = call([], [(2.0, 4.0), (6.0, 7.0)])
        for moment, seconds in ((1.0, 0.0), (3.0, 1.0), (3.95, 0.05), (4.5, 0.0), (6.5, 0.5)):
            with self.subTest(moment=moment):
                self.assertAlmostEqual(heard_after(timeline, moment), seconds, places=6)


class MessagesAfterTests(SynchronousTestCase):
    def test_those_with_sound_until_a_pause(self) -> None:
        loud, still = track(0.02, (0.0, 0.02)).tobytes(), bytes(320)
        sounds = [loud, loud, still, loud, loud, *[still] * 20, loud]
        chunks = [Chunk(n * 0.02, RATE, pcm) for n, pcm in enumerate(sounds)]
        for moment, count in ((0.0, 3), (0.03, 2), (0.07, 1), (0.08, 0), (0.3, 1)):
            with self.subTest(moment=moment):
                self.assertEqual(messages_after(chunks, moment), count)


class SilenceTests(SynchronousTestCase):
    def test_only_where_both_are_silent_for_long(self) -> None:
        timeline = call([(3.0, 4.0), (6.5, 8.0)], [(4.5, 6.0), (7.0, 13.0)])
        self.assertEqual(
            [rounded(one) for one in silences(timeline, 2.0)], [(0.0, 3.0), (13.0, 20.0)]
        )
