"""The store tells when it cannot be used, and is not opened if it is newer than the program."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.events.events import Events
from pipecat_bridge.options import StoreOptions
from pipecat_bridge.store.engine import StoreError, sqlite
from pipecat_bridge.store.schema import migrate
from pipecat_bridge.store.store import FILE, WATCH, Store, open_store
from tests.unit.files import scratch


def nothing(call_id: str) -> Any:
    """There are no calls."""
    raise AssertionError(call_id)


class FaultTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged: list[tuple[LogLevel, str]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: LogEvent) -> None:
        text = (event.get("log_format") or "").format_map(event)
        self.logged.append((event["log_level"], text))

    def test_it_is_logged_once_and_when_it_is_over(self) -> None:
        clock, engine = Clock(), sqlite(scratch(self))
        store = Store(clock, scratch(self), engine, 1 << 20, Events(), nothing)
        self.addCleanup(store._lock.release)
        writer = store._writer
        store._watching.start(WATCH, now=False)
        self.addCleanup(store._watching.stop)
        clock.pump([WATCH] * 2)
        writer.away = "no such host"
        clock.pump([WATCH] * 3)
        writer.full = "no room"
        clock.pump([WATCH] * 3)
        writer.away = writer.full = ""
        clock.pump([WATCH] * 3)
        away = "the store is away: no such host"
        full = "the journal of the store cannot be written: no room"
        over = "the store takes all that happens again"
        levels = [(LogLevel.warn, away), (LogLevel.warn, full), (LogLevel.info, over)]
        self.assertEqual(self.logged, levels)


class OpenTests(SynchronousTestCase):
    def test_a_newer_store_is_refused(self) -> None:
        folder = scratch(self)
        folder.mkdir()
        engine = sqlite(folder / FILE)
        with closing(engine.connect()) as connection:
            migrate(connection, engine)
            connection.execute("UPDATE schema_version SET version = 99")
            connection.commit()
        options = StoreOptions(directory=str(folder))
        with self.assertRaisesRegex(StoreError, "the store has version 99"):
            open_store(Clock(), options, {}, {}, Events(), nothing)
        with closing(sqlite3.connect(folder / FILE)) as connection:
            connection.execute("UPDATE schema_version SET version = 1")
            connection.commit()
        store = open_store(Clock(), options, {}, {}, Events(), nothing)
        assert store is not None
        store._lock.release()
