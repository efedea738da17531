"""Events for webhooks are kept until they are delivered or dead."""

from __future__ import annotations

from pipecat_bridge.store import outbox, tables
from pipecat_bridge.store.entries import CallEntry, DeleteEntry, EventEntry, encode
from pipecat_bridge.store.journal import Entry
from pipecat_bridge.store.outbox import Depth
from tests.unit.store.test_tables import TablesCase, call, event

HOOKS = {"crm": {"turn", "dtmf"}, "alerts": {"dtmf"}}


class OutboxTests(TablesCase):
    def apply(self, *entries: CallEntry | EventEntry | DeleteEntry) -> None:
        numbered = [Entry(self.number + at, encode(each)) for at, each in enumerate(entries, 1)]
        self.number += len(entries)
        tables.apply(self.cursor, self.engine, "pbx", numbered, HOOKS)

    def setUp(self) -> None:
        super().setUp()
        self.apply(event("e1", "a"), event("e2", "a", "dtmf"), event("e3", "b", "other"))

    def due(self, hook: str, now: float = 10.0) -> list[str]:
        found = outbox.next_ones(self.cursor, self.engine, "pbx", hook, 9)
        return [each.event.id for due, each in found if due <= now]

    def dead(self, hook: str) -> list[tuple[str, str]]:
        found = outbox.dead(self.cursor, self.engine, hook, 0, 9)
        return [(each.event.id, each.told) for each in found]

    def note(self, at: int, state: str, told: str = "", next_due: float = 0.0) -> None:
        found = outbox.next_ones(self.cursor, self.engine, "pbx", "crm", 9)
        outbox.note(self.cursor, self.engine, found[at][1].number, state, told, next_due)

    def test_each_hook_gets_its_kinds_once(self) -> None:
        self.assertEqual((self.due("crm"), self.due("alerts")), (["e1", "e2"], ["e2"]))
        self.number = 0
        self.apply(event("e1", "a"))  # as after a crash of the database
        self.number = 3
        self.apply(event("e1", "a"))
        self.assertEqual(self.due("crm"), ["e1", "e2"])

    def test_what_is_delivered_is_done(self) -> None:
        self.note(0, "delivered", "200")
        self.assertEqual(self.due("crm"), ["e2"])
        self.assertEqual(outbox.depth(self.cursor, self.engine, "crm"), Depth(1, 1.5, 0))

    def test_what_waits_longer(self) -> None:
        self.note(0, "waiting", "500", next_due=100.0)
        self.assertEqual((self.due("crm"), self.due("crm", 100.0)), (["e2"], ["e2", "e1"]))
        self.note(0, "delivered")
        [(due, late)] = outbox.next_ones(self.cursor, self.engine, "pbx", "crm", 9)
        self.assertEqual((due, late.attempts, late.told), (100.0, 1, "500"))

    def test_each_process_sends_what_has_happened_there(self) -> None:
        self.assertEqual(outbox.next_ones(self.cursor, self.engine, "other", "crm", 9), [])

    def test_dead_letters_are_sent_again(self) -> None:
        self.note(0, "dead", "400")
        self.note(0, "dead", "404")
        self.assertEqual(self.dead("crm"), [("e1", "400"), ("e2", "404")])
        self.assertEqual(outbox.depth(self.cursor, self.engine, "crm"), Depth(0, None, 2))
        [_, second] = outbox.dead(self.cursor, self.engine, "crm", 0, 9)
        again = outbox.send_again(self.cursor, self.engine, "crm", 5.0, second.number)
        self.assertEqual((again, self.due("crm")), (1, ["e2"]))
        self.assertEqual(outbox.send_again(self.cursor, self.engine, "crm", 6.0), 1)
        self.assertEqual((self.due("crm"), self.dead("crm")), (["e2", "e1"], []))

    def test_a_hook_that_is_switched_off(self) -> None:
        outbox.switch_off(self.cursor, self.engine, "crm", 7.0, "410 Gone")
        self.assertEqual(outbox.why_off(self.cursor, self.engine, "crm"), "410 Gone")
        self.assertEqual(outbox.why_off(self.cursor, self.engine, "alerts"), "")
        self.assertEqual((self.due("crm"), len(self.dead("crm"))), ([], 2))
        self.assertEqual(self.due("alerts"), ["e2"])
        self.apply(event("e4", "a"))
        self.assertEqual((self.due("crm"), self.dead("crm")[-1]), ([], ("e4", "410 Gone")))
        outbox.send_again(self.cursor, self.engine, "crm", 8.0)
        self.assertEqual(outbox.why_off(self.cursor, self.engine, "crm"), "")

    def test_what_is_deleted_is_not_sent(self) -> None:
        self.apply(call("a", 1.0), DeleteEntry(call_id="a"))
        self.assertEqual((self.due("crm"), self.due("alerts")), ([], []))
        self.cursor.execute("SELECT count(*) FROM deliveries")
        self.assertEqual(self.cursor.fetchone(), (0,))
