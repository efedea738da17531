"""Finds calls: those that run or have ended lately in memory, all others in the store."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail, succeed

from pipecat_bridge.call.record import listed
from pipecat_bridge.call.registry import Calls, UnknownCallError
from pipecat_bridge.errors import brief
from pipecat_bridge.events.events import Envelope
from pipecat_bridge.events.kinds import Turn
from pipecat_bridge.events.record import Record
from pipecat_bridge.store import tables
from pipecat_bridge.store.bucket import BucketError
from pipecat_bridge.store.engine import Engine
from pipecat_bridge.store.reader import AwayError
from pipecat_bridge.store.recordings import OpenFile, Recordings, Stored
from pipecat_bridge.store.store import Store
from pipecat_bridge.store.tables import Wanted
from pipecat_bridge.web.file import Elsewhere
from pipecat_bridge.web.problem import ProblemError
from pipecat_bridge.web.query import cursor_of
from pipecat_bridge.web.stream import stored_envelope

MOST_ENDED: Final = 1_000_000

URL_SECONDS: Final = 300
"""Seconds for which the URL of a recording in a bucket is good."""

COLUMNS: Final = (
    "id",
    "created_at",
    "ended_at",
    "duration",
    "node",
    "direction",
    "caller",
    "called",
    "outcome",
    "reason",
    "ended_by",
    "transfer",
    "runner",
)
"""The columns of `/v1/calls.csv`, which are members of the record."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_NUMBER: Final = re.compile(r"\+[0-9 ()/.-]+")

_RECORD: Final = msgspec.json.Decoder(Record)


class Page(NamedTuple):
    """Some calls, the newest first. `cursor`: of the next page, or ""."""

    calls: list[Record]
    cursor: str

    @property
    def body(self) -> dict[str, Any]:
        """The page as the API shows it."""
        return {"calls": self.calls, **({"cursor": self.cursor} if self.cursor else {})}


