"""Marks are found in streams of any rate and with any chunks, to a fraction of a ms."""

from __future__ import annotations

from itertools import pairwise

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.tools.load.marks import EVERY, LEAD, NUMBERS, Ear, Speaker

pytestmark = pytest.mark.tools

CHUNKS = 60 * EVERY


def said(rate: int, first: int = 0) -> bytes:
    speaker = Speaker(rate)
    return b"".join(speaker.chunk(index) for index in range(first, first + CHUNKS))


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


class MarkTests(SynchronousTestCase):
    def test_every_mark_of_every_rate(self) -> None:
        for rate in (8000, 12000, 16000, 22050, 24000, 44100, 48000):
            with self.subTest(rate=rate):
                speaker, ear = Speaker(rate), Ear[int](rate)
                heard = []
                for index in range(NUMBERS * EVERY):
                    heard += ear.hear(speaker.chunk(index), index)
                self.assertEqual([mark.number for mark in heard], list(range(NUMBERS)))
                self.assertEqual(
                    [mark.tag for mark in heard], list(range(0, NUMBERS * EVERY, EVERY))
                )
                for mark in heard:
                    self.assertApproximates(mark.offset, LEAD, 0.0001)
                self.assertEqual(ear.damaged, 0)

    def test_any_cut_gives_the_same_marks(self) -> None:
        stream = said(8000)
        whole = Ear[int](8000).hear(stream, 0)
        self.assertEqual(len(whole), 60)
        for size in (2, 34, 158, 320, 322, 1600, 3200, 9998):
            with self.subTest(size=size):
                ear, heard = Ear[int](8000), []
                for index, chunk in enumerate(cut(stream, size)):
                    heard += ear.hear(chunk, index)
                self.assertEqual([m[::3] for m in heard], [m[::3] for m in whole])
                for mark in heard:
                    first = mark.tag * size // 2
                    self.assertTrue(first <= mark.sample < first + size // 2)
                    self.assertEqual(mark.offset, (mark.sample - first) / 8000)

    def test_resampled_twice_they_stand_later_by_the_filters_delay(self) -> None:
        for bot_rate in (16000, 24000, 48000):
            with self.subTest(bot_rate=bot_rate):
                up, down = make_resampler(8000, bot_rate), make_resampler(bot_rate, 8000)
                middle, end = Ear[int](bot_rate), Ear[int](8000)
                there, back = [], []
                for index, chunk in enumerate(cut(said(8000), 320)):
                    chunk = up.process(chunk)
                    there += middle.hear(chunk, index)
                    back += end.hear(down.process(chunk), index)
                self.assertEqual([mark.number for mark in there], list(range(60)))
                self.assertEqual([mark.number for mark in back], list(range(60)))
                for mark in there:
                    self.assertApproximates(mark.offset, LEAD + up.delay, 0.0002)
                for mark in back:
                    self.assertApproximates(mark.offset, LEAD + up.delay + down.delay, 0.0002)

    def test_a_lost_frame_shows_in_the_distance_of_marks(self) -> None:
        frames = cut(said(8000), 320)
        del frames[7]
        marks = Ear[int](8000).hear(b"".join(frames), 0)
        distances = [b.sample - a.sample for a, b in pairwise(marks)]
        self.assertEqual(distances, [160 * EVERY - 160] + [160 * EVERY] * 58)

    def test_a_mark_that_was_cut_is_damaged_not_misread(self) -> None:
        stream = bytearray(said(8000))
        for at in range(5, 10):
            broken = stream[: 2 * 8 * at] + stream[2 * 8 * (at + 3) :]
            ear = Ear[int](8000)
            numbers = [mark.number for mark in ear.hear(bytes(broken), 0)]
            self.assertEqual(numbers, list(range(1, 60)))
            self.assertEqual(ear.damaged, 1)

    def test_silence_and_tone_hold_no_mark(self) -> None:
        ear = Ear[int](8000)
        self.assertEqual(ear.hear(bytes(3200), 0), [])
        self.assertEqual(ear.hear(Speaker(8000).plain * 50, 0), [])
        self.assertTrue(ear.quiet)
