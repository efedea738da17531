"""Events on their way to webhooks, kept until they are delivered or dead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from pipecat_bridge.store.engine import Engine

_ADD: Final = """
    INSERT INTO deliveries (journal, hook, event, state, attempts, due, told)
    SELECT ?, ?, e.number, CASE WHEN o.hook IS NULL THEN 'waiting' ELSE 'dead' END, 0, ?,
        COALESCE(o.told, '')
    FROM events e LEFT JOIN hooks_off o ON o.hook = ? WHERE e.id = ?
"""
_EVENT: Final = "e.number, e.id, e.call_id, e.time, e.kind, e.data"


class StoredEvent(NamedTuple):
    """An event. `number` grows from event to event. `data`: JSON."""

    number: int
    id: str
    call_id: str
    time: float
    kind: str
    data: str


class Delivery(NamedTuple):
    """An event for a webhook. `attempts`: how many were made. `told`: the last answer, as text."""

    number: int
    attempts: int
    told: str
    event: StoredEvent


class Depth(NamedTuple):
    """How many events wait for a webhook, the time of the oldest of them in seconds since the epoch
    or None, and how many are dead."""

    waiting: int
    oldest: float | None
    dead: int


def add(
    cursor: Any, engine: Engine, journal: str, event_id: str, time: float, hooks: Iterable[str]
) -> None:
    """The event of this id, and of this time, is to be sent to webhooks by the process of a
    journal. If a webhook is switched off, it is dead at once."""
    for hook in hooks:
        cursor.execute(engine.sql(_ADD), (journal, hook, time, hook, event_id))


def next_ones(
    cursor: Any, engine: Engine, journal: str, hook: str, limit: int
) -> list[tuple[float, Delivery]]:
    """What the process of a journal is to send to a webhook next, and when, the longest due
    first."""
    cursor.execute(
        engine.sql(
            f"SELECT d.due, d.number, d.attempts, d.told, {_EVENT} FROM deliveries d"
            " JOIN events e ON e.number = d.event"
            " WHERE d.journal = ? AND d.hook = ? AND d.state = 'waiting'"
            " ORDER BY d.due, d.number LIMIT ?"
        ),
        (journal, hook, limit),
    )
    return [(row[0], _delivery(row[1:])) for row in cursor.fetchall()]


def dead(cursor: Any, engine: Engine, hook: str, after: int, limit: int) -> list[Delivery]:
    """What will not be sent to a webhook any more, in order; those after the number `after`."""
    cursor.execute(
        engine.sql(
            f"SELECT d.number, d.attempts, d.told, {_EVENT} FROM deliveries d"
            " JOIN events e ON e.number = d.event"
            " WHERE d.hook = ? AND d.state = 'dead' AND d.number > ? ORDER BY d.number LIMIT ?"
        ),
        (hook, after, limit),
    )
    return [_delivery(row) for row in cursor.fetchall()]


def _delivery(row: Any) -> Delivery:
    return Delivery(row[0], row[1], row[2], StoredEvent(*row[3:]))


def note(
    cursor: Any, engine: Engine, number: int, state: str, told: str, next_due: float = 0.0
) -> None:
    """An attempt was made: the delivery is now `delivered`, `dead`, or still `waiting` until
    `next_due`."""
    cursor.execute(
        engine.sql(
            "UPDATE deliveries SET state = ?, told = ?, due = ?, attempts = attempts + 1"
            " WHERE number = ?"
        ),
        (state, told, next_due, number),
    )


def send_again(cursor: Any, engine: Engine, hook: str, now: float, number: int = 0) -> int:
    """Send the dead deliveries of a webhook once more, or only the one with `number`. Returns how
    many. A webhook that was switched off is on again."""
    only = " AND number = ?" if number else ""
    cursor.execute(
        engine.sql(
            "UPDATE deliveries SET state = 'waiting', attempts = 0, due = ?"
            f" WHERE hook = ? AND state = 'dead'{only}"
        ),
        (now, hook, number) if number else (now, hook),
    )
    count = int(cursor.rowcount)
    cursor.execute(engine.sql("DELETE FROM hooks_off WHERE hook = ?"), (hook,))
    return count


def switch_off(cursor: Any, engine: Engine, hook: str, now: float, told: str) -> None:
    """A webhook wants nothing any more: what waits for it is dead."""
    cursor.execute(
        engine.sql(
            "INSERT INTO hooks_off (hook, since, told) VALUES (?, ?, ?)"
            " ON CONFLICT (hook) DO NOTHING"
        ),
        (hook, now, told),
    )
    cursor.execute(
        engine.sql(
            "UPDATE deliveries SET state = 'dead', told = ? WHERE hook = ? AND state = 'waiting'"
        ),
        (told, hook),
    )


def why_off(cursor: Any, engine: Engine, hook: str) -> str:
    """Why a webhook is switched off; "" if it is not."""
    cursor.execute(engine.sql("SELECT told FROM hooks_off WHERE hook = ?"), (hook,))
    row = cursor.fetchone()
    return row[0] if row else ""


def depth(cursor: Any, engine: Engine, hook: str) -> Depth:
    """What waits for a webhook, and what is dead."""
    cursor.execute(
        engine.sql(
            "SELECT count(*), min(e.time) FROM deliveries d JOIN events e ON e.number = d.event"
            " WHERE d.hook = ? AND d.state = 'waiting'"
        ),
        (hook,),
    )
    waiting, oldest = cursor.fetchone()
    cursor.execute(
        engine.sql("SELECT count(*) FROM deliveries WHERE hook = ? AND state = 'dead'"), (hook,)
    )
    return Depth(waiting, oldest, cursor.fetchone()[0])
