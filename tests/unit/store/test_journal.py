"""The journal: what was appended is read again, in order, whatever ended the process."""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.store.journal import (
    IDENTITY,
    Entry,
    FullError,
    Journal,
    Tail,
    before_start,
)
from tests.unit.files import scratch

MOST = 1 << 20


class JournalCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)

    def journal(self, most: int = MOST, segment: int = 100) -> Journal:
        journal = Journal(self.folder, most, segment)
        self.addCleanup(journal.close)
        return journal

    def read(self, after: int) -> list[Entry]:
        tail = Tail(self.folder, after)
        self.addCleanup(tail.close)
        return tail.read(MOST)

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.journal"))


def body(number: int) -> bytes:
    return b'{"n":%d}' % number


def entries(first: int, last: int, start: int = 0) -> list[Entry]:
    return [Entry(before_start(start) + n, body(n)) for n in range(first, last + 1)]


SECOND = before_start(1)
"""The number before the first one of the second start."""


class AppendTests(JournalCase):
    def test_it_is_read_again_in_order(self) -> None:
        journal = self.journal()
        for number in range(1, 51):
            journal.append([body(number)])
        self.assertGreater(len(self.files()), 5)
        self.assertEqual(self.read(0), entries(1, 50))
        self.assertEqual(self.read(23), entries(24, 50))
        self.assertEqual(self.read(50), [])
        self.assertEqual(journal.size, sum(file.stat().st_size for file in self.files()))

    def test_numbers_grow_after_a_restart(self) -> None:
        self.journal().append([body(1), body(2)])
        journal = self.journal()
        self.assertEqual((journal.last, journal.count_after(0)), (2, 2))
        journal.append([body(1)])
        self.assertEqual(self.read(0), entries(1, 2) + entries(1, 1, start=1))
        self.assertEqual([journal.count_after(n) for n in (1, 2, SECOND + 1)], [2, 1, 0])

    def test_a_start_without_entries(self) -> None:
        self.journal()
        self.journal().append([body(1)])
        self.assertEqual(self.read(0), entries(1, 1))

    def test_it_is_full(self) -> None:
        journal = self.journal(most=60)
        journal.append([body(1), body(2), body(3)])
        self.assertRaises(FullError, journal.append, [body(4)])
        journal.drop(3)
        journal.append([body(4)])
        self.assertEqual(self.read(3), entries(4, 4))

    def test_a_disk_that_is_full_leaves_no_half_entry(self) -> None:
        journal = self.journal(segment=MOST)
        journal.append([body(1)])
        size = self.files()[0].stat().st_size
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
        try:
            self.assertRaises(OSError, journal.append, [body(2)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertEqual(self.files()[0].stat().st_size, size)
        journal.append([body(2)])
        self.assertEqual(self.read(0), entries(1, 2))


class IdentityTests(JournalCase):
    def test_it_stays(self) -> None:
        first = self.journal()
        first.append([body(1)])
        self.assertRegex(first.identity, "^[0-9a-f]{32}$")
        self.assertEqual(self.journal().identity, first.identity)
        for file in self.files():
            file.unlink()
        self.assertEqual(self.journal().identity, first.identity)

    def test_a_folder_that_is_lost_has_another_one(self) -> None:
        first = self.journal()
        first.append([body(1)])
        shutil.rmtree(self.folder)
        self.assertNotEqual(self.journal().identity, first.identity)

    def test_no_number_is_used_twice_if_entries_are_lost(self) -> None:
        for start in range(3):
            journal = self.journal()
            journal.append([body(1), body(2)])
            self.assertEqual(journal.last, before_start(start) + 2)
            for file in self.files():
                file.unlink()

    def test_no_number_is_used_twice_if_the_identity_is_lost(self) -> None:
        for content in (b"", b"\xff", b"x 1\n"):
            self.journal().append([body(1)])
            before = self.journal()
            (self.folder / IDENTITY).write_bytes(content)
            journal = self.journal()
            self.assertNotEqual(journal.identity, before.identity)
            journal.append([body(2)])
            self.assertGreater(journal.last, before.last)

    def test_a_start_that_appends_nothing_takes_no_numbers(self) -> None:
        self.journal().append([body(1)])
        self.journal()
        self.assertEqual(self.journal().start, 1)


class DropTests(JournalCase):
    def test_whole_files_go(self) -> None:
        journal = self.journal()
        for number in range(1, 51):
            journal.append([body(number)])
        count = len(self.files())
        journal.drop(30)
        self.assertLess(len(self.files()), count)
        self.assertEqual(self.read(30), entries(31, 50))

    def test_numbers_go_on_when_all_is_dropped(self) -> None:
        journal = self.journal()
        for number in range(1, 51):
            journal.append([body(number)])
        journal.drop(50)
        self.assertEqual((self.files(), journal.size, journal.last), ([], 0, 50))
        journal.append([body(51)])
        self.assertEqual(self.read(50), entries(51, 51))
        journal.drop(51, forget=True)
        self.journal().append([body(1)])
        self.assertEqual(self.read(51), entries(1, 1, start=1))

    def test_a_short_file_is_kept_unless_it_is_to_be_forgotten(self) -> None:
        journal = self.journal(segment=MOST)
        journal.append([body(1)])
        journal.drop(1)
        self.assertEqual(len(self.files()), 1)
        journal.append([body(2)])
        journal.drop(1, forget=True)
        journal.append([body(3)])
        self.assertEqual(self.read(1), entries(2, 3))
        journal.drop(2)
        self.assertEqual(self.read(0), entries(3, 3))
        self.assertEqual(journal.size, self.files()[0].stat().st_size)

    def test_files_that_somebody_has_deleted(self) -> None:
        journal = self.journal(segment=20)
        for number in range(1, 4):
            journal.append([body(number)])
        shutil.rmtree(self.folder)
        journal.drop(2)
        journal.append([body(4)])
        self.assertEqual(self.read(3), [Entry(SECOND + 1, body(4))])
        self.assertEqual(journal.last, SECOND + 1)
        self.assertEqual(self.journal().identity, journal.identity)


class KilledTests(JournalCase):
    def test_at_any_byte(self) -> None:
        """Half an entry at the end is forgotten, and what comes after it is not lost."""
        whole = Journal(self.folder, MOST)
        whole.append([body(1), body(2)])
        whole.close()
        [file] = self.files()
        content = file.read_bytes()
        for cut in range(len(content)):
            file.write_bytes(content[:cut])
            for later in self.files():
                if later != file:
                    later.unlink()
            kept = content[:cut].count(b"\n")
            journal = self.journal()
            self.assertEqual(journal.last, kept)
            journal.append([body(3)])
            self.assertEqual(self.read(0), [*entries(1, kept), Entry(journal.last, body(3))])

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200))
    def test_anything_in_the_file(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{1:020}.journal").write_bytes(content)
            journal = Journal(Path(folder), MOST)
            last = journal.last
            journal.append([b"{}"])
            journal.close()
            self.assertEqual(Tail(Path(folder), last).read(MOST), [Entry(SECOND + 1, b"{}")])


class TailTests(JournalCase):
    def test_it_follows(self) -> None:
        journal, tail = self.journal(), Tail(self.folder, 0)
        self.addCleanup(tail.close)
        self.assertEqual(tail.read(9), [])
        for number in range(1, 51):
            journal.append([body(number)])
            self.assertEqual(tail.read(9), entries(number, number))
        self.assertEqual((tail.read(9), tail.number), ([], 50))

    def test_some_at_a_time(self) -> None:
        self.journal().append([body(number) for number in range(1, 8)])
        tail = Tail(self.folder, 2)
        self.addCleanup(tail.close)
        self.assertEqual([tail.read(3), tail.read(3)], [entries(3, 5), entries(6, 7)])

    def test_files_that_are_dropped_meanwhile(self) -> None:
        journal, tail = self.journal(), Tail(self.folder, 0)
        self.addCleanup(tail.close)
        found: list[Entry] = []
        for number in range(1, 51):
            journal.append([body(number)])
            if number % 3 == 0:
                found += tail.read(100)
                journal.drop(tail.number)
        self.assertEqual(found + tail.read(100), entries(1, 50))

    def test_half_an_entry_is_read_when_it_is_whole(self) -> None:
        self.journal(segment=MOST).append([body(1), body(2)])
        [file] = self.files()
        content, tail = file.read_bytes(), Tail(self.folder, 0)
        self.addCleanup(tail.close)
        file.write_bytes(content[:-3])
        self.assertEqual((tail.read(9), tail.read(9)), (entries(1, 1), []))
        with file.open("ab") as more:
            more.write(content[-3:])
        self.assertEqual(tail.read(9), entries(2, 2))

    def test_it_reads_no_further_than_wanted(self) -> None:
        self.journal().append([body(1), body(2)])
        self.journal().append([body(1)])
        tail = Tail(self.folder, 0)
        self.addCleanup(tail.close)
        self.assertEqual([tail.read(9, upto=1), tail.read(9, upto=1)], [entries(1, 1), []])
        self.assertEqual([tail.read(9, upto=2), tail.read(9, upto=2)], [entries(2, 2), []])
        self.assertEqual(tail.read(9), entries(1, 1, start=1))

    def test_half_an_entry_that_is_taken_back(self) -> None:
        self.journal(segment=MOST).append([body(1), body(2)])
        [file] = self.files()
        content, tail = file.read_bytes(), Tail(self.folder, 0)
        self.addCleanup(tail.close)
        half = len(content) // 2
        file.write_bytes(content[:half] + b"xxxx")
        self.assertEqual((tail.read(9), tail.read(9)), (entries(1, 1), []))
        with file.open("r+b") as again:
            again.truncate(half)
            again.seek(half)
            again.write(content[half:])
        self.assertEqual(tail.read(9), entries(2, 2))

    def test_what_is_appended_while_the_next_file_is_begun(self) -> None:
        """The end of a file is seen, then it grows, and only then the next file is seen."""
        journal, tail = self.journal(segment=40), Tail(self.folder, 0, self.fail)
        self.addCleanup(tail.close)
        journal.append([body(1)])
        self.assertEqual(tail.read(9), entries(1, 1))
        following = tail._following

        def meanwhile(upto: int) -> Any:
            tail._following = following  # type: ignore[method-assign]
            for number in range(2, 8):
                journal.append([body(number)])
            return following(upto)

        tail._following = meanwhile  # type: ignore[method-assign]
        self.assertEqual(tail.read(99), entries(2, 7))
        self.assertGreater(len(self.files()), 2)

    def test_a_gap_after_a_broken_file(self) -> None:
        """Entries that are lost are passed over, and it is told how many."""
        journal = self.journal()
        for number in range(1, 20):
            journal.append([body(number)])
        first, second, third = [int(file.stem) for file in self.files()[:3]]
        broken = self.files()[1]
        broken.write_bytes(b"x" + broken.read_bytes()[1:])
        lost: list[int] = []
        tail = Tail(self.folder, 0, lost.append)
        self.addCleanup(tail.close)
        self.assertEqual(tail.read(99), entries(first, second - 1) + entries(third, 19))
        self.assertEqual(lost, [third - second])

    def test_numbers_of_another_start_are_no_gap(self) -> None:
        for _ in range(2):
            self.journal().append([body(1)])
        tail = Tail(self.folder, 0, self.fail)
        self.addCleanup(tail.close)
        self.assertEqual(len(tail.read(9)), 2)
