"""Recordings are completed one after the other, also those that a killed process has left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import soundfile
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.store import recordings
from pipecat_bridge.store.recordings import (
    DAY,
    NOTHING,
    Finished,
    Place,
    Recordings,
    Remote,
    Stored,
)
from tests.unit.files import scratch
from tests.unit.store.doubles import WITHIN, BucketInMemory, Loop

CALL = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
OTHER = "c5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
CREATED = 1_700_000_000.123
SECOND = b"\1\2" * 16000


class RecordingsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)
        self.loop = Loop()
        self.finished: list[Finished] = []
        self.gone: list[Place] = []
        self.running: list[Recordings] = []
        self.now = CREATED + 60.0

    remote: Remote | None = None

    def make(self, kind: Any = "wav", keep: float = 0.0, most: int = 0) -> Recordings:
        made = Recordings(
            self.loop,
            self.folder,
            "main",
            kind,
            keep,
            most,
            self.finished.append,
            self.gone.append,
            self.remote,
            lambda: self.now,
        )
        made.startService()
        self.running.append(made)
        self.addCleanup(self.stop, made)
        return made

    def stop(self, made: Recordings) -> None:
        """What was told before is done first."""
        if made in self.running:
            self.running.remove(made)
            made._stop()

    def record(self, made: Recordings, call_id: str = CALL, seconds: int = 2) -> Path:
        recording = made.begin(call_id, CREATED, 16000)
        for _ in range(seconds):
            recording.add(SECOND, SECOND)
        recording.close()
        before = len(self.finished)
        self.loop.until(lambda: len(self.finished) > before)
        path = made.find(call_id, CREATED)
        assert path is not None
        return path


class FinishTests(RecordingsCase):
    def test_every_format_can_be_played(self) -> None:
        for kind, ending in (("wav", ".wav"), ("flac", ".flac"), ("opus", ".ogg")):
            with self.subTest(kind=kind):
                path = self.record(self.make(kind))
                self.assertEqual(path.suffix, ending)
                with soundfile.SoundFile(path) as sound:
                    self.assertEqual(sound.channels, 2)
                    self.assertEqual(len(sound) / sound.samplerate, 2.0)
                place, data = self.finished[-1]
                self.assertEqual(place, Place(CALL, 1_700_000_000_123))
                self.assertEqual((data.seconds, data.format), (2.0, kind))
                self.assertEqual(data.bytes, path.stat().st_size)
                path.unlink()

    def test_what_a_killed_process_has_left(self) -> None:
        first = self.make("flac")
        self.patch(first, "_told", type(first._told)())  # as if it were killed before the end
        recording = first.begin(CALL, CREATED, 16000)
        recording.add(SECOND, SECOND)
        first._recorder.stop(WITHIN)
        [left] = (self.folder / recordings.RUNNING / "main").iterdir()
        self.assertEqual(left.suffix, ".wav")
        self.make("flac")
        self.loop.until(lambda: self.finished)
        self.assertEqual(self.finished[0].data.seconds, 1.0)
        self.assertEqual([path.suffix for path in self.folder.glob("*.*")], [".flac"])

    def test_a_call_without_audio(self) -> None:
        made = self.make()
        made.begin(CALL, CREATED, 16000).close()
        self.loop.until(lambda: self.finished)
        self.assertEqual(self.finished[0].data.fault, NOTHING)
        self.assertIsNone(made.find(CALL, CREATED))

    def test_what_cannot_be_compressed_stays_as_it_is(self) -> None:
        self.patch(recordings.sys, "executable", "/bin/false")
        path = self.record(self.make("opus"))
        self.assertEqual(path.suffix, ".wav")
        data = self.finished[0].data
        self.assertEqual((data.format, data.seconds), ("wav", 2.0))
        self.assertIn("not compressed", str(data.fault))


class RemoteTests(RecordingsCase):
    """The bucket is in memory here; tests/store has a real one."""

    def setUp(self) -> None:
        super().setUp()
        self.bucket = BucketInMemory(self.loop.tell)
        self.sent: list[tuple[Place, str]] = []
        self.remote = Remote(
            self.bucket, self.bucket, "calls/", lambda *told: self.sent.append(told)
        )

    def stored(self, made: Recordings, call_id: str = CALL) -> str:
        recording = made.begin(call_id, CREATED, 16000)
        recording.add(SECOND, SECOND)
        recording.close()
        before = len(self.sent)
        self.loop.until(lambda: len(self.sent) > before)
        return self.sent[-1][1]

    def test_it_is_found_there(self) -> None:
        made = self.make()
        key = self.stored(made)
        self.assertEqual(key, f"calls/{CALL}.1700000000123.wav")
        self.assertEqual(made.open(CALL, CREATED), Stored(key))
        self.assertEqual(self.sent[0][0], Place(CALL, 1_700_000_000_123))

    def test_it_is_deleted_there(self) -> None:
        made = self.make()
        key = self.stored(made)
        made.delete([CALL])
        self.loop.until(lambda: self.bucket.deleted)
        self.assertEqual((self.bucket.deleted, made.find(CALL, CREATED)), ([key], None))

    def test_it_is_deleted_there_later_if_there_is_no_bucket_now(self) -> None:
        first = self.make()
        key = self.stored(first)
        self.stop(first)
        self.remote = None
        made = self.make()
        made.delete([CALL])
        self.stop(made)
        self.assertEqual((self.bucket.deleted, made.find(CALL, CREATED)), ([], None))
        self.remote = Remote(self.bucket, self.bucket, "calls/", lambda *told: None)
        self.make()
        self.loop.until(lambda: self.bucket.deleted)
        self.assertEqual(self.bucket.deleted, [key])

    def test_it_is_deleted_there_by_age(self) -> None:
        made = self.make(keep=1.0)
        key = self.stored(made)
        os.utime(self.folder / f"{CALL}.1700000000123.s3", (self.now, self.now))
        self.now += DAY + 1.0
        self.stored(made, OTHER)
        self.loop.until(lambda: self.bucket.deleted)
        self.assertEqual(self.bucket.deleted, [key])
        self.loop.until(lambda: self.gone)
        self.assertEqual(self.gone, [Place(CALL, 1_700_000_000_123)])


class DeleteTests(RecordingsCase):
    def test_all_of_a_call(self) -> None:
        made = self.make()
        first, other = self.record(made), self.record(made, OTHER)
        self.now = CREATED + 60.0
        made.delete([CALL])
        self.stop(made)
        self.assertEqual((first.exists(), other.exists()), (False, True))

    def test_a_later_call_with_the_same_id_stays(self) -> None:
        made = self.make()
        path = self.record(made)
        self.now = CREATED - 60.0
        made.delete([CALL])
        self.stop(made)
        self.assertTrue(path.exists())

    def test_while_it_is_compressed(self) -> None:
        made = self.make("flac")
        self.now = CREATED + 60.0
        compress = made._compressed

        def compressed(path: Path) -> tuple[Path, str]:
            made.delete([CALL])
            return compress(path)

        self.patch(made, "_compressed", compressed)
        recording = made.begin(CALL, CREATED, 16000)
        recording.add(SECOND, SECOND)
        recording.close()
        recorder = made._recorder
        recorder.stop(WITHIN)
        self.stop(made)
        self.assertEqual(self.finished, [])
        self.assertEqual([each for each in self.folder.rglob("*.*") if each.is_file()], [])

    def test_by_age(self) -> None:
        made = self.make("flac", keep=1.0)
        first = self.record(made)
        os.utime(first, (self.now, self.now))
        self.now += DAY + 1.0
        second = self.record(made, OTHER)
        os.utime(second, (self.now, self.now))
        self.loop.until(lambda: self.gone)
        self.assertEqual((self.gone, first.exists()), ([Place(CALL, 1_700_000_000_123)], False))

    def test_by_size(self) -> None:
        made = self.make("flac", most=1)
        recording = made.begin(CALL, CREATED, 16000)
        recording.add(SECOND, SECOND)
        recording.close()
        self.loop.until(lambda: self.gone)
        self.assertIsNone(made.find(CALL, CREATED))
