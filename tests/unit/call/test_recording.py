"""The recording of a call: both sides from its start to its end, without what was paused."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.call.monitor import Monitor
from pipecat_bridge.call.recording import CallRecording


class MemoryFile:
    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.fault = ""
        self.caller = self.phone = b""
        self.closed = 0

    def add(self, caller: bytes, phone: bytes) -> None:
        self.caller += caller
        self.phone += phone

    def close(self) -> None:
        self.closed += 1


def frame(value: int, rate: int = 8000) -> bytes:
    return value.to_bytes(2, "little") * (frame_bytes(rate) // 2)


class RecordingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.monitor = Monitor()
        self.files: list[MemoryFile] = []
        self.warnings: list[tuple[str, str]] = []
        self.recording = CallRecording(
            self.monitor, self.make, lambda *told: self.warnings.append(told)
        )
        self.sink = self.monitor.beside(lambda pcm, rate: None)

    def make(self, rate: int) -> MemoryFile:
        self.files.append(MemoryFile(rate))
        return self.files[-1]

    def talk(self, caller: int, bot: int, frames: int = 50, rate: int = 8000) -> None:
        for _ in range(frames):
            self.monitor.sent(frame(bot, rate), rate)
            self.sink(frame(caller, rate), rate)

    def values(self, audio: bytes) -> list[int]:
        """The values of the frames, without repetitions."""
        samples = np.frombuffer(audio, "<i2")
        changes = np.flatnonzero(np.diff(samples)) + 1
        return [int(samples[at]) for at in (0, *changes)]

    def test_from_the_start_to_the_end(self) -> None:
        self.talk(1, 2)
        self.assertTrue(self.recording.start())
        self.assertFalse(self.recording.start())
        self.talk(3, 4)
        self.talk(5, 6, frames=10)
        self.assertTrue(self.recording.stop())
        self.assertFalse(self.recording.stop())
        self.talk(7, 8)
        [file] = self.files
        self.assertEqual((self.values(file.caller), self.values(file.phone)), ([3, 5], [4, 6]))
        self.assertEqual((len(file.caller), len(file.phone)), (60 * 320, 60 * 320))
        part = self.recording.part
        assert part is not None
        self.assertEqual((part.state, part.seconds, file.closed), ("waiting", 1.2, 1))

    def test_a_pause(self) -> None:
        self.recording.start()
        self.talk(1, 2)
        self.assertTrue(self.recording.obey("pause"))
        self.assertFalse(self.recording.obey("pause"))
        self.assertTrue(self.recording.hides_keys)
        self.talk(3, 4, frames=70)
        self.assertTrue(self.recording.obey("resume"))
        self.assertFalse(self.recording.hides_keys)
        self.talk(5, 6)
        self.recording.stop()
        [file] = self.files
        self.assertEqual((self.values(file.caller), self.values(file.phone)), ([1, 5], [2, 6]))

    def test_nothing_was_asked_for(self) -> None:
        self.talk(1, 2)
        self.assertFalse(self.recording.pause())
        self.assertFalse(self.recording.stop())
        self.assertEqual((self.recording.part, self.files), (None, []))

    def test_keys_are_hidden_while_nothing_is_recorded(self) -> None:
        self.assertTrue(self.recording.obey("pause"))
        self.assertEqual((self.recording.hides_keys, self.recording.part), (True, None))
        self.assertTrue(self.recording.obey("resume"))
        self.assertFalse(self.recording.obey("resume"))
        self.assertEqual((self.recording.hides_keys, self.recording.part), (False, None))

    def test_keys_stay_hidden_when_it_is_stopped(self) -> None:
        self.recording.start()
        self.recording.obey("pause")
        self.recording.obey("stop")
        self.assertTrue(self.recording.hides_keys)

    def test_no_recordings_at_all(self) -> None:
        recording = CallRecording(self.monitor, None, lambda *told: None)
        self.assertEqual((recording.possible, recording.start()), (False, False))

    def test_the_phone_changes_its_rate(self) -> None:
        self.recording.start()
        self.talk(1000, 2000)
        self.talk(1000, 2000, rate=16000)
        self.recording.stop()
        [file] = self.files
        self.assertEqual(file.rate, 8000)
        self.assertLess(abs(len(file.caller) - 2 * 16000), 320)
        self.assertEqual(len(file.caller), len(file.phone))

    def test_a_disk_that_is_full(self) -> None:
        self.recording.start()
        self.talk(1, 2)
        self.files[0].fault = "no space left"
        self.talk(1, 2)
        self.talk(1, 2)
        part = self.recording.part
        assert part is not None
        self.assertEqual((part.fault, part.seconds), ("no space left", 0.98))
        self.assertEqual(len(self.warnings), 2)
        self.assertIn("no space left", self.warnings[0][1])
