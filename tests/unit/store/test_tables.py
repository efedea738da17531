"""Entries are applied in order and once; calls and events are found again."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.events.record import Record, RecordingPart
from pipecat_bridge.store import tables
from pipecat_bridge.store.engine import Engine, sqlite
from pipecat_bridge.store.entries import (
    CallEntry,
    DeleteEntry,
    EventEntry,
    ExpireEntry,
    RecordingEntry,
    encode,
)
from pipecat_bridge.store.entries import (
    Entry as AnyEntry,
)
from pipecat_bridge.store.journal import Entry
from pipecat_bridge.store.schema import migrate
from pipecat_bridge.store.tables import Wanted
from tests.unit.files import scratch


def call(name: str, created: float, **values: Any) -> CallEntry:
    fields: dict[str, Any] = {
        "ended": created + 10,
        "node": "pbx",
        "caller": "100",
        "called": "200",
        "outcome": "completed",
        "runner": "runner 1",
        "record": msgspec.Raw(json.dumps({"id": name, "created_at": created}).encode()),
        "transcript": msgspec.Raw(b"[]"),
        "words": "",
    }
    return CallEntry(name, created, **{**fields, **values})


def record(name: str, created: float) -> msgspec.Raw:
    made = Record(
        version=1,
        id=name,
        node="pbx",
        direction="in",
        state="ended",
        created_at=created,
        peer="1.2.3.4:5",
        metadata={},
        variables={},
        errors={},
        warnings={},
    )
    return msgspec.Raw(msgspec.json.encode(made))


def event(name: str, call_id: str, kind: str = "turn") -> EventEntry:
    return EventEntry(name, call_id, 1.5, kind, msgspec.Raw(b'{"n":1}'))


class TablesCase(SynchronousTestCase):
    def make_engine(self) -> Engine:
        return sqlite(scratch(self))

    def setUp(self) -> None:
        self.engine = self.make_engine()
        self.connection = self.engine.connect()
        self.addCleanup(self.connection.close)
        migrate(self.connection, self.engine)
        self.cursor = self.connection.cursor()
        self.number = 0

    def apply(self, *entries: AnyEntry) -> None:
        numbered = [Entry(self.number + at, encode(each)) for at, each in enumerate(entries, 1)]
        self.number += len(entries)
        self.assertEqual(tables.apply(self.cursor, self.engine, "pbx", numbered), self.number)

    def ids(self, **wanted: Any) -> list[str]:
        rows = tables.page(self.cursor, self.engine, Wanted(**wanted))
        return [json.loads(row.record)["id"] for row in rows]

    def records(self) -> list[Record]:
        rows = tables.page(self.cursor, self.engine, Wanted())
        return [msgspec.json.decode(row.record, type=Record) for row in rows]

    def events(self, **wanted: Any) -> list[str]:
        found = tables.events(self.cursor, self.engine, wanted.pop("after", 0), 100, **wanted)
        return [each.id for each in found]


class ApplyTests(TablesCase):
    def test_the_same_entries_again_change_nothing(self) -> None:
        entries = [Entry(1, encode(event("e1", "a"))), Entry(2, encode(event("e2", "a")))]
        for _ in range(2):
            self.assertEqual(tables.apply(self.cursor, self.engine, "pbx", entries), 2)
        self.assertEqual(self.events(), ["e1", "e2"])
        more = [*entries, Entry(3, encode(event("e3", "a")))]
        self.assertEqual(tables.apply(self.cursor, self.engine, "pbx", more), 3)
        self.assertEqual(self.events(), ["e1", "e2", "e3"])
        self.assertEqual(tables.applied(self.cursor, self.engine, "pbx"), 3)
        self.assertEqual(tables.applied(self.cursor, self.engine, "another"), 0)

    def test_a_call_is_told_again_and_again(self) -> None:
        self.apply(call("a", 1.0, ended=None, outcome=""))
        self.assertEqual(len(tables.running(self.cursor, self.engine, "pbx")), 1)
        self.assertEqual(tables.running(self.cursor, self.engine, "another"), [])
        self.apply(call("a", 1.0, outcome="completed"))
        self.assertEqual(self.ids(outcome="completed"), ["a"])
        self.assertEqual(tables.running(self.cursor, self.engine, "pbx"), [])

    def test_calls_with_the_same_id(self) -> None:
        self.apply(call("a", 1.0), call("a", 2.0, transcript=msgspec.Raw(b"[1]")))
        self.assertEqual(self.ids(), ["a", "a"])
        last = tables.last_call(self.cursor, self.engine, "a", "transcript")
        self.assertEqual(last, "[1]")
        self.assertIsNone(tables.last_call(self.cursor, self.engine, "b"))

    def test_deleting(self) -> None:
        self.apply(call("a", 1.0), event("e1", "a"), call("b", 2.0, caller="5"), event("e2", "b"))
        self.apply(DeleteEntry(call_id="a"))
        self.assertEqual((self.ids(), self.events()), (["b"], ["e2"]))
        self.apply(DeleteEntry(caller="5"))
        self.assertEqual((self.ids(), self.events()), ([], []))

    def test_events_without_a_call_are_deleted(self) -> None:
        self.apply(event("e1", "a"), DeleteEntry(call_id="a"))
        self.assertEqual(self.events(), [])

    def test_a_call_that_runs_is_not_deleted(self) -> None:
        early = replace(event("e1", "a"), time=1.5)
        late = replace(event("e2", "a"), time=20.5)
        other = event("e3", "b")
        for entry in (DeleteEntry(call_id="a"), DeleteEntry(caller="5")):
            self.apply(
                call("a", 1.0, caller="5"),
                call("a", 20.0, caller="5", ended=None),
                call("b", 1.0, caller="5", ended=None),
                early,
                late,
                other,
                entry,
            )
            rows = tables.page(self.cursor, self.engine, Wanted())
            self.assertEqual([row.created for row in rows], [20.0, 1.0])
            self.assertEqual(self.events(), ["e2", "e3"])
        self.apply(DeleteEntry(call_id="b"))
        self.assertEqual((self.ids(), self.events()), (["a", "b"], ["e2", "e3"]))

    def test_texts_with_nul(self) -> None:
        """PostgreSQL has none."""
        said = msgspec.Raw(msgspec.json.encode([{"text": "a\0b"}]))
        odd = {"caller": "\x00100", "runner": "r\0", "words": "a\0b", "transcript": said}
        self.apply(call("a", 1.0, record=said, **odd))
        self.apply(EventEntry("e1", "a\0", 1.5, "turn", said))
        [row] = tables.page(self.cursor, self.engine, Wanted(text="ab", caller="100", runner="r"))
        self.assertEqual(json.loads(row.record), [{"text": "a\0b"}])
        [found] = tables.events(self.cursor, self.engine, 0, 9, "a")
        self.assertEqual(json.loads(found.data), [{"text": "a\0b"}])
        for wanted in ({"text": "a\0"}, {"caller": "\0"}, {"runner": "\0"}, {"outcome": "\0"}):
            self.assertEqual(tables.page(self.cursor, self.engine, Wanted(**wanted)), [])
        self.assertIsNone(tables.last_call(self.cursor, self.engine, "a\0"))
        self.assertIsNone(tables.number_of(self.cursor, self.engine, "e1\0"))
        self.assertEqual(tables.ids_of_caller(self.cursor, self.engine, "\0"), [])
        self.assertEqual(self.events(call_id="a\0"), [])
        self.assertEqual(self.events(kinds=iter(["turn\0"])), [])
        self.apply(DeleteEntry(caller="\x00100"), DeleteEntry(call_id="a\0"))
        self.assertEqual(self.events(kinds=iter(["turn"])), ["e1"])

    def test_expiry(self) -> None:
        self.apply(call("a", 1.0), call("b", 100.0), call("c", 1.0, ended=None), event("e1", "a"))
        self.apply(ExpireEntry(records=50.0))
        self.assertEqual((self.ids(), self.events()), (["b", "c"], []))

    def test_expiry_of_transcripts(self) -> None:
        said = {"transcript": msgspec.Raw(b"[1]"), "words": "hello"}
        self.apply(
            call("a", 1.0, record=record("a", 1.0), **said),
            call("b", 100.0, record=record("b", 100.0), **said),
        )
        self.apply(event("e1", "a", "turn"), event("e2", "a", "dtmf"))
        self.apply(ExpireEntry(transcripts=50.0))
        self.assertEqual((self.ids(), self.ids(text="hello")), (["b", "a"], ["b"]))
        told = [each.transcript for each in self.records()]
        self.assertEqual(told, [msgspec.UNSET, tables.DELETED])
        last = tables.last_call(self.cursor, self.engine, "a", "transcript")
        self.assertEqual((last, self.events()), ("[]", ["e2"]))

    def test_what_became_of_a_recording(self) -> None:
        part = RecordingPart(state="ready", seconds=3.0, format="opus", bytes=9000)
        encoded = record("a", 1.0004)
        self.apply(call("a", 1.0004, record=encoded), call("a", 2.0, record=encoded))
        self.apply(RecordingEntry("a", 1000, "s3://calls/a"))  # of what is not there yet
        self.apply(RecordingEntry("a", 1000, part), RecordingEntry("b", 1000, part))
        self.assertEqual([each.recording for each in self.records()], [msgspec.UNSET, part])
        self.apply(RecordingEntry("a", 1000, "s3://calls/a"))
        moved = replace(part, url="s3://calls/a")
        self.assertEqual([each.recording for each in self.records()], [msgspec.UNSET, moved])


class PageTests(TablesCase):
    def test_filters(self) -> None:
        self.apply(
            call("a", 1.0, caller="1", words="good morning 100%"),
            call("b", 2.0, outcome="bot-hangup", words="good morning 1000"),
            call("c", 3.0, runner="runner 2"),
        )
        for wanted, found in (
            ({}, ["c", "b", "a"]),
            ({"since": 2.0}, ["c", "b"]),
            ({"until": 2.0}, ["a"]),
            ({"caller": "1"}, ["a"]),
            ({"outcome": "bot-hangup"}, ["b"]),
            ({"runner": "runner 2"}, ["c"]),
            ({"text": "Morning"}, ["b", "a"]),
            ({"text": "100%"}, ["a"]),
            ({"text": "x", "caller": "1"}, []),
        ):
            with self.subTest(wanted=wanted):
                self.assertEqual(self.ids(**wanted), found)

    def test_page_after_page(self) -> None:
        self.apply(*(call(f"{number}", number // 3) for number in range(10)))
        found: list[str] = []
        after = None
        while rows := tables.page(self.cursor, self.engine, Wanted(after=after, limit=4)):
            found += [json.loads(row.record)["id"] for row in rows]
            after = rows[-1].created, rows[-1].number
        self.assertEqual(found, [f"{number}" for number in reversed(range(10))])


class EventTests(TablesCase):
    def test_filters(self) -> None:
        self.apply(event("e1", "a"), event("e2", "b", "dtmf"), event("e3", "a", "dtmf"))
        self.assertEqual(self.events(after=1), ["e2", "e3"])
        self.assertEqual(self.events(call_id="a"), ["e1", "e3"])
        self.assertEqual(self.events(kinds=["dtmf"]), ["e2", "e3"])
        self.assertEqual(self.events(call_id="a", kinds=["dtmf", "turn"], after=1), ["e3"])
