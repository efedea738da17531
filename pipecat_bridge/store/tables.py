"""Reads and writes the tables. The functions get a cursor, in a thread that may wait."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from pipecat_bridge.events.record import Record, TranscriptPart, with_recording
from pipecat_bridge.store import outbox
from pipecat_bridge.store.engine import Engine
from pipecat_bridge.store.entries import (
    AgainEntry,
    CallEntry,
    DeleteEntry,
    DeliveryEntry,
    EventEntry,
    ExpireEntry,
    HookOffEntry,
    RecordingEntry,
    decode,
)
from pipecat_bridge.store.journal import Entry
from pipecat_bridge.store.outbox import StoredEvent

Hooks = Mapping[str, Container[str]]
NO_HOOKS: Final[Hooks] = {}

_COLUMNS: Final = (*CallEntry.__struct_fields__, "journal")
_PUT_CALL: Final = f"""
    INSERT INTO calls ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" for _ in _COLUMNS)})
    ON CONFLICT (id, created) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in ("id", "created"))}
"""
_PUT_EVENT: Final = """
    INSERT INTO events (id, call_id, time, kind, data) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO NOTHING
"""
_RECORD: Final = msgspec.json.Decoder(Record)
_NUL: Final = "\0"

DELETED: Final = TranscriptPart(turns=0, none="deleted because of its age")
"""What the record says of a transcript that is not kept any more."""

_PUT_APPLIED: Final = """
    INSERT INTO applied (journal, number) VALUES (?, ?)
    ON CONFLICT (journal) DO UPDATE SET number = excluded.number
