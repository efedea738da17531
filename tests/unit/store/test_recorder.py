"""Recordings are written by a thread, in order, and a fault of the disk ends only the recording."""

from __future__ import annotations

import wave

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.store.recorder import Recorder, Recording
from tests.unit.files import scratch

WITHIN = 20.0


def side(number: int) -> bytes:
    return number.to_bytes(2, "little") * 8000


class RecorderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)
        self.folder.mkdir()
        self.ended: list[Recording] = []

    def make(self, most: int = 1 << 20) -> Recorder:
        recorder = Recorder(most)
        self.addCleanup(recorder.stop, WITHIN)
        return recorder

    def begin(self, recorder: Recorder, name: str = "a") -> Recording:
        return recorder.begin(self.folder / f"{name}.wav", 8000, self.ended.append)

    def played(self, name: str = "a") -> bytes:
        with wave.open(str(self.folder / f"{name}.wav"), "rb") as file:
            return file.readframes(1 << 30)


class RecorderTests(RecorderCase):
    def test_several_at_a_time(self) -> None:
        recorder = self.make()
        recorder.start()
        both = [self.begin(recorder, name) for name in "ab"]
        for number in range(1, 6):
            for at, each in enumerate(both):
                each.add(side(number), side(100 * at))
        for each in both:
            each.close()
            each.close()
            each.add(side(9), side(9))  # too late
        self.assertTrue(recorder.stop(WITHIN))
        self.assertEqual((self.ended, recorder.waiting), (both, 0))
        for at, name in enumerate("ab"):
            played = self.played(name)
            left, right = (
                [
                    int.from_bytes(played[n : n + 2], "little")
                    for n in range(first, len(played), 32000)
                ]
                for first in (0, 2)
            )
            self.assertEqual((left, right), ([1, 2, 3, 4, 5], [100 * at] * 5))

    def test_without_audio_there_is_no_file(self) -> None:
        recorder = self.make()
        recorder.start()
        self.begin(recorder).close()
        recorder.stop(WITHIN)
        self.assertEqual((len(self.ended), list(self.folder.iterdir())), (1, []))

    def test_a_disk_that_takes_nothing(self) -> None:
        recorder = self.make()
        recorder.start()
        self.folder.rmdir()
        recording = self.begin(recorder)
        recording.add(side(1), side(1))
        recording.close()
        recorder.stop(WITHIN)
        self.assertIn("No such file", recording.fault)
        self.assertEqual((self.ended, recording.size, recorder.waiting), ([recording], 0, 0))

    def test_a_disk_that_is_slow_ends_what_would_not_fit(self) -> None:
        recorder = self.make(most=100_000)
        one, other = self.begin(recorder), self.begin(recorder, "b")
        for number in range(1, 4):
            one.add(side(number), side(number))  # 96,000 bytes; the thread has not begun
        other.add(side(1), side(1))
        self.assertIn("too slow: 96000 bytes wait", other.fault)
        recorder.start()
        for each in (one, other):
            each.close()
        recorder.stop(WITHIN)
        self.assertEqual(len(self.played()), 96_000)
        self.assertFalse((self.folder / "b.wav").exists())
