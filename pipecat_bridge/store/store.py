"""The store of a daemon: what happens to calls goes in, and the API reads it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.events.events import Events
from pipecat_bridge.options import StoreOptions
from pipecat_bridge.store import recovery, tables
from pipecat_bridge.store.engine import Engine, StoreError, engine_of
from pipecat_bridge.store.entries import DeleteEntry, Entry, ExpireEntry, encode
from pipecat_bridge.store.reader import Reader
from pipecat_bridge.store.schema import check
from pipecat_bridge.store.scribe import Scribe, Snapshot
from pipecat_bridge.store.state import Lock, make_private, state_directory
from pipecat_bridge.store.tables import Hooks
from pipecat_bridge.store.writer import Writer

T = TypeVar("T")

NONE: Final = "none"
"""The value of `[store] url` for no store."""

FILE: Final = "records.sqlite3"

MAIN: Final = "main"
"""The part of a daemon that is one process."""

EXPIRE: Final = 3600.0
"""Seconds from one look for what is too old to the next."""

WATCH: Final = 1.0
"""Seconds from one look for a fault to the next."""

DAY: Final = 86_400.0

STOP: Final = 5.0
"""Seconds at the end for the database to take what waits. The journal keeps what it does not."""


Expired = Callable[[float, float], None]
"""Told that records, and that transcripts, are deleted of calls that ended before these times, in
seconds since the epoch; 0: none are."""


def _nobody(records: float, transcripts: float) -> None:
    """Nobody wants to know."""


class Store(Service):
    """Writes all that happens to the calls of this process.

    `folder`: for its journal. `engine`: of the database. `most`: bytes that may wait for the
    database. `journal`: the identity of its journal. `lost`: calls of earlier processes that ended
    with those.
    """

    _log = Logger()
    on_expired: Expired = staticmethod(_nobody)

    def __init__(
        self,
        reactor: Any,
        folder: Path,
        engine: Engine,
        most: int,
        events: Events,
        snapshot: Snapshot,
        hooks: Hooks = tables.NO_HOOKS,
    ) -> None:
        """Raises OSError or StoreError if the folder cannot be used."""
        self.engine = engine
        self.lost = 0
        self._reader = Reader(engine)
        self._reactor = reactor
        self._hooks = hooks
        self._lock = Lock(folder)
        self._told = ""  # of the fault
        self._on_applied: list[Callable[[], None]] = []
        self._writer = Writer(
            folder, engine, most, self._applied, self._fault, hooks, self._recover
        )
        self.journal = self._writer.identity
        self._keep = (0.0, 0.0)
        self._expiring = LoopingCall(self._expire)
        self._expiring.clock = reactor
        self._watching = LoopingCall(self._watch)
        self._watching.clock = reactor
        self._scribe = Scribe(self._writer.put, snapshot, reactor)
        self._unsubscribe = events.subscribe(self._scribe)

    def startService(self) -> None:
        super().startService()
        self._log.info("records of calls are kept in {place}", place=self.engine.place)
        self._writer.start()
        self._reader.start()
        self._watching.start(WATCH, now=False)
        if any(self._keep):
            self._expiring.start(EXPIRE)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        self._unsubscribe()
        self._scribe.stop()
        for looping in (self._expiring, self._watching):
            if looping.running:
                looping.stop()
        self._reader.stop()
        pool = self._reactor.getThreadPool()
        ended = deferToThreadPool(self._reactor, pool, self._writer.stop, STOP)
        return ended.addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        self._watch()
        self._lock.release()
        return result

    def keep(self, records: float, transcripts: float) -> None:
        """Delete records and transcripts of calls that ended so many days ago; 0: never."""
        self._keep = records, transcripts

    def _expire(self) -> None:
        now = time.time()
        records, transcripts = (now - days * DAY if days else 0.0 for days in self._keep)
        self.put(ExpireEntry(records, transcripts))
        self.on_expired(records, transcripts)

    def _watch(self) -> None:
        """Log when a fault begins, and when it is over."""
        before, self._told = self._told, self.fault
        if self._told and self._told != before:
            self._log.warn("{fault}", fault=self._told)
        elif before and not self._told:
            self._log.info("the store takes all that happens again")

    # From threads of the writer

    def _recover(self, cursor: Any) -> None:
        self.lost += recovery.end_lost_calls(cursor, self.engine, self.journal, self._hooks)

    def _applied(self, number: int) -> None:
        self._reactor.callFromThread(self._tell_applied)

    def _fault(self, error: Exception) -> None:
        self._reactor.callFromThread(
            self._log.failure,
            "the store has a fault",
            Failure(error, type(error), error.__traceback__),
        )

    # In the loop

    def on_applied(self, listener: Callable[[], None]) -> None:
        """Call `listener` in the loop after entries have come into the database."""
        self._on_applied.append(listener)

    def _tell_applied(self) -> None:
        for listener in self._on_applied:
            listener()

    def put(self, entry: Entry) -> None:
        """Write an entry, soon."""
        self._writer.put(encode(entry))

    def read(self, query: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call a function of `tables` or `outbox` in a thread, with a cursor, the engine and
        `arguments`. Fires with AwayError if the database cannot be used."""
        return self._reader.read(query, *arguments)

    def after(self) -> Deferred[None]:
        """Fires when all that has happened so far is in the database. If that is away, it fires
        when it is back."""
        reached: Deferred[None] = Deferred()
        call_soon = self._reactor.callFromThread
        self._writer.after(lambda: call_soon(_fire, reached))
        return reached

    def delete(self, call_id: str = "", caller: str = "") -> None:
        """Delete all that is stored of a call, or of all calls of a caller, soon."""
        self.put(DeleteEntry(call_id, caller))

    @property
    def fault(self) -> str:
        """Why the store does not take what happens, in a sentence; "" if it does."""
        if self._writer.full:
            return f"the journal of the store cannot be written: {self._writer.full}"
        if self._writer.away:
            return f"the store is away: {self._writer.away}"
        return ""

    @property
    def waiting(self) -> int:
        """Entries that are not in the database yet."""
        return self._writer.waiting

    @property
    def dropped(self) -> int:
        """Entries that are lost because too many waited."""
        return self._writer.dropped

    @property
    def journal_bytes(self) -> int:
        """Bytes of the journal."""
        return self._writer.size


def _fire(reached: Deferred[None]) -> None:
    if not reached.called:  # it may have been cancelled
        reached.callback(None)


def open_store(
    reactor: Any,
    options: StoreOptions,
    environment: Mapping[str, str],
    hooks: Hooks,
    events: Events,
    snapshot: Snapshot,
    part: str = "",
) -> Store | None:
    """The store of `[store]`; None for `url = "none"`.

    `part`: the name of this process among those of one daemon. Raises StoreError with a sentence if
    it cannot be used. A database that is away can: what happens waits for it.
    """
    if options.url == NONE:
        return None
    folder = state_directory(options.directory, environment)
    file = folder.absolute() / FILE
    engine = engine_of(options.url or f"sqlite:///{file}")
    journal = folder / "journal" / (part or MAIN)
    try:
        make_private(folder, None if options.url else file)
        check(engine)
        store = Store(reactor, journal, engine, options.max_waiting, events, snapshot, hooks)
    except OSError as error:
        raise StoreError(
            f"{journal}: {error.strerror}: expected a folder that can be written, or [store]"
            ' directory, or [store] url = "none"'
        ) from None
    store.keep(options.keep_records, options.keep_transcripts)
    return store
