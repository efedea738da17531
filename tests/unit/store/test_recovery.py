"""Calls whose process was killed end with the last that is known of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec.structs import replace

from pipecat_bridge.events.kinds import Turn
from pipecat_bridge.events.record import Record, RecordingPart
from pipecat_bridge.store import outbox, recovery, tables
from pipecat_bridge.store.entries import EventEntry
from pipecat_bridge.store.scribe import call_entry
from tests.unit.store.test_tables import TablesCase, record

TURN = Turn("caller", "Good Morning", 1.0, 2.0)


class RecoveryTests(TablesCase):
    def running(self, name: str, **changes: Any) -> None:
        made = msgspec.json.decode(record(name, 1.0), type=Record)
        self.apply(call_entry(replace(made, state="talking", **changes), ()))

    def recover(self, journal: str = "pbx") -> int:
        hooks = {"crm": ("call.ended",)}
        return recovery.end_lost_calls(self.cursor, self.engine, journal, hooks)

    def test_the_transcript_is_made_of_the_events(self) -> None:
        self.running("a")
        told = msgspec.Raw(msgspec.json.encode(TURN))
        self.apply(EventEntry("e1", "a", 2.5, "turn", told))
        self.assertEqual((self.recover("another"), self.recover(), self.recover()), (0, 1, 0))
        [lost] = self.records()
        self.assertEqual((lost.outcome, lost.ended_at, lost.duration), ("lost", 2.5, 1.5))
        self.assertEqual(self.ids(text="morning"), ["a"])
        transcript = tables.last_call(self.cursor, self.engine, "a", "transcript") or ""
        self.assertEqual([each["text"] for each in json.loads(transcript)], ["Good Morning"])
        [(_, sent)] = outbox.next_ones(self.cursor, self.engine, "pbx", "crm", 9)
        self.assertEqual(sent.event.kind, "call.ended")

    def test_its_node_may_have_another_name_now(self) -> None:
        self.running("a", node="renamed")
        self.assertEqual((self.recover(), self.records()[0].node), (1, "renamed"))

    def test_a_recording_has_ended(self) -> None:
        ready = RecordingPart(state="ready", seconds=3.0)
        for name, part in (
            ("a", replace(ready, state="running")),
            ("b", replace(ready, state="paused")),
            ("c", ready),
            ("d", msgspec.UNSET),
        ):
            self.running(name, recording=part)
        self.recover()
        cut_off = replace(ready, fault=recovery.NOTHING_KNOWN)
        told = {each.id: each.recording for each in self.records()}
        self.assertEqual(told, {"a": cut_off, "b": cut_off, "c": ready, "d": msgspec.UNSET})
