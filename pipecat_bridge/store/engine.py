"""The two database engines, and what differs between them: SQLite, and PostgreSQL by psycopg 3."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.enterprise.adbapi import ConnectionPool

from pipecat_bridge.errors import BlameError

BUSY: Final = 1.0
"""Seconds to wait for a lock of SQLite's. What is to be written waits in the journal after that."""

READERS: Final = 3
"""Connections that read, besides the one that writes."""

PATIENCE: Final = 5
"""Seconds to wait for a connection to PostgreSQL."""

MOMENT: Final = 2
"""The same for a look at the start, which nothing else waits for. It is the least that there is."""

SQLITE: Final = "sqlite:///"
"""How the URL of an SQLite store begins. A path follows, which begins with another slash."""

POSTGRESQL: Final = ("postgresql://", "postgres://")
"""How the URL of a PostgreSQL store begins."""


NEITHER: Final = "expected sqlite:///, postgresql:// or none"

UNREADABLE: Final = (
    "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where : / @ # % and spaces of the"
    " password are written as %3A %2F %40 %23 %25 %20"
)
"""It does not say what is wrong: that may be a part of the password."""

_SECRETS: Final = ("password", "sslpassword")


class StoreError(BlameError):
    """The store cannot be used, and the text says why."""


class Engine(NamedTuple):
    """`connect` makes a DB-API connection, and `pool` a pool of them for readers. `peek` makes one
    in a moment, to a database that is there. `sweep` takes what was deleted out of the files of the
    database, and returns whether it could. `error`: the class of all errors of the database.
    `of_entry`: classes of those for which a value is to blame; all others say that the database
    cannot be used now, and what failed may succeed later. `types`: names of column types, and
    phrases, that differ. `place`: where it is, without a password. `secrets`: texts that are shown
    nowhere."""

    name: str
    place: str
    connect: Callable[[], Any]
    peek: Callable[[], Any]
    pool: Callable[[], ConnectionPool]
    sweep: Callable[[Any], bool]
    error: type[Exception]
    of_entry: tuple[type[Exception], ...]
    types: dict[str, str]
    secrets: tuple[str, ...] = ()

    def sql(self, text: str) -> str:
        """A statement in this engine's SQL. It is written with `?` for values, and `{name}` for one
        of `types`."""
        text = text.format_map(self.types)
        return text if self.name == "sqlite" else text.replace("?", "%s")

    def is_away(self, error: Exception) -> bool:
        """Whether an error says that the database is gone, locked, full, broken or not ours."""
        return isinstance(error, self.error) and not isinstance(error, self.of_entry)

    def told(self, error: Exception) -> str:
        """The text of an error on one line, without secrets."""
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def sqlite(path: Path) -> Engine:
    """The engine of the file `path`, which is made when it is first used."""

    # adbapi uses a connection in one thread at a time, but closes it in another one.
    options: Any = {"timeout": BUSY, "check_same_thread": False}

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")

    def connect() -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(path, **options)
        prepare(connection)
        return connection

    def peek() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=BUSY, uri=True)

    def pool() -> ConnectionPool:
        return ConnectionPool(
            "sqlite3", str(path), **options, cp_openfun=prepare, cp_min=1, cp_max=READERS
        )

    def sweep(connection: sqlite3.Connection) -> bool:
        [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    return Engine(
        name="sqlite",
        place=str(path),
        connect=connect,
        peek=peek,
        pool=pool,
        sweep=sweep,
        error=sqlite3.Error,
        of_entry=(sqlite3.DataError, sqlite3.IntegrityError),
        types={"serial": "INTEGER PRIMARY KEY AUTOINCREMENT"},
    )


def postgresql(url: str) -> Engine:
    """The engine of a PostgreSQL database. Raises StoreError if its driver is not installed, or if
    the URL is wrong."""
    try:
        import psycopg
    except ImportError:
        raise StoreError(
            "a postgresql:// store needs psycopg: pip install '.[postgresql]' in the checkout"
        ) from None

    if fault := url_fault(url):
        raise StoreError(f"[store] url: {fault}")
    options: Any = {"connect_timeout": PATIENCE, "application_name": "pipecat-bridge"}

    def connect() -> Any:
        return psycopg.connect(url, **options)

    def peek() -> Any:
        at_once = {"connect_timeout": MOMENT, "tcp_user_timeout": MOMENT * 1000}
        connection = psycopg.connect(url, **{**options, **at_once})
        connection.execute(f"SET statement_timeout = {MOMENT * 1000}")
        return connection

    def pool() -> ConnectionPool:
        return ConnectionPool(
            "psycopg",
            url,
            **options,
            cp_min=1,
            cp_max=READERS,
            cp_reconnect=True,
            cp_good_sql="SELECT 1",
        )

    of_entry = (
        psycopg.DataError,
        psycopg.IntegrityError,
        psycopg.errors.ProgramLimitExceeded,  # a value is too long for an index
    )
    parts = psycopg.conninfo.conninfo_to_dict(url)
    return Engine(
        name="postgresql",
        place=f"postgresql://{parts.get('host', '')}/{parts.get('dbname', '')}",
        connect=connect,
        peek=peek,
        pool=pool,
        sweep=lambda connection: True,  # the server does that itself
        error=psycopg.Error,
        of_entry=of_entry,
        types={"serial": "BIGSERIAL PRIMARY KEY"},
        secrets=tuple(str(parts[name]) for name in _SECRETS if parts.get(name)),
    )


def url_fault(url: str) -> str:
    """Why `[store] url` cannot be used, without a word of it; "" if it can."""
    if url.startswith(SQLITE):
        return ""
    if not url.startswith(POSTGRESQL):
        return NEITHER
    try:
        from psycopg import Error
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        return ""  # that is another fault
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except (Error, ValueError):
        return UNREADABLE
    ports = parts.get("port", "").split(",")
    if "@" in parts.get("host", "") or not all(each.isdecimal() or not each for each in ports):
        return UNREADABLE  # a part of the password was taken for another part
    return ""


def engine_of(url: str) -> Engine:
    """The engine of `[store] url`. Raises StoreError."""
    if url.startswith(POSTGRESQL):
        return postgresql(url)
    if url.startswith(SQLITE):
        return sqlite(Path("/" + url.removeprefix(SQLITE).lstrip("/")))
    raise StoreError(f"[store] url: {NEITHER}")
