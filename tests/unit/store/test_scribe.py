"""Each event is written at once, and the record of a call as often as it has to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.events.kinds import CallEnded, Data, Dtmf, Turn, Variables
from pipecat_bridge.events.record import REJECTED, Record
from pipecat_bridge.store.entries import CallEntry, EventEntry, decode
from pipecat_bridge.store.scribe import Scribe
from tests.unit.store.test_tables import record

TURN = Turn("caller", "Good Morning", 1.0, 2.0)


def made(call_id: str, **changes: Any) -> Record:
    return replace(msgspec.json.decode(record(call_id, 1.0), type=Record), **changes)


class ScribeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[CallEntry | EventEntry] = []
        self.asked = 0
        self.broken = ""
        self.scribe = Scribe(self.put, self.snapshot, self.clock)

    def put(self, body: bytes) -> None:
        entry = decode(body)
        assert isinstance(entry, CallEntry | EventEntry)
        self.written.append(entry)

    def snapshot(self, call_id: str) -> tuple[Record, Sequence[Turn]]:
        self.asked += 1
        if call_id == self.broken:
            raise ValueError(call_id)
        return made(call_id, variables={"n": f"{self.asked}"}), [TURN]

    def tell(self, data: Data, call_id: str = "a") -> None:
        self.scribe(CallEvent(call_id, 1.0, data))

    def calls(self, call_id: str = "a") -> list[CallEntry]:
        return [each for each in self.written if isinstance(each, CallEntry) and each.id == call_id]

    def test_the_first_change_is_written_at_once_without_the_transcript(self) -> None:
        self.tell(TURN)
        [call] = self.calls()
        self.assertEqual((bytes(call.transcript), call.words), (b"[]", ""))
        self.assertIsInstance(self.written[1], EventEntry)
        self.tell(Dtmf("1"))
        self.assertEqual((len(self.calls()), len(self.written)), (1, 3))

    def test_the_end_has_the_transcript(self) -> None:
        self.tell(TURN)
        self.tell(TURN)
        self.tell(CallEnded(made("a", outcome="completed")))
        last = self.calls()[-1]
        self.assertEqual((last.words, len(self.calls())), ("good morning", 2))
        self.assertEqual(msgspec.json.decode(last.transcript, type=list[Turn]), [TURN])
        self.clock.advance(5.0)
        self.assertEqual((len(self.calls()), self.clock.getDelayedCalls()), (2, []))

    def test_a_phone_that_was_refused(self) -> None:
        self.tell(CallEnded(made("a", outcome=REJECTED)))
        self.assertEqual((len(self.calls()), self.asked), (1, 0))

    def test_a_bot_that_changes_it_a_thousand_times(self) -> None:
        for _ in range(1000):
            self.tell(Variables({"x": "y"}))
            self.clock.advance(0.01)
        self.assertEqual(len(self.calls()), 10)
        self.assertEqual(self.asked, 10)
        self.clock.advance(1.0)
        self.assertEqual(len(self.calls()), 11)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_last_state_is_written_within_a_second(self) -> None:
        for call_id in ("a", "b"):
            self.tell(TURN, call_id)
            self.tell(TURN, call_id)
            self.clock.advance(0.4)
        self.clock.advance(0.2)
        self.assertEqual((len(self.calls("a")), len(self.calls("b"))), (2, 1))
        self.clock.advance(0.4)
        self.assertEqual((len(self.calls("a")), len(self.calls("b"))), (2, 2))

    def test_a_call_that_fails_costs_no_other(self) -> None:
        for call_id in ("a", "later", "b"):
            self.tell(TURN, call_id)
            self.tell(TURN, call_id)
        self.broken = "later"
        self.clock.advance(1.0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual([len(self.calls(each)) for each in ("a", "later", "b")], [2, 1, 2])

    def test_a_record_that_fails_costs_no_event(self) -> None:
        self.broken = "a"
        self.tell(TURN)
        self.tell(CallEnded(made("a", outcome="completed")))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)
        self.assertEqual([each.outcome for each in self.calls()], ["completed"])
        self.assertEqual(len(self.written), 3)

    def test_what_waits_is_written_at_the_end(self) -> None:
        self.tell(TURN)
        self.tell(TURN)
        self.scribe.stop()
        self.assertEqual((len(self.calls()), self.clock.getDelayedCalls()), (2, []))
