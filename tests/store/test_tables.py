"""What is tested of the tables with SQLite is so with PostgreSQL as well."""

from __future__ import annotations

import pytest

from pipecat_bridge.store.engine import Engine, postgresql
from tests.store.postgresql import PostgreSQL
from tests.unit.store import test_outbox, test_recovery, test_schema, test_tables


@pytest.fixture(autouse=True)
def empty(postgresql: PostgreSQL, request: pytest.FixtureRequest) -> None:
    """Each test gets an empty database."""
    connection = engine_of(postgresql).connect()
    connection.execute("DROP SCHEMA public CASCADE")
    connection.execute("CREATE SCHEMA public")
    connection.commit()
    connection.close()
    request.cls.url = postgresql.url


def engine_of(server: PostgreSQL) -> Engine:
    """The engine of the server's database."""
    return postgresql(server.url)


class OnPostgreSQL:
    """The engine of a test."""

    url: str

    def make_engine(self) -> Engine:
        """The engine of the suite's server."""
        return postgresql(self.url)


class ApplyTests(OnPostgreSQL, test_tables.ApplyTests):
    """Entries are applied in order and once."""


class PageTests(OnPostgreSQL, test_tables.PageTests):
    """Pages of the list."""


class EventTests(OnPostgreSQL, test_tables.EventTests):
    """Events."""


class OutboxTests(OnPostgreSQL, test_outbox.OutboxTests):
    """Events for webhooks."""


class RecoveryTests(OnPostgreSQL, test_recovery.RecoveryTests):
    """Calls of a process that was killed."""


class MigrationTests(OnPostgreSQL, test_schema.MigrationTests):
    """The store of older and newer versions."""

    listing = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