class Archive:
    """All calls. Without a store, only those in memory."""

    def __init__(self, calls: Calls, store: Store | None, recordings: Recordings | None) -> None:
        self._calls = calls
        self._store = store
        self._recordings = recordings

    # Several

    def page(self, wanted: Wanted) -> Deferred[Page]:
        """The calls that are wanted. Fires with ProblemError if the store is away."""
        if self._store is None:
            return succeed(self._in_memory(wanted))
        reading = self._store.read(_summaries, wanted)
        return reading.addCallbacks(lambda page: self._with_running(page, wanted), away)

    def _in_memory(self, wanted: Wanted) -> Page:
        """A page without a store. The numbers of its cursor are places in time only."""
        found = [listed(call) for call in self._calls.running]
        found += [_RECORD.decode(each) for each in self._calls.ended]
        found = [each for each in found if self._is_wanted(each, wanted)]
        found.sort(key=lambda each: each.created_at, reverse=True)
        more = len(found) > wanted.limit
        found = found[: wanted.limit]
        return Page(found, cursor_of(found[-1].created_at, 0) if more else "")

    def _is_wanted(self, record: Record, wanted: Wanted) -> bool:
        equal = {name: getattr(wanted, name) for name in ("outcome", "caller", "runner")}
        return (
            (wanted.since is None or record.created_at >= wanted.since)
            and (wanted.until is None or record.created_at < wanted.until)
            and (wanted.after is None or record.created_at < wanted.after[0])
            and all(not value or getattr(record, name) == value for name, value in equal.items())
            and (not wanted.text or self._has_words(record.id, wanted.text))
        )

    def _has_words(self, call_id: str, text: str) -> bool:
        try:
            turns = self._calls.turns(call_id)
        except UnknownCallError:  # a phone that was refused
            return False
        return any(text.lower() in turn.text.lower() for turn in turns)

    def _with_running(self, page: Page, wanted: Wanted) -> Page:
        """A page of the store, with calls that run as they are now. The newest ones may not be in
        the store yet."""
        running = {call.call_id: listed(call) for call in self._calls.running}
        calls = [
            running.get(each.id, each) if each.ended_at is UNSET else each for each in page.calls
        ]
        if wanted.after is None:
            known = {each.id for each in page.calls}
            # What is said in a call comes into the store when it has ended.
            newest = page.calls[0].created_at if page.calls and not wanted.text else 0.0
            new = [
                each
                for each in running.values()
                if each.id not in known
                and each.created_at > newest
                and self._is_wanted(each, wanted)
            ]
            calls = sorted(new + calls, key=lambda each: each.created_at, reverse=True)
        return Page(calls, page.cursor)

    def table(self, wanted: Wanted) -> Deferred[bytes]:
        """The calls that are wanted as CSV (RFC 4180), with a line of names."""
        if self._store is None:
            return succeed(_csv(self._in_memory(wanted).calls))
        return self._store.read(_table, wanted).addErrback(away)

    # To forget

    async def forget(self, call_id: str) -> None:
        """Delete all that is known of a call. Raises ProblemError if it still runs, if there is
        none, or if the store is away."""
        call_id = call_id.lower()
        self._must_not_run(call_id)
        await self.record(call_id)
        self._must_not_run(call_id)
        self._forget([call_id])
        if self._store is not None:
            self._store.delete(call_id=call_id)

    async def forget_caller(self, caller: str) -> list[str]:
        """Delete all that is known of the calls of a caller that have ended, and return their ids.
        Raises ProblemError if one still runs, or if the store is away."""
        self._must_not_call(caller)
        found = self._in_memory(Wanted(caller=caller, limit=MOST_ENDED)).calls
        ids = {record.id for record in found}
        if self._store is not None:
            if self._store.fault:
                raise ProblemError(503, self._store.fault)
            await self._store.after()
            ids.update(await self._store.read(tables.ids_of_caller, caller).addErrback(away))
            self._must_not_call(caller)
            self._store.delete(caller=caller)
        self._forget(ids)
        return sorted(ids)

    def _must_not_run(self, call_id: str) -> None:
        if self._calls.is_running(call_id):
            raise ProblemError(409, f"call {brief(call_id)} runs: expected that it ends first")

    def _must_not_call(self, caller: str) -> None:
        for record in [listed(call) for call in self._calls.running]:
            if record.caller == caller:
                raise ProblemError(409, f"call {record.id} runs: expected that it ends first")

    def _forget(self, call_ids: Collection[str]) -> None:
        for call_id in call_ids:
            self._calls.forget(call_id)
        if self._recordings is not None:
            self._recordings.delete(call_ids)

    # One

    def record(self, call_id: str) -> Deferred[Record]:
        """The record of a call. Fires with ProblemError if there is none."""
        try:
            return succeed(self._calls.record(call_id))
        except UnknownCallError:
            return self._last(call_id, _last_record)

    def turns(self, call_id: str) -> Deferred[list[Turn]]:
        """The transcript of a call. Fires with ProblemError if there is no such call."""
        try:
            return succeed(self._calls.turns(call_id))
        except UnknownCallError:
            return self._last(call_id, _last_turns)

    def events(self, call_id: str) -> Deferred[list[Envelope]]:
        """The last events of a call. Fires with ProblemError if there is no such call."""
        try:
            return succeed(self._calls.history(call_id))
        except UnknownCallError:
            if self._store is None:
                return fail(_unknown(call_id))
            reading = self._store.read(_events_of, call_id.lower())
            return reading.addCallbacks(lambda found: _or_unknown(found, call_id), away)

    async def recording(self, call_id: str) -> OpenFile | Elsewhere:
        """A call's recording. Raises ProblemError if there is none."""
        record = await self.record(call_id)
        recordings = self._recordings
        if recordings is None or record.recording is UNSET:
            raise ProblemError(404, f"call {brief(call_id)} was not recorded")
        try:
            found = await recordings.in_thread(recordings.open, record.id, record.created_at)
            if isinstance(found, Stored):
                return Elsewhere(await recordings.in_thread(recordings.url, found, URL_SECONDS))
        except (BucketError, OSError) as error:
            raise ProblemError(503, f"the recording of call {brief(call_id)}: {error}") from None
        if found is None:
            raise ProblemError(410, f"the recording of call {brief(call_id)} is deleted")
        return found

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Read a part of a recording."""
        assert self._recordings is not None  # which has opened it
        return self._recordings.in_thread(function, *arguments)

    def _last(self, call_id: str, read: Callable[..., Any]) -> Deferred[Any]:
        if self._store is None:
            return fail(_unknown(call_id))
        reading = self._store.read(read, call_id.lower())
        return reading.addCallbacks(lambda found: _or_unknown(found, call_id), away)


def _unknown(call_id: str) -> ProblemError:
    return ProblemError(404, f"no call {brief(call_id)} is known: see /v1/calls")


def _or_unknown(found: Any, call_id: str) -> Any:
    if found is None:
        raise _unknown(call_id)
    return found


def away(failure: Any) -> Any:
    """Fail with a ProblemError if the store cannot be read."""
    error = failure.trap(AwayError) and failure.value
    raise ProblemError(503, str(error))


# In the threads of the reader


def _summaries(cursor: Any, engine: Engine, wanted: Wanted) -> Page:
    rows = tables.page(cursor, engine, wanted._replace(limit=wanted.limit + 1))
    more, rows = len(rows) > wanted.limit, rows[: wanted.limit]
    calls = [_summary(_RECORD.decode(row.record)) for row in rows]
    return Page(calls, cursor_of(rows[-1].created, rows[-1].number) if more else "")


def _summary(record: Record) -> Record:
    """A record as the list shows it."""
    return replace(record, bots=(), quality=UNSET, talk=UNSET, errors={}, warnings={})


def _table(cursor: Any, engine: Engine, wanted: Wanted) -> bytes:
    return _csv(_summaries(cursor, engine, wanted).calls)


def _last_record(cursor: Any, engine: Engine, call_id: str) -> Record | None:
    text = tables.last_call(cursor, engine, call_id, "record")
    return None if text is None else _RECORD.decode(text)


def _last_turns(cursor: Any, engine: Engine, call_id: str) -> list[Turn] | None:
    text = tables.last_call(cursor, engine, call_id, "transcript")
    return None if text is None else msgspec.json.decode(text, type=list[Turn])


def _events_of(cursor: Any, engine: Engine, call_id: str) -> list[Envelope] | None:
    found = tables.events(cursor, engine, 0, 1000, call_id=call_id)
    return [stored_envelope(each) for each in found if each.kind != "call.ended"] or None


def _csv(records: Iterable[Record]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for record in records:
        values = [getattr(record, name) for name in COLUMNS]
        table.writerow(["" if isinstance(each, UnsetType) else _cell(each) for each in values])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value of a table. Spreadsheets take text that begins like this for a formula, unless it is
    a telephone number."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value
