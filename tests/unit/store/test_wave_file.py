"""A WAV file can be played at every moment of its life."""

from __future__ import annotations

import resource
import wave

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.store.wave_file import HEADER_BYTES, WaveFile, finish
from tests.unit.files import scratch

SECOND = bytes(range(256)) * 125  # at 8 kHz


class WaveFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = scratch(self)
        self.file = WaveFile(self.path, 8000)
        self.addCleanup(self.file.close)

    def played(self) -> tuple[int, int, bytes]:
        with wave.open(str(self.path), "rb") as file:
            return file.getframerate(), file.getnchannels(), file.readframes(1 << 30)

    def test_while_it_grows_and_at_the_end(self) -> None:
        for number in range(3):
            self.file.append(SECOND)
            self.assertEqual(self.played(), (8000, 2, SECOND * (number + 1)))
        self.file.close()
        self.assertEqual(finish(self.path), 3.0)
        self.assertEqual(self.played(), (8000, 2, SECOND * 3))
        with wave.open(str(self.path), "rb") as file:
            self.assertEqual(file.getnframes(), 3 * 8000)

    def test_after_a_kill_at_any_byte(self) -> None:
        self.file.append(SECOND)
        whole = self.path.read_bytes()
        for cut in (0, 3, 100, 31_997):
            self.path.write_bytes(whole[: HEADER_BYTES + cut])
            self.assertEqual(finish(self.path), cut // 4 / 8000)
            self.assertEqual(self.played()[2], SECOND[: cut // 4 * 4])

    def test_a_disk_that_is_full_leaves_what_there_is(self) -> None:
        self.file.append(SECOND)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (HEADER_BYTES + 40_000, hard))
        try:
            self.assertRaises(OSError, self.file.append, SECOND)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertEqual((self.file.size, self.played()[2]), (len(SECOND), SECOND))
        self.file.append(SECOND)
        self.assertEqual(self.played()[2], SECOND * 2)

    def test_what_is_there_is_not_overwritten(self) -> None:
        self.assertRaises(FileExistsError, WaveFile, self.path, 8000)

    def test_what_is_no_recording(self) -> None:
        for content in (b"", b"RIFF", b"x" * 100):
            self.path.write_bytes(content)
            self.assertRaises(ValueError, finish, self.path)
