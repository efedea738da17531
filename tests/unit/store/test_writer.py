"""Entries come into the database whatever happens to it meanwhile. Threads of their own do it, so
these tests wait for what they expect."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.store import tables, writer
from pipecat_bridge.store.engine import Engine, sqlite
from pipecat_bridge.store.entries import DeleteEntry, EventEntry, encode
from pipecat_bridge.store.journal import Journal
from pipecat_bridge.store.schema import migrate
from pipecat_bridge.store.writer import Writer
from tests.unit.files import scratch
from tests.unit.store.test_tables import call, event

WITHIN = 20.0
"""Seconds in which anything here happens, on any machine."""


class WriterCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(writer, "AGAIN", (0.02, 0.05))
        self.folder, self.file = scratch(self), scratch(self)
        self.engine: Engine = sqlite(self.file)
        self.faults: list[Exception] = []
        self.changed = threading.Condition()
        self.applied = 0

    def make(self, most: int = 1 << 20, recover: Callable[[Any], None] | None = None) -> Writer:
        made = Writer(
            self.folder, self.engine, most, self.note, self.faults.append, recover=recover
        )
        made.start()
        self.addCleanup(made.stop, 1.0)
        return made

    def put(self, made: Writer, first: int, last: int) -> None:
        for each in told(first, last):
            made.put(each)

    def note(self, number: int) -> None:
        with self.changed:
            self.applied = number
            self.changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        with self.changed:
            while not condition():
                if not self.changed.wait(0.02) and not self._left():
                    self.fail("it has not come")

    def _left(self) -> bool:
        self.waits = getattr(self, "waits", 0) + 1
        return self.waits < WITHIN / 0.02

    def files(self) -> list[Path]:
        return list(self.folder.glob("*.journal"))

    def events(self) -> list[str]:
        connection = self.engine.connect()
        try:
            migrate(connection, self.engine)
            found = tables.events(connection.cursor(), self.engine, 0, 10_000)
            return [each.id for each in found]
        finally:
            connection.close()


def told(first: int, last: int) -> list[bytes]:
    return [encode(event(f"e{number}", "a")) for number in range(first, last + 1)]


def names(first: int, last: int) -> list[str]:
    return [f"e{number}" for number in range(first, last + 1)]


class WriterTests(WriterCase):
    def test_in_order_and_the_journal_is_emptied(self) -> None:
        made = self.make()
        self.put(made, 1, 1200)
        self.until(lambda: self.applied == 1200)
        self.assertEqual(self.events(), names(1, 1200))
        self.assertEqual((made.away, made.full, made.dropped, self.faults), ("", "", 0, []))

    def test_what_was_told_before_the_end_is_there_after_it(self) -> None:
        made = self.make()
        self.put(made, 1, 50)
        made.stop(WITHIN)
        self.assertEqual(self.events(), names(1, 50))

    def test_what_a_killed_process_has_left_is_applied_once(self) -> None:
        made = self.make()
        self.put(made, 1, 50)
        self.until(lambda: self.applied == 50)
        left = scratch(self)
        shutil.copytree(self.folder, left)
        made.stop(WITHIN)
        shutil.rmtree(self.folder)
        left.rename(self.folder)
        with closing(sqlite3.connect(self.file)) as connection:  # killed before the last ones
            connection.execute("DELETE FROM events WHERE number > 30")
            connection.execute("UPDATE applied SET number = 30")
            connection.commit()
        more = writer.Journal(self.folder, 1 << 20)
        more.append(told(51, 52))
        more.close()
        made = self.make()
        self.until(lambda: self.applied == more.last)
        self.assertEqual((self.events(), self.faults), (names(1, 52), []))

    def test_nothing_is_skipped_after_the_last_entries_are_lost(self) -> None:
        made = self.make()
        self.put(made, 1, 50)
        self.until(lambda: self.applied == 50)
        made.stop(WITHIN)
        self.assertEqual(self.files(), [])  # as after a power cut
        made = self.make()
        self.put(made, 51, 60)
        self.until(lambda: len(self.events()) == 60)
        self.assertEqual(self.events(), names(1, 60))

    def test_nothing_is_skipped_after_the_folder_is_lost(self) -> None:
        made = self.make()
        self.put(made, 1, 5)
        self.until(lambda: self.applied == 5)
        made.stop(WITHIN)
        shutil.rmtree(self.folder)
        made = self.make()
        self.put(made, 6, 8)
        self.until(lambda: len(self.events()) == 8)

    def test_nothing_is_skipped_after_an_old_copy_of_the_folder_is_back(self) -> None:
        old = scratch(self)
        for first in (1, 6, 11):
            made = self.make()
            self.put(made, first, first + 4)
            self.until(lambda last=first + 4: len(self.events()) == last)
            made.stop(WITHIN)
            if first == 1:
                shutil.copytree(self.folder, old)
        shutil.rmtree(self.folder)
        old.rename(self.folder)
        made = self.make(recover=lambda cursor: None)
        self.put(made, 16, 20)
        self.until(lambda: len(self.events()) == 20)

    def test_two_daemons_do_not_disturb_each_other(self) -> None:
        first = self.make()
        self.put(first, 1, 5)
        self.until(lambda: len(self.events()) == 5)
        self.folder = scratch(self)
        second = self.make()
        self.assertNotEqual(first.identity, second.identity)
        self.put(second, 6, 10)
        self.put(first, 11, 15)
        self.until(lambda: len(self.events()) == 15)

    def test_recovery_comes_after_what_is_left_and_before_what_is_new(self) -> None:
        left = writer.Journal(self.folder, 1 << 20)
        left.append(told(1, 700))
        left.close()
        seen: list[int] = []

        def recover(cursor: Any) -> None:
            seen.append(len(tables.events(cursor, self.engine, 0, 10_000)))

        self.put(self.make(recover=recover), 701, 710)
        self.until(lambda: len(self.events()) == 710)
        self.assertEqual(seen, [700])

    def test_a_recovery_that_fails_does_not_end_the_store(self) -> None:
        made = self.make(recover=lambda cursor: [][0])
        self.put(made, 1, 3)
        self.until(lambda: self.applied == 3)
        self.assertEqual([type(each) for each in self.faults], [IndexError])

    def test_a_database_that_is_locked_for_a_while(self) -> None:
        self.patch(writer, "AT_ONCE", 10)
        made = self.make()
        self.put(made, 1, 5)
        self.until(lambda: self.applied == 5)
        other = sqlite3.connect(self.file, check_same_thread=False)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        self.put(made, 6, 100)
        self.until(lambda: made.away)
        self.assertIn("locked", made.away)
        self.until(lambda: made.waiting == 95)
        other.rollback()
        self.until(lambda: self.applied == 100 and not made.away)
        self.assertEqual((self.events(), made.waiting, made.dropped), (names(1, 100), 0, 0))

    def test_a_database_that_is_not_there_at_the_start(self) -> None:
        connect = self.engine.connect
        there: list[bool] = []

        def try_to_connect() -> Any:
            if not there:
                raise sqlite3.OperationalError("no such host")
            return connect()

        self.engine = self.engine._replace(connect=try_to_connect)
        made = self.make()
        self.put(made, 1, 20)
        self.until(lambda: made.away == "no such host" and made.waiting == 20)
        there.append(True)
        self.until(lambda: self.applied == 20)
        self.assertEqual(self.events(), names(1, 20))

    def test_a_journal_that_is_full_and_then_memory(self) -> None:
        self.patch(writer, "MOST_MEMORY", 1000)
        locked = sqlite3.connect(self.file, check_same_thread=False)
        self.addCleanup(locked.close)
        locked.execute("BEGIN EXCLUSIVE")
        made = self.make(most=500)
        self.put(made, 1, 3)
        self.until(lambda: made.written == 3)
        self.put(made, 4, 103)
        self.until(lambda: made.dropped)
        self.assertIn("the limit is 500", made.full)
        kept = 103 - made.dropped
        locked.rollback()
        self.until(lambda: self.applied == kept and not made.full)
        self.assertEqual(self.events(), names(1, kept))

    def test_a_bad_entry_is_left_out_and_told(self) -> None:
        made = self.make()
        made.put(told(1, 1)[0])
        made.put(b'{"entry":"nonsense"}')
        made.put(told(2, 2)[0])
        self.until(lambda: self.applied == 3)
        self.assertEqual((self.events(), made.dropped, len(self.faults)), (names(1, 2), 1, 1))

    def test_a_database_that_is_not_ours_is_away(self) -> None:
        """No entry is to blame, whatever the class of the error."""
        for broken in (sqlite3.DatabaseError, sqlite3.ProgrammingError, sqlite3.InternalError):
            with self.subTest(broken=broken):
                self.assertTrue(self.engine.is_away(broken("x")))
        for bad in (sqlite3.DataError, sqlite3.IntegrityError, ValueError):
            with self.subTest(bad=bad):
                self.assertFalse(self.engine.is_away(bad("x")))

    def test_a_table_that_is_missing_for_a_while(self) -> None:
        made = self.make()
        self.put(made, 1, 5)
        self.until(lambda: self.applied == 5)
        self.rename("events", "hidden")
        self.put(made, 6, 10)
        self.until(lambda: "events" in made.away)
        self.assertEqual((made.waiting, made.dropped), (5, 0))
        self.rename("hidden", "events")
        self.until(lambda: self.applied == 10)
        self.assertEqual((self.events(), made.dropped, self.faults), (names(1, 10), 0, []))

    def rename(self, before: str, after: str) -> None:
        connection = self.engine.connect()
        try:
            connection.execute(f"ALTER TABLE {before} RENAME TO {after}")
            connection.commit()
        finally:
            connection.close()


class DiskTests(WriterCase):
    def test_files_that_cannot_be_deleted(self) -> None:
        drop, broken = Journal.drop, [True]

        def fail(*arguments: Any) -> None:
            if broken:
                raise OSError(5, "Input/output error")
            drop(*arguments)

        self.patch(Journal, "drop", fail)
        made = self.make()
        self.put(made, 1, 3)
        self.until(lambda: "Input/output" in made.full and self.applied == 3)
        broken.clear()
        self.until(lambda: not made.full)
        self.put(made, 4, 6)
        self.until(lambda: self.applied == 6)
        self.assertEqual(self.faults, [])

    def test_a_fault_of_ours_is_told_once(self) -> None:
        drop, broken = Journal.drop, [True]

        def fail(*arguments: Any) -> None:
            if broken:
                raise ValueError
            drop(*arguments)

        self.patch(Journal, "drop", fail)
        made = self.make()
        for number in range(1, 6):
            self.put(made, number, number)
            self.until(lambda last=number: self.applied == last)
        self.until(lambda: len(self.faults) == 1)
        broken.clear()

    def test_a_folder_that_somebody_deletes(self) -> None:
        made = self.make()
        self.put(made, 1, 5)
        self.until(lambda: self.applied == 5)
        shutil.rmtree(self.folder)
        self.put(made, 6, 10)
        self.until(lambda: len(self.events()) == 10)
        self.assertTrue((self.folder / "identity").exists())
        self.assertEqual((self.faults, made.full), ([], ""))

    def test_entries_that_are_lost_are_told(self) -> None:
        self.patch(writer, "SEGMENT", 1)
        left = Journal(self.folder, 1 << 20, 1)
        for each in told(1, 5):
            left.append([each])
        left.close()
        sorted(self.files())[2].unlink()
        made = self.make()
        self.until(lambda: self.applied == 5)
        self.assertEqual((made.dropped, len(self.faults)), (1, 1))
        self.assertRegex(str(self.faults[0]), "1 entries of the journal .* are lost")


class ForgetTests(WriterCase):
    WORD = b"Rumpelstiltskin"

    def everywhere(self) -> list[str]:
        """The files that have the word."""
        folders = (self.folder, self.file.parent)
        files = [each for folder in folders for each in folder.rglob("*") if each.is_file()]
        return [each.name for each in files if self.WORD in each.read_bytes()]

    def setUp(self) -> None:
        super().setUp()
        self.file.mkdir()
        self.file = self.file / "records.sqlite3"
        self.engine = sqlite(self.file)

    def fill(self) -> Writer:
        made = self.make()
        for number in range(1, 51):
            data = Raw(b'{"text":"%b"}' % (self.WORD * 30 * number))
            call_id = f"c{number % 2}"
            made.put(encode(EventEntry(f"e{number}", call_id, 1.5, "turn", data)))
            said = {"words": self.WORD.decode() * number, "transcript": data}
            made.put(encode(call(call_id, float(number), **said)))
        self.until(lambda: self.applied == 100)
        self.assertTrue(self.everywhere())
        return made

    def test_a_deleted_word_is_in_no_file(self) -> None:
        made = self.fill()
        for call_id in ("c0", "c1"):
            made.put(encode(DeleteEntry(call_id=call_id)))
            self.put(made, 100, 120)  # the journal goes on
        self.until(lambda: not made.waiting and not self.everywhere())
        self.assertEqual(self.events(), names(100, 120))

    def test_somebody_who_reads_is_waited_for(self) -> None:
        self.patch(writer, "AGAIN", (0.02, 0.05))
        made = self.fill()
        with closing(sqlite3.connect(self.file, check_same_thread=False)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM events").fetchone()
            made.put(encode(DeleteEntry(call_id="c0")))
            made.put(encode(DeleteEntry(call_id="c1")))
            self.until(lambda: self.applied == 102)
            self.assertTrue(self.everywhere())
        self.until(lambda: not self.everywhere())

    def test_an_end_too_soon_is_made_up_for(self) -> None:
        made = self.fill()
        drop = Journal.drop
        self.patch(Journal, "drop", lambda *arguments, **named: None)
        made.put(encode(DeleteEntry(call_id="c0")))
        made.put(encode(DeleteEntry(call_id="c1")))
        self.until(lambda: self.applied == 102)
        made.stop(WITHIN)
        self.assertTrue(self.everywhere())
        self.patch(Journal, "drop", drop)
        self.make()
        self.until(lambda: not self.everywhere())
