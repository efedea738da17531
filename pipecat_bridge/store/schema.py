"""The tables, and how the store of an older version becomes one of this version."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

from pipecat_bridge.store.engine import Engine, StoreError

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # A UUID may have been that of several calls. `record` and `transcript` are JSON. `node`:
        # the name as it was then. `journal`: the identity of the journal of the call's process.
        """
        CREATE TABLE calls (
            number {serial},
            id TEXT NOT NULL,
            created DOUBLE PRECISION NOT NULL,
            ended DOUBLE PRECISION,
            node TEXT NOT NULL,
            caller TEXT NOT NULL,
            called TEXT NOT NULL,
            outcome TEXT NOT NULL,
            runner TEXT NOT NULL,
            record TEXT NOT NULL,
            transcript TEXT NOT NULL,
            words TEXT NOT NULL,
            journal TEXT NOT NULL,
            UNIQUE (id, created)
        )
        """,
        "CREATE INDEX calls_created ON calls (created, number)",
        "CREATE INDEX calls_caller ON calls (caller, created, number)",
        "CREATE INDEX calls_outcome ON calls (outcome, created, number)",
        "CREATE INDEX calls_runner ON calls (runner, created, number)",
        "CREATE INDEX calls_running ON calls (journal) WHERE ended IS NULL",
        """
        CREATE TABLE events (
            number {serial},
            id TEXT NOT NULL UNIQUE,
            call_id TEXT NOT NULL,
            time DOUBLE PRECISION NOT NULL,
            kind TEXT NOT NULL,
            data TEXT NOT NULL
        )
        """,
        "CREATE INDEX events_call ON events (call_id, number)",
        "CREATE INDEX events_time ON events (time)",
        # An event that is to be sent to a webhook, and what became of it. `due`: when it is sent
        # next. `state`: waiting, delivered or dead. `journal`: whose process sends it.
        """
        CREATE TABLE deliveries (
            number {serial},
            journal TEXT NOT NULL,
            hook TEXT NOT NULL,
            event BIGINT NOT NULL,
            state TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            due DOUBLE PRECISION NOT NULL,
            told TEXT NOT NULL,
            UNIQUE (hook, event)
        )
        """,
        """
        CREATE INDEX deliveries_due ON deliveries (journal, hook, due, number)
        WHERE state = 'waiting'
        """,
        "CREATE INDEX deliveries_dead ON deliveries (hook, number) WHERE state = 'dead'",
        "CREATE INDEX deliveries_event ON deliveries (event)",
        # Webhooks that are switched off, and why.
        "CREATE TABLE hooks_off (hook TEXT PRIMARY KEY, since DOUBLE PRECISION, told TEXT)",
        # Of each journal, the number of the last entry that is in the other tables.
        "CREATE TABLE applied (journal TEXT PRIMARY KEY, number BIGINT NOT NULL)",
    ),
)
"""The statements of each version, from 1 on. What has been released is never changed."""

VERSION: Final = len(MIGRATIONS)


def migrate(connection: Any, engine: Engine) -> None:
    """Bring the store to this version, each step in a transaction. Raises StoreError if the store
    is newer than this program."""
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    connection.commit()
    while (version := _version(cursor, engine)) < VERSION:
        for statement in MIGRATIONS[version]:
            cursor.execute(engine.sql(statement))
        cursor.execute("DELETE FROM schema_version")
        cursor.execute(engine.sql("INSERT INTO schema_version VALUES (?)"), (version + 1,))
        connection.commit()
    connection.rollback()
    _refuse_newer(version)


def check(engine: Engine) -> None:
    """Raises StoreError if the store is newer than this program. If it cannot be reached in a
    moment, or has no tables yet, that is found out later."""
    try:
        with closing(engine.peek()) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT max(version) FROM schema_version")
            version = cursor.fetchone()[0] or 0
    except engine.error:
        return
    _refuse_newer(version)


def _refuse_newer(version: int) -> None:
    if version > VERSION:
        raise StoreError(
            f"the store has version {version}, and this program knows versions up to {VERSION}:"
            " expected a newer pipecat-bridge"
        )


def _version(cursor: Any, engine: Engine) -> int:
    """The version of the store, 0 for a new one. No other process changes it until the end of the
    transaction."""
    if engine.name == "sqlite":
        cursor.execute("BEGIN IMMEDIATE")
    else:
        cursor.execute("LOCK TABLE schema_version")
    cursor.execute("SELECT max(version) FROM schema_version")
    return cursor.fetchone()[0] or 0