"""

# Writing


def applied(cursor: Any, engine: Engine, journal: str) -> int:
    """The number of the last entry of a journal that is in the tables; 0 if none is."""
    cursor.execute(engine.sql("SELECT number FROM applied WHERE journal = ?"), (journal,))
    row = cursor.fetchone()
    return row[0] if row else 0


def put_applied(cursor: Any, engine: Engine, journal: str, number: int) -> None:
    """All entries of a journal up to this number are in the tables."""
    cursor.execute(engine.sql(_PUT_APPLIED), (journal, number))


def apply(
    cursor: Any, engine: Engine, journal: str, entries: Sequence[Entry], hooks: Hooks = NO_HOOKS
) -> int:
    """Put entries of a journal into the tables, in order, but none a second time. Returns the
    number of the last one. `hooks`: name of each webhook -> the kinds of events that it gets.

    The position is written in the same transaction, so after a crash it is that of the tables.
    """
    done = applied(cursor, engine, journal)
    for number, body in entries:
        if number > done:
            _apply(cursor, engine, journal, body, hooks)
            done = number
    put_applied(cursor, engine, journal, done)
    return done


def _apply(cursor: Any, engine: Engine, journal: str, body: bytes, hooks: Hooks) -> None:
    entry = decode(body)
    if isinstance(entry, EventEntry):
        put_event(cursor, engine, journal, entry, hooks)
    elif isinstance(entry, CallEntry):
        put_call(cursor, engine, journal, entry)
    elif isinstance(entry, DeliveryEntry):
        outbox.note(cursor, engine, entry.number, entry.state, entry.told, entry.due)
    elif isinstance(entry, HookOffEntry):
        outbox.switch_off(cursor, engine, entry.hook, entry.time, entry.told)
    elif isinstance(entry, AgainEntry):
        outbox.send_again(cursor, engine, entry.hook, entry.time, entry.number)
    elif isinstance(entry, RecordingEntry):
        _put_recording(cursor, engine, entry)
    elif isinstance(entry, ExpireEntry):
        _expire(cursor, engine, entry)
    else:
        _delete(cursor, engine, entry)


def put_event(cursor: Any, engine: Engine, journal: str, entry: EventEntry, hooks: Hooks) -> None:
    """Write an event, and give it to the webhooks that want it; nothing if it is there already."""
    row = [_stored(getattr(entry, name)) for name in EventEntry.__struct_fields__]
    cursor.execute(engine.sql(_PUT_EVENT), row)
    wanting = [name for name, kinds in hooks.items() if entry.kind in kinds]
    if wanting and cursor.rowcount:
        outbox.add(cursor, engine, journal, entry.id, entry.time, wanting)


def put_call(cursor: Any, engine: Engine, journal: str, entry: CallEntry) -> None:
    """Write a call of the process of a journal, in place of what was known of it."""
    values = [getattr(entry, name) for name in CallEntry.__struct_fields__]
    cursor.execute(engine.sql(_PUT_CALL), [*map(_stored, values), journal])


def _put_recording(cursor: Any, engine: Engine, entry: RecordingEntry) -> None:
    """Put what has happened to the recording into the record of its call, if there is one."""
    created = entry.created_ms / 1000
    cursor.execute(
        engine.sql(
            "SELECT number, record FROM calls WHERE id = ? AND created BETWEEN ? AND ? AND"
            " ended IS NOT NULL"
        ),
        (entry.call_id, created - 0.001, created + 0.001),
    )
    row = cursor.fetchone()
    if row is not None:
        record = with_recording(_RECORD.decode(row[1]), entry.change)
        cursor.execute(
            engine.sql("UPDATE calls SET record = ? WHERE number = ?"),
            (msgspec.json.encode(record).decode(), row[0]),
        )


def _stored(value: Any) -> Any:
    """A value as a table has it. PostgreSQL has no texts with NUL. In JSON it is written in other
    characters."""
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    return value.replace(_NUL, "") if isinstance(value, str) else value


def _has_nul(*texts: str) -> bool:
    """Whether a text is found nowhere, as none that is stored has this character."""
    return any(_NUL in text for text in texts)


def _delete(cursor: Any, engine: Engine, entry: DeleteEntry) -> None:
    """Delete calls, but none that runs. What is left of a call that is deleted may be its events
    only."""
    if _has_nul(entry.call_id, entry.caller):
        return
    if entry.call_id:
        _delete_call(cursor, engine, entry.call_id)
    else:
        for call_id in ids_of_caller(cursor, engine, entry.caller):
            _delete_call(cursor, engine, call_id)


def _delete_call(cursor: Any, engine: Engine, call_id: str) -> None:
    cursor.execute(
        engine.sql("SELECT min(created) FROM calls WHERE id = ? AND ended IS NULL"), (call_id,)
    )
    [running_since] = cursor.fetchone()
    before = inf if running_since is None else running_since
    _delete_events(cursor, engine, "call_id = ? AND time < ?", call_id, before)
    cursor.execute(engine.sql("DELETE FROM calls WHERE id = ? AND ended IS NOT NULL"), (call_id,))


def _delete_events(cursor: Any, engine: Engine, where: str, *values: Any) -> None:
    events = f"SELECT number FROM events WHERE {where}"
    cursor.execute(engine.sql(f"DELETE FROM deliveries WHERE event IN ({events})"), values)
    cursor.execute(engine.sql(f"DELETE FROM events WHERE {where}"), values)


def _expire(cursor: Any, engine: Engine, entry: ExpireEntry) -> None:
    if entry.records:
        _delete_events(cursor, engine, "time < ?", entry.records)
        cursor.execute(engine.sql("DELETE FROM calls WHERE ended < ?"), (entry.records,))
    if entry.transcripts:
        _delete_events(cursor, engine, "kind = 'turn' AND time < ?", entry.transcripts)
        cursor.execute(
            engine.sql("SELECT number, record FROM calls WHERE ended < ? AND words <> ''"),
            (entry.transcripts,),
        )
        for number, text in cursor.fetchall():
            record = replace(_RECORD.decode(text), transcript=DELETED)
            cursor.execute(
                engine.sql(
                    "UPDATE calls SET transcript = '[]', words = '', record = ? WHERE number = ?"
                ),
                (msgspec.json.encode(record).decode(), number),
            )


# Reading


class Wanted(NamedTuple):
    """Which calls a page has. "" and None: any. `since` and `until`: when they were created, in
    seconds since the epoch. `text`: what was said in them. `after`: where the page before ended."""

    since: float | None = None
    until: float | None = None
    outcome: str = ""
    caller: str = ""
    runner: str = ""
    text: str = ""
    after: tuple[float, int] | None = None
    limit: int = 50


class Row(NamedTuple):
    """A call in a page. `record`: JSON."""

    number: int
    created: float
    record: str


def page(cursor: Any, engine: Engine, wanted: Wanted) -> list[Row]:
    """The newest calls that are wanted, the newest first."""
    if _has_nul(wanted.outcome, wanted.caller, wanted.runner, wanted.text):
        return []
    conditions: list[tuple[str, tuple[Any, ...]]] = []
    if wanted.since is not None:
        conditions.append(("created >= ?", (wanted.since,)))
    if wanted.until is not None:
        conditions.append(("created < ?", (wanted.until,)))
    equal = {name: getattr(wanted, name) for name in ("outcome", "caller", "runner")}
    conditions += [(f"{name} = ?", (value,)) for name, value in equal.items() if value]
    if wanted.text:
        conditions.append(("words LIKE ? ESCAPE '!'", (_like(wanted.text),)))
    if wanted.after is not None:
        conditions.append(("(created, number) < (?, ?)", wanted.after))
    where = " AND ".join(text for text, _ in conditions) or "1 = 1"
    values = [value for _, several in conditions for value in several]
    cursor.execute(
        engine.sql(
            f"SELECT number, created, record FROM calls WHERE {where}"
            " ORDER BY created DESC, number DESC LIMIT ?"
        ),
        (*values, wanted.limit),
    )
    return [Row(*row) for row in cursor.fetchall()]


def _like(text: str) -> str:
    escaped = "".join(f"!{one}" if one in "!%_" else one for one in text.lower())
    return f"%{escaped}%"


def last_call(cursor: Any, engine: Engine, call_id: str, column: str = "record") -> str | None:
    """`record` or `transcript` of the last call with an id, in JSON; None if there is none."""
    if _has_nul(call_id):
        return None
    cursor.execute(
        engine.sql(
            f"SELECT {column} FROM calls WHERE id = ? ORDER BY created DESC, number DESC LIMIT 1"
        ),
        (call_id,),
    )
    row = cursor.fetchone()
    return row[0] if row else None


def ids_of_caller(cursor: Any, engine: Engine, caller: str) -> list[str]:
    """The ids of all calls of a caller that have ended."""
    if _has_nul(caller):
        return []
    cursor.execute(
        engine.sql("SELECT DISTINCT id FROM calls WHERE caller = ? AND ended IS NOT NULL"),
        (caller,),
    )
    return [row[0] for row in cursor.fetchall()]


def running(cursor: Any, engine: Engine, journal: str) -> list[str]:
    """The records of the calls of the processes of a journal that have not ended, in JSON."""
    cursor.execute(
        engine.sql("SELECT record FROM calls WHERE journal = ? AND ended IS NULL ORDER BY number"),
        (journal,),
    )
    return [row[0] for row in cursor.fetchall()]


def events(
    cursor: Any,
    engine: Engine,
    after: int,
    limit: int,
    call_id: str = "",
    kinds: Iterable[str] = (),
) -> list[StoredEvent]:
    """The events after the number `after`, in order; only those of a call, or of some kinds."""
    kinds = list(kinds)
    if _has_nul(call_id, *kinds):
        return []
    conditions, values = ["number > ?"], [after, *([call_id] if call_id else []), *kinds]
    if call_id:
        conditions.append("call_id = ?")
    if kinds:
        conditions.append(f"kind IN ({', '.join('?' for _ in kinds)})")
    cursor.execute(
        engine.sql(
            "SELECT number, id, call_id, time, kind, data FROM events"
            f" WHERE {' AND '.join(conditions)} ORDER BY number LIMIT ?"
        ),
        (*values, limit),
    )
    return [StoredEvent(*row) for row in cursor.fetchall()]


def events_of(cursor: Any, engine: Engine, call_id: str, since: float) -> list[StoredEvent]:
    """All events of a call that was created at `since`, in order."""
    cursor.execute(
        engine.sql(
            "SELECT number, id, call_id, time, kind, data FROM events"
            " WHERE call_id = ? AND time >= ? ORDER BY number"
        ),
        (call_id, since),
    )
    return [StoredEvent(*row) for row in cursor.fetchall()]


def number_of(cursor: Any, engine: Engine, event_id: str) -> int | None:
    """The number of an event; None if it is not stored."""
    if _has_nul(event_id):
        return None
    cursor.execute(engine.sql("SELECT number FROM events WHERE id = ?"), (event_id,))
    row = cursor.fetchone()
    return row[0] if row else None
