"""Ends the calls that ran when their process was killed, with the last that is known of them."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import UnsetType
from msgspec.structs import replace

from pipecat_bridge.events.kinds import CallEnded, Turn
from pipecat_bridge.events.record import Record, RecordingPart
from pipecat_bridge.store import tables
from pipecat_bridge.store.engine import Engine
from pipecat_bridge.store.entries import EventEntry
from pipecat_bridge.store.scribe import call_entry
from pipecat_bridge.store.tables import Hooks

OUTCOME: Final = "lost"
NOTHING_KNOWN: Final = "the process was killed, and has left no file"

REASON: Final = "the bridge was killed or has crashed"

_RECORD: Final = msgspec.json.Decoder(Record)
_TURN: Final = msgspec.json.Decoder(Turn)


def end_lost_calls(cursor: Any, engine: Engine, journal: str, hooks: Hooks) -> int:
    """End all calls of the processes of `journal` that have not ended. Returns how many there
    were."""
    records = tables.running(cursor, engine, journal)
    for text in records:
        _end(cursor, engine, journal, _RECORD.decode(text), hooks)
    return len(records)


def _end(cursor: Any, engine: Engine, journal: str, record: Record, hooks: Hooks) -> None:
    events = tables.events_of(cursor, engine, record.id, record.created_at)
    ended_at = max([record.created_at, *(each.time for each in events)])
    turns = [_TURN.decode(each.data) for each in events if each.kind == "turn"]
    record = replace(
        record,
        state="ended",
        outcome=OUTCOME,
        reason=REASON,
        ended_by="bridge",
        ended_at=ended_at,
        duration=round(ended_at - record.created_at, 3),
        recording=_cut_off(record.recording),
    )
    tables.put_call(cursor, engine, journal, call_entry(record, turns))
    data = msgspec.Raw(msgspec.json.encode(CallEnded(record)))
    ended = EventEntry(uuid4().hex, record.id, ended_at, "call.ended", data)
    tables.put_event(cursor, engine, journal, ended, hooks)


def _cut_off(part: RecordingPart | UnsetType) -> RecordingPart | UnsetType:
    """What is known of a recording whose process was killed. If it has a file, that is finished
    soon, and told."""
    if isinstance(part, RecordingPart) and part.state in ("running", "paused"):
        return replace(part, state="ready", fault=NOTHING_KNOWN)
    return part
