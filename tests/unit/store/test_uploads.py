"""Recordings go into a bucket one after the other, and wait while it cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.store import uploads
from pipecat_bridge.store.uploads import STORED, Uploads, remove_stored
from tests.unit.files import scratch
from tests.unit.store.doubles import WITHIN, BucketInMemory, Loop


class UploadCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)
        self.loop = Loop()
        self.bucket = BucketInMemory(self.loop.tell)
        self.sent: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.patch(uploads, "AGAIN", (0.01, 0.02))

    def make(self) -> Uploads:
        def sent(stem: str, key: str) -> None:
            self.sent.append((stem, key))
            self.loop.tell()

        def told(fault: str) -> None:
            self.told.append(fault)
            self.loop.tell()

        folder = self.folder / "sending"
        made = Uploads(folder, self.folder, self.bucket, "calls/", sent, told)
        made.start()
        self.addCleanup(made.stop, WITHIN)
        return made

    def recording(self, name: str = "a.ogg", changed: float = 1000.0) -> Path:
        path = self.folder / name
        path.write_bytes(name.encode())
        os.utime(path, (changed, changed))
        return path

    def sending(self) -> list[str]:
        return sorted(each.name for each in (self.folder / "sending").iterdir())


class UploadTests(UploadCase):
    def test_it_goes_into_the_bucket_and_from_the_disk(self) -> None:
        made = self.make()
        made.add(self.recording())
        self.loop.until(lambda: self.sent)
        self.assertEqual(self.sent, [("a", "calls/a.ogg")])
        self.assertEqual(self.bucket.files, {"calls/a.ogg": b"a.ogg"})
        left = self.folder / f"a{STORED}"
        self.assertEqual((left.read_text(), left.stat().st_mtime), ("calls/a.ogg", 1000.0))
        self.assertEqual(self.sending(), [])

    def test_it_waits_until_the_bucket_is_back(self) -> None:
        self.bucket.away = "no route"
        made = self.make()
        for name, changed in (("a.ogg", 3000.0), ("b.ogg", 1000.0), ("c.ogg", 2000.0)):
            made.add(self.recording(name, changed))
        self.loop.until(lambda: self.told)
        self.bucket.away = ""
        self.loop.until(lambda: len(self.sent) == 3)
        self.assertEqual({stem for stem, _ in self.sent}, {"a", "b", "c"})
        self.loop.until(lambda: len(self.told) == 2)
        self.assertEqual(self.told, ["no route", ""])
        self.assertEqual(made.results["stored"], 3)
        self.assertGreaterEqual(made.results["failed"], 1)
        self.assertEqual(made.waiting, 0)

    def test_it_waits_over_a_restart(self) -> None:
        self.bucket.away = "no route"
        made = self.make()
        made.add(self.recording())
        self.loop.until(lambda: self.told)
        made.stop(WITHIN)
        self.assertEqual((self.sending(), self.sent), (["a.ogg"], []))
        self.bucket.away = ""
        self.make()
        self.loop.until(lambda: self.sent)
        self.assertEqual(self.sent, [("a", "calls/a.ogg")])

    def test_what_is_deleted_is_deleted_there_as_well(self) -> None:
        made = self.make()
        made.add(self.recording())
        self.loop.until(lambda: self.sent)
        self.bucket.away = "no route"
        remove_stored(self.folder / f"a{STORED}", self.folder / "sending")
        made.look()
        self.loop.until(lambda: self.told)
        self.assertFalse((self.folder / f"a{STORED}").exists())
        self.bucket.away = ""
        self.loop.until(lambda: self.told[-1] == "")
        self.assertEqual((self.bucket.files, made.results["deleted"]), ({}, 1))

    def test_one_that_fails_does_not_hold_up_the_others(self) -> None:
        self.bucket.bad = "a.ogg"
        made = self.make()
        for name, changed in (("a.ogg", 1000.0), ("b.ogg", 2000.0), ("c.ogg", 3000.0)):
            made.add(self.recording(name, changed))
        self.loop.until(lambda: len(self.sent) == 2)
        self.assertEqual([stem for stem, _ in self.sent], ["b", "c"])
        self.bucket.bad = ""
        self.loop.until(lambda: len(self.sent) == 3)

    def test_it_is_deleted_while_it_is_on_its_way(self) -> None:
        self.bucket.meanwhile = Path.unlink
        made = self.make()
        made.add(self.recording())
        self.loop.until(lambda: self.bucket.deleted)
        made.stop(WITHIN)
        self.assertEqual((self.bucket.files, self.bucket.deleted), ({}, ["calls/a.ogg"]))
        self.assertEqual((self.sending(), self.sent), ([], []))
        self.assertFalse((self.folder / f"a{STORED}").exists())
