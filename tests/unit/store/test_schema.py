"""The tables are made once, in order, and a newer store is left alone."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.store import schema
from pipecat_bridge.store.engine import (
    Engine,
    StoreError,
    engine_of,
    postgresql,
    sqlite,
    url_fault,
)
from tests.unit.files import scratch


class MigrationTests(SynchronousTestCase):
    listing = "SELECT name FROM sqlite_master WHERE type = 'table'"

    def make_engine(self) -> Engine:
        return sqlite(scratch(self))

    def setUp(self) -> None:
        self.engine = self.make_engine()
        self.connection = self.engine.connect()
        self.addCleanup(self.connection.close)

    def tables(self) -> set[str]:
        rows = self.connection.execute(self.listing).fetchall()
        self.connection.rollback()
        return {name for (name,) in rows if not name.startswith("sqlite_")}

    def check_idle(self) -> None:
        """Another connection may change the schema: no transaction is open."""
        other = self.engine.connect()
        other.execute("DROP TABLE applied")
        other.rollback()
        other.close()

    def test_a_new_store(self) -> None:
        schema.migrate(self.connection, self.engine)
        names = {"schema_version", "calls", "events", "deliveries", "hooks_off", "applied"}
        self.assertEqual(self.tables(), names)
        self.check_idle()

    def test_a_second_start_changes_nothing(self) -> None:
        schema.migrate(self.connection, self.engine)
        self.connection.execute("INSERT INTO applied VALUES ('a', 7)")
        self.connection.commit()
        other = self.engine.connect()
        self.addCleanup(other.close)
        schema.migrate(other, self.engine)
        self.assertEqual(other.execute("SELECT number FROM applied").fetchall(), [(7,)])

    def test_an_older_store(self) -> None:
        schema.migrate(self.connection, self.engine)
        self.patch(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE more (x INTEGER)",)))
        self.patch(schema, "VERSION", len(schema.MIGRATIONS))
        schema.migrate(self.connection, self.engine)
        self.assertIn("more", self.tables())

    def test_a_step_that_fails_leaves_nothing_behind(self) -> None:
        bad = ("CREATE TABLE more (x INTEGER)", "CREATE TABLE more (x INTEGER)")
        self.patch(schema, "MIGRATIONS", (*schema.MIGRATIONS, bad))
        self.patch(schema, "VERSION", len(schema.MIGRATIONS))
        with self.assertRaisesRegex(Exception, "more"):
            schema.migrate(self.connection, self.engine)
        self.connection.rollback()
        self.assertNotIn("more", self.tables())
        self.assertIn("calls", self.tables())

    def test_a_newer_store_is_refused(self) -> None:
        schema.migrate(self.connection, self.engine)
        self.connection.execute("UPDATE schema_version SET version = 99")
        self.connection.commit()
        for refuse in (lambda: schema.migrate(self.connection, self.engine), self.check):
            with self.assertRaisesRegex(StoreError, "version 99, and this program knows versions"):
                refuse()
        self.check_idle()

    def check(self) -> None:
        schema.check(self.engine)

    def test_a_look_at_the_start(self) -> None:
        self.check()  # there are no tables yet
        schema.migrate(self.connection, self.engine)
        self.check()
        self.check_idle()


class EngineTests(SynchronousTestCase):
    def test_urls(self) -> None:
        self.assertEqual(engine_of("sqlite:////var/lib/x.db").name, "sqlite")
        for url in ("mysql://x", "x", ""):
            with self.assertRaisesRegex(StoreError, "expected sqlite:///, postgresql:// or none"):
                engine_of(url)

    def test_a_file_that_is_not_there_is_not_made(self) -> None:
        path = scratch(self)
        schema.check(sqlite(path))
        self.assertFalse(path.exists())
        path.write_bytes(b"no database " * 100)
        schema.check(sqlite(path))

    def test_a_server_that_is_away_is_no_fault_at_the_start(self) -> None:
        schema.check(postgresql("postgresql://nobody@127.0.0.1:1/x"))

    def test_statements(self) -> None:
        one = postgresql("postgresql://db.example/calls")
        self.assertEqual(one.sql("a {serial}, ?, ?"), "a BIGSERIAL PRIMARY KEY, %s, %s")

    def test_passwords_are_not_shown(self) -> None:
        for url, place in (
            ("postgresql:///db?user=x&password=SECRET", "postgresql:///db"),
            ("postgresql://user:p#SECRET@host/db", "postgresql://host/db"),
            ("postgres://user:SECRET@a,b:5433/db?sslpassword=SECRET2", "postgresql://a,b/db"),
        ):
            with self.subTest(url=url):
                one = postgresql(url)
                self.assertEqual((one.place, url_fault(url)), (place, ""))
                self.assertNotIn("SECRET", one.told(ValueError(f"no\nway {url} {one.secrets}")))

    def test_urls_that_are_wrong(self) -> None:
        for url in (
            "postgresql://user:p%SECRET@host/db",
            "postgresql://user:p@SECRET@host/db",
            "postgresql://user:SEC RET@host/db",
            "postgresql://user@host:SECRET/db",
            "postgresql://user:SECRET:x@host/db?SECRET=1",
            "SECRET",
        ):
            with self.subTest(url=url):
                fault = url_fault(url)
                self.assertIn("expected", fault)
                self.assertNotIn("SEC", fault)
                with self.assertRaises(StoreError) as raised:
                    engine_of(url)
                self.assertEqual(str(raised.exception), f"[store] url: {fault}")
        self.assertEqual(url_fault("sqlite:////x"), "")
