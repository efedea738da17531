"""Brings entries into the database, by way of the journal. Nobody waits for it.

Two threads, because neither a disk nor a database may hold up the other: one appends what the loop
has told to the journal, and one applies the journal to the database. If the database is away, the
journal grows. If the disk is full, what is told waits in memory. Both have a limit, and beyond it
entries are dropped and counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from pipecat_bridge.store import tables
from pipecat_bridge.store.engine import Engine, StoreError
from pipecat_bridge.store.entries import is_forgetting
from pipecat_bridge.store.journal import SEGMENT, Entry, FullError, Journal, Tail, before_start
from pipecat_bridge.store.schema import migrate
from pipecat_bridge.store.tables import Hooks

GATHER: Final = 0.01
"""Seconds in which entries are gathered before they are written together."""

AT_ONCE: Final = 500
"""Entries of one transaction."""

AGAIN: Final = (0.2, 5.0)
"""Seconds until a store that is away is tried again, at first and at most."""

MOST_MEMORY: Final = 1 << 23
"""Bytes of entries that wait in memory for a disk that is full."""


class _Barrier(NamedTuple):
    """`done` is called when all that was put before is in the database."""

    done: Callable[[], None]


class _Drop(NamedTuple):
    """The journal is not needed up to the number `upto`. `forget`: that is to be deleted, and not
    only may be."""

    upto: int
    forget: bool = False


class LostError(Exception):
    """Entries of the journal are lost."""


class Writer:
    """Writes entries to the journal in `folder` and to the database of `engine`.

    `most`: bytes of the journal. `applied` is called in a thread of this object with the number of
    the last entry that is in the database, and `fault` with an exception that is a fault of this
    program. `hooks`: see `tables.apply`. `recover` is called in a transaction, with a cursor, when
    all that earlier processes have left in the journal is in the database, and before anything of
    this one is.

    `identity`: of the journal, by which the database knows it. `away`: why the database cannot be
    used, or "". `full`: why the journal cannot be written, or "". `dropped`: entries that are lost.
    `waiting`: entries that are not in the database yet.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        most: int,
        applied: Callable[[int], None],
        fault: Callable[[Exception], None],
        hooks: Hooks = tables.NO_HOOKS,
        recover: Callable[[Any], None] | None = None,
    ) -> None:
        """Raises OSError if the folder cannot be used."""
        self.away = ""
        self.full = ""
        self.dropped = 0
        self._folder = folder
        self._engine = engine
        self._journal = Journal(folder, most, min(SEGMENT, most // 4))
        self.identity = self._journal.identity
        self._told: SimpleQueue[bytes | _Drop | _Barrier | None] = SimpleQueue()  # see _gather
        self._asked: list[_Barrier] = []  # before which is what the disk has not taken
        self._barriers: list[tuple[int, _Barrier]] = []  # and the number of the last entry before
        self._pending: list[bytes] = []  # that the disk has not taken
        self._dropping: _Drop | None = None  # what the disk has not dropped
        self._position = 0  # in the database
        self._connection: Any = None
        self._tail: Tail | None = None
        self._unswept = False
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._applied = applied
        self._fault = fault
        self._has_failed = False
        self._hooks = hooks
        self._recover = recover
        self._left = self._journal.last  # by earlier processes
        self._before = before_start(self._journal.start)  # the last number they may have used
        self._threads = [
            threading.Thread(target=run, name=f"store {run.__name__}", daemon=True)
            for run in (self._keep, self._bring)
        ]

    @property
    def waiting(self) -> int:
        """Entries that are not in the database yet."""
        return self._journal.count_after(self._position) + len(self._pending)

    @property
    def size(self) -> int:
        """Bytes of the journal."""
        return self._journal.size

    @property
    def written(self) -> int:
        """The number of the last entry of the journal."""
        return self._journal.last

    def start(self) -> None:
        """Start both threads. What an earlier process has left in the journal is applied first."""
        self._wake.set()
        for thread in self._threads:
            thread.start()

    def put(self, entry: bytes) -> None:
        """Write an entry, soon. Costs the caller a microsecond."""
        self._told.put(entry)

    def after(self, done: Callable[[], None]) -> None:
        """Call `done`, in a thread of this object, when all that was put so far is in the database.
        It is not called while the database is away."""
        self._told.put(_Barrier(done))

    def stop(self, seconds: float) -> None:
        """Write what was told, and give the database so many seconds to take it. Blocks."""
        end = time.monotonic() + seconds
        self._told.put(None)
        self._threads[0].join(seconds)
        while self.waiting and not self.away and time.monotonic() < end:
            time.sleep(GATHER)
        self._ending.set()
        self._wake.set()
        self._threads[1].join(max(0.1, end - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            with suppress(OSError):  # the next process tries again
                self._journal.drop(*_Drop(self._position, forget=True))

    # The journal

    def _keep(self) -> None:
        told: list[bytes | _Drop | _Barrier | None] = []
        while None not in told:
            told = self._gather()
            self._pending += [each for each in told if isinstance(each, bytes)]
            self._asked += [each for each in told if isinstance(each, _Barrier)]
            for each in told:
                if isinstance(each, _Drop):
                    forget = each.forget or (self._dropping is not None and self._dropping.forget)
                    self._dropping = _Drop(each.upto, forget)
            for change in (self._append, self._drop):
                try:
                    change()
                except OSError as error:
                    self.full = str(error)
                except Exception as error:  # noqa: BLE001 - a fault of ours must not end the store
                    self._tell_fault(error)
            self._wake.set()
        self._journal.close()

    def _gather(self) -> list[bytes | _Drop | _Barrier | None]:
        """Wait for something, and take all that has come soon after it.

        It is an entry, what may be dropped, a barrier, or None: the end. If the disk has not taken
        something, nothing new may come: it is tried again.
        """
        left = self._pending or self._dropping
        told: list[bytes | _Drop | _Barrier | None] = []
        with suppress(Empty):
            told.append(self._told.get(timeout=AGAIN[1] / 5 if left else None))
            time.sleep(GATHER)
            while told[-1] is not None:
                told.append(self._told.get_nowait())
        return told

    def _append(self) -> None:
        if self._pending:
            try:
                self._journal.append(self._pending)
                self._pending, self.full = [], ""
            except FullError as error:
                self.full = str(error)
                self._append_some()
            except OSError as error:
                self.full = str(error)
            self._drop_pending()
        if not self._pending:
            self._barriers += [(self._journal.last, each) for each in self._asked]
            self._asked = []

    def _append_some(self) -> None:
        """There is no room for all: append the first ones."""
        with suppress(OSError):
            while self._pending:
                self._journal.append(self._pending[:1])
                del self._pending[0]

    def _drop_pending(self) -> None:
        """Drop what is too much for the memory."""
        left = MOST_MEMORY
        for index, entry in enumerate(self._pending):
            left -= len(entry)
            if left < 0:
                self.dropped += len(self._pending) - index
                del self._pending[index:]
                break

    def _drop(self) -> None:
        if self._dropping is not None:
            self._journal.drop(*self._dropping)
            self._dropping = None
            if not self._pending:
                self.full = ""

    def _tell_fault(self, error: Exception) -> None:
        """Tell a fault of ours that may come again and again: once."""
        if not self._has_failed:
            self._has_failed = True
            self._fault(error)

    # The database

    def _bring(self) -> None:
        pause = AGAIN[0]
        while not self._ending.is_set():
            self._wake.wait(AGAIN[1] if self._unswept else None)
            self._wake.clear()
            try:
                while self._step():
                    pause = AGAIN[0]
                self.away = ""
                self._pass_barriers()
                self._sweep()
                continue
            except StoreError as error:
                self.away, pause = str(error), AGAIN[1]
            except OSError as error:
                self.away = f"the journal cannot be read: {error}"
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end the store
                if self._engine.is_away(error):
                    self.away = self._engine.told(error)
                else:
                    self.away, pause = f"a fault: {type(error).__name__}", AGAIN[1]
                    self._tell_fault(error)
            self._disconnect()
            self._ending.wait(pause)
            pause = min(2 * pause, AGAIN[1])
            self._wake.set()
        self._disconnect()

    def _pass_barriers(self) -> None:
        for each in [each for each in self._barriers if each[0] <= self._position]:
            self._barriers.remove(each)
            each[1].done()

    def _sweep(self) -> None:
        """Take what was deleted out of the files of the database. Others may still read it: then it
        is tried again."""
        if self._unswept and self._connection is not None:
            self._unswept = not self._engine.sweep(self._connection)

    def _step(self) -> bool:
        """Apply some entries; False if there are none."""
        if self._connection is None:
            self._connect()
        assert self._tail is not None
        if self._recover is None:
            entries = self._tail.read(AT_ONCE)
        else:
            entries = self._tail.read(AT_ONCE, self._left)
            if not entries:
                self._recover_once(self._recover)
                entries = self._tail.read(AT_ONCE)
        if not entries:
            return False
        self._apply(entries)
        self._position = self._tail.number
        forget = any(is_forgetting(each.body) for each in entries)
        self._unswept |= forget
        self._told.put(_Drop(self._position, forget))
        self._applied(self._position)
        return True

    def _recover_once(self, recover: Callable[[Any], None]) -> None:
        try:
            recover(self._connection.cursor())
            self._connection.commit()
        except Exception as error:
            if self._engine.is_away(error):
                raise
            self._connection.rollback()
            self._fault(error)
        self._recover = None

    def _connect(self) -> None:
        self._connection = self._engine.connect()
        migrate(self._connection, self._engine)
        cursor = self._connection.cursor()
        position = tables.applied(cursor, self._engine, self.identity)
        if self._recover is not None and position > self._before:
            # The folder is an old copy, so this process uses numbers that were used before.
            position = self._left
            tables.put_applied(cursor, self._engine, self.identity, position)
        self._connection.commit()
        self._position = position
        self._tail = Tail(self._folder, position, self._lost)
        self._unswept = True  # an earlier process may have ended too soon
        self._told.put(_Drop(position))

    def _lost(self, count: int) -> None:
        self.dropped += count
        self._fault(LostError(f"{count} entries of the journal {self._folder} are lost"))

    def _apply(self, entries: list[Entry]) -> None:
        """In one transaction; if there is a bad entry, each in one, without that one."""
        try:
            self._commit(entries)
        except Exception as error:
            if self._engine.is_away(error):
                raise
            self._connection.rollback()
            for entry in entries:
                self._apply_one(entry)

    def _apply_one(self, entry: Entry) -> None:
        try:
            self._commit([entry])
        except Exception as error:
            if self._engine.is_away(error):
                raise
            self._connection.rollback()
            self.dropped += 1
            self._fault(error)

    def _commit(self, entries: list[Entry]) -> None:
        cursor = self._connection.cursor()
        tables.apply(cursor, self._engine, self.identity, entries, self._hooks)
        self._connection.commit()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()
        if connection is not None:
            with suppress(Exception):  # it may be gone already
                connection.close()
