"""Writes down what happens to calls: each event, and each call when it has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import UnsetType
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.events.kinds import CallEnded, Turn
from pipecat_bridge.events.record import REJECTED, Record
from pipecat_bridge.store.entries import CallEntry, EventEntry, encode

CHANGES: Final = frozenset(
    {
        "bot.lost",
        "bot.resumed",
        "call.created",
        "call.ready",
        "recording.started",
        "transfer",
        "turn",
        "variables",
    }
)
"""Kinds of events after which the record is written again, besides the end. If the process is
killed, the last one is what is known of the call, and the transcript is made of its events."""

APART: Final = 1.0
"""Seconds between two records of a call that runs. A bot may change it a thousand times."""

Snapshot = Callable[[str], tuple[Record, Sequence[Turn]]]
"""The record and the transcript of a call that runs."""


class Scribe:
    """A listener of events. `put` takes an entry for the journal.

    The record of a call is written at its first change, at its end, and between them when it has
    changed, but once in `APART` seconds at most. One timer writes those that wait.
    """

    _log = Logger()

    def __init__(
        self, put: Callable[[bytes], None], snapshot: Snapshot, clock: IReactorTime
    ) -> None:
        self._put = put
        self._snapshot = snapshot
        self._clock = clock
        self._next: dict[str, float] = {}  # call id -> when its record may be written again
        self._changed: set[str] = set()  # ids of calls whose records wait
        self._timer: IDelayedCall | None = None

    def __call__(self, event: CallEvent) -> None:
        if not event.public:
            return
        kind, call_id = event.kind, event.call_id
        if isinstance(event.data, CallEnded):
            self._put_ended(call_id, event.data.record)
        elif kind in CHANGES:
            self._note_change(call_id)
        data = msgspec.Raw(event.body)
        self._put(encode(EventEntry(event.id, call_id, event.time, kind, data)))

    def _put_ended(self, call_id: str, record: Record) -> None:
        self._next.pop(call_id, None)
        self._changed.discard(call_id)
        turns: Sequence[Turn] = ()
        if record.outcome != REJECTED:
            record, turns = self._known(call_id) or (record, turns)
        self._put(encode(call_entry(record, turns)))

    def _note_change(self, call_id: str) -> None:
        now = self._clock.seconds()
        self._changed.add(call_id)
        if self._next.get(call_id, now) <= now:
            self._put_running(call_id, now)
        elif self._timer is None:
            self._timer = self._clock.callLater(self._next[call_id] - now, self._timed_out)

    def _put_running(self, call_id: str, now: float) -> None:
        self._changed.discard(call_id)
        self._next[call_id] = now + APART
        if (known := self._known(call_id)) is not None:
            self._put(encode(call_entry(known[0], ())))

    def _known(self, call_id: str) -> tuple[Record, Sequence[Turn]] | None:
        """What is known of a call that runs. If it cannot be told, its events are written still."""
        try:
            return self._snapshot(call_id)
        except Exception:  # noqa: BLE001 - see above
            self._log.failure("{call_id} the record cannot be written", call_id=call_id)
            return None

    def _timed_out(self) -> None:
        """Write the records that may be written, and come back for the others."""
        self._timer = None
        now = self._clock.seconds()
        for call_id in [each for each in self._changed if self._next[each] <= now]:
            self._put_running(call_id, now)
        if self._changed:
            due = min(self._next[each] for each in self._changed)
            self._timer = self._clock.callLater(due - now, self._timed_out)

    def stop(self) -> None:
        """Write what waits. There are no more events."""
        if self._timer is not None:
            self._timer.cancel()
        self._next = dict.fromkeys(self._changed, 0.0)
        self._timed_out()


def _text(value: str | UnsetType) -> str:
    return "" if isinstance(value, UnsetType) else value


def call_entry(record: Record, turns: Sequence[Turn]) -> CallEntry:
    """What is stored of a call."""
    return CallEntry(
        id=record.id,
        created=record.created_at,
        ended=None if isinstance(record.ended_at, UnsetType) else record.ended_at,
        node=record.node,
        caller=_text(record.caller),
        called=_text(record.called),
        outcome=_text(record.outcome),
        runner=_text(record.runner),
        record=msgspec.Raw(msgspec.json.encode(record)),
        transcript=msgspec.Raw(msgspec.json.encode(turns)),
        words="\n".join(turn.text for turn in turns).lower(),
    )
