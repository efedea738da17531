"""A database of PostgreSQL that refuses to be written costs no entry."""

from __future__ import annotations

import pytest

from pipecat_bridge.store.engine import postgresql as engine_of
from pipecat_bridge.store.entries import encode
from tests.store.postgresql import PostgreSQL
from tests.unit.store.test_tables import call
from tests.unit.store.test_writer import WriterCase, names

CLEAN = "ALTER DATABASE postgres RESET default_transaction_read_only"
READ_ONLY = "ALTER DATABASE postgres SET default_transaction_read_only = on"
DISCONNECT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
)


@pytest.fixture(autouse=True)
def empty(postgresql: PostgreSQL, request: pytest.FixtureRequest) -> None:
    """Each test gets an empty database that can be written."""
    connection = engine_of(postgresql.url).connect()
    connection.autocommit = True
    for statement in ("SET default_transaction_read_only = off", CLEAN):
        connection.execute(statement)
    connection.execute("DROP SCHEMA public CASCADE")
    connection.execute("CREATE SCHEMA public")
    connection.close()
    request.cls.url = postgresql.url


class RefusedTests(WriterCase):
    """What the server refuses now, it takes later."""

    url: str

    def setUp(self) -> None:
        super().setUp()
        self.engine = engine_of(self.url)

    def execute(self, *statements: str) -> None:
        """As the operator."""
        connection = self.engine.connect()
        connection.autocommit = True
        connection.execute("SET default_transaction_read_only = off")
        for statement in statements:
            connection.execute(statement)
        connection.close()

    def check(self, refuse: tuple[str, ...], allow: tuple[str, ...], told: str) -> None:
        made = self.make()
        self.put(made, 1, 5)
        self.until(lambda: self.applied == 5)
        self.execute(*refuse)
        self.put(made, 6, 10)
        self.until(lambda: told in made.away)
        self.assertEqual((made.waiting, made.dropped), (5, 0))
        self.execute(*allow)
        self.until(lambda: self.applied == 10)
        self.assertEqual((self.events(), made.dropped, self.faults), (names(1, 10), 0, []))

    def test_read_only(self) -> None:
        self.check((READ_ONLY, DISCONNECT), (CLEAN, DISCONNECT), "read-only")

    def test_a_table_that_is_missing(self) -> None:
        away = ("ALTER TABLE events RENAME TO hidden",)
        self.check(away, ("ALTER TABLE hidden RENAME TO events",), "does not exist")

    def test_a_value_that_is_too_long_for_an_index(self) -> None:
        made = self.make()
        caller = "".join(chr(0x4E00 + at) for at in range(9000))
        made.put(encode(call("a", 1.0, caller=caller)))
        self.put(made, 1, 3)
        self.until(lambda: self.applied == 4)
        self.assertEqual((self.events(), made.dropped, len(self.faults)), (names(1, 3), 1, 1))
