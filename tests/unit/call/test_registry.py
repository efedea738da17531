"""The registry: which calls are accepted, which calls run, and records of the last ended calls."""

from __future__ import annotations

from unittest.mock import patch
from uuid import uuid4

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call import registry
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.registry import UnknownCallError
from tests.unit.sides import Exchange, PhoneSide

UUID = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"


class PrepareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange(prepared_ttl=60.0)
        self.calls = self.exchange.calls

    def test_what_was_prepared_goes_with_the_call_once(self) -> None:
        self.assertEqual(self.calls.prepare(UUID.upper(), {"llm_key": "k"}, {"caller": "1"}), 60.0)
        call, _, bot = self.exchange.call(UUID)
        self.assertEqual(bot.request.call_id, UUID)
        self.assertEqual(bot.request.parameters, {"llm_key": "k"})
        self.assertEqual(call.metadata, {"caller": "1"})
        self.assertIsNone(self.calls.prepared(UUID))
        call.stop()
        call, _, bot = self.exchange.call(UUID)
        self.assertEqual((bot.request.parameters, call.metadata), ({}, {}))

    def test_the_last_word_counts(self) -> None:
        self.calls.prepare(UUID, {"llm_type": "a"}, {"caller": "1"})
        self.calls.prepare(UUID, {"stt_type": "b"}, {})
        _, _, bot = self.exchange.call(UUID)
        self.assertEqual((bot.request.parameters, bot.request.metadata), ({"stt_type": "b"}, {}))

    def test_it_expires(self) -> None:
        self.calls.prepare(UUID, {"llm_key": "k"}, {})
        self.exchange.clock.advance(59.9)
        self.assertIsNotNone(self.calls.prepared(UUID))
        self.exchange.clock.advance(0.2)
        self.assertIsNone(self.calls.prepared(UUID))

    def test_it_expires_for_a_call_that_comes_too_late(self) -> None:
        self.calls.prepare(UUID, {"llm_key": "k"}, {"caller": "1"})
        self.exchange.clock.advance(60.1)
        call, _, bot = self.exchange.call(UUID)
        self.assertEqual((bot.request.parameters, call.metadata), ({}, {}))

    def test_preparing_again_keeps_it_longer(self) -> None:
        self.calls.prepare(UUID, {}, {})
        self.exchange.clock.advance(59.0)
        other = str(uuid4())
        self.calls.prepare(other, {}, {})
        self.calls.prepare(UUID, {}, {})
        self.exchange.clock.advance(59.0)
        self.assertIsNotNone(self.calls.prepared(UUID))
        self.exchange.clock.advance(1.0)
        self.assertIsNone(self.calls.prepared(other))

    def test_only_uuids_in_their_36_characters(self) -> None:
        for bad in ("", "42", UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}", UUID + "0"):
            with self.assertRaisesRegex(ValueError, "not a UUID in its 36-character form"):
                self.calls.prepare(bad, {}, {})

    def test_not_while_it_runs(self) -> None:
        self.exchange.call(UUID)
        with self.assertRaisesRegex(ValueError, "running already"):
            self.calls.prepare(UUID.upper(), {}, {})

    def test_never_more_than_the_limit_and_reading_costs_none(self) -> None:
        ids = [str(uuid4()) for _ in range(6)]
        with patch.object(registry, "MAX_PREPARED", 5):
            for call_id in ids:
                self.calls.prepare(call_id, {}, {})
            for _ in range(3):
                found = [call_id for call_id in ids if self.calls.prepared(call_id)]
                self.assertEqual(found, ids[1:])
            self.exchange.call(ids[1])
            self.assertIsNotNone(self.calls.prepared(ids[2]))


class RefusalTests(SynchronousTestCase):
    def refused(self, exchange: Exchange, call_id: str) -> str:
        """The reason with which one more phone is refused."""
        phone = PhoneSide(exchange.clock, "10.0.0.9:5")
        before = exchange.calls.outcomes["rejected"]
        self.assertIsNone(exchange.calls.answer(call_id, phone))
        self.assertEqual(exchange.calls.outcomes["rejected"], before + 1)
        event = exchange.told[-1]
        self.assertEqual((event.kind, event.call_id), ("rejected", call_id))
        self.assertEqual(event.data["peer"], "10.0.0.9:5")
        reason: str = event.data["reason"]
        return reason

    def test_a_uuid_that_is_in_a_call(self) -> None:
        exchange = Exchange()
        call, phone, bot = exchange.talk(UUID)
        self.assertIn("running already", self.refused(exchange, UUID))
        self.assertEqual(exchange.calls.running, [call])
        self.assertEqual((phone.hangups, bot.stops, len(exchange.runner.bots)), ([], 0, 1))
        self.assertIsNone(call.outcome)

    def test_a_uuid_that_was_in_a_call_may_come_again(self) -> None:
        exchange = Exchange()
        first, _, _ = exchange.talk(UUID)
        first.phone_gone()
        second, _, _ = exchange.talk(UUID)
        self.assertEqual(exchange.calls.record(UUID)["state"], "talking")
        second.bot_lost("connection", "reset")
        self.assertEqual(exchange.calls.record(UUID)["outcome"], "bot-hangup")

    def test_max_calls(self) -> None:
        exchange = Exchange(max_calls=2)
        first, _, _ = exchange.call()
        self.assertFalse(exchange.calls.full)
        exchange.call()
        self.assertTrue(exchange.calls.full)
        self.assertIn("2 calls run, the limit of", self.refused(exchange, str(uuid4())))
        first.stop()
        self.assertFalse(exchange.calls.full)
        exchange.call()

    def test_what_is_said_of_a_call_that_was_refused(self) -> None:
        exchange = Exchange(max_calls=1)
        exchange.calls.prepare(UUID, {}, {})
        exchange.call()
        reason = self.refused(exchange, UUID)
        record = exchange.calls.record(UUID)
        self.assertEqual((record["state"], record["outcome"]), ("ended", "rejected"))
        self.assertEqual(record["reason"], reason)
        self.assertIsNone(exchange.calls.prepared(UUID))

    def test_draining(self) -> None:
        exchange = Exchange()
        call, phone, _ = exchange.talk()
        exchange.calls.drain()
        self.assertIn("being stopped", self.refused(exchange, str(uuid4())))
        self.assertEqual((call.outcome, phone.hangups), (None, []))


class EndTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange(keep_ended=3)
        self.calls = self.exchange.calls

    def test_running_and_ended(self) -> None:
        call, _, _ = self.exchange.talk(UUID)
        self.assertEqual((self.calls.running, self.calls.ended), ([call], []))
        self.assertIs(self.calls.get(UUID.upper()), call)
        call.phone_gone()
        self.assertEqual(self.calls.running, [])
        [record] = self.calls.ended
        self.assertEqual(record, self.calls.record(UUID.upper()))
        self.assertEqual((record["id"], record["outcome"]), (UUID, "caller-hangup"))
        self.assertEqual(record["events"][-1]["kind"], "terminated")
        with self.assertRaises(UnknownCallError):
            self.calls.get(UUID)

    def test_unknown(self) -> None:
        for ask in (self.calls.get, self.calls.record):
            with self.assertRaises(UnknownCallError):
                ask("42")

    def test_the_last_records_are_kept(self) -> None:
        ids = [str(uuid4()) for _ in range(5)]
        for call_id in [*ids, ids[2]]:  # the last one for the second time
            self.exchange.talk(call_id)[0].stop()
        kept = [record["id"] for record in self.calls.ended]
        self.assertEqual(kept, [ids[3], ids[4], ids[2]])

    def test_none_is_kept_when_none_is_to_be(self) -> None:
        exchange = Exchange(keep_ended=0)
        exchange.talk(UUID)[0].stop()
        self.assertEqual(exchange.calls.ended, [])

    def test_outcomes_are_counted(self) -> None:
        for _ in range(2):
            self.exchange.talk()[0].phone_gone()
        self.exchange.call()[0].bot_failed("503", "runner")
        counted = {name: count for name, count in self.calls.outcomes.items() if count}
        self.assertEqual(counted, {"caller-hangup": 2, "runner-failed": 1})

    def test_who_asked_is_told_while_the_sides_are_there(self) -> None:
        told: list[tuple[str, int]] = []
        self.calls.on_ended(lambda call: told.append((call.call_id, call.phone.stats.frames_in)))
        call, phone, _ = self.exchange.talk(UUID)
        phone.stats.frames_in = 7
        call.stop()
        self.assertEqual(told, [(UUID, 7)])

    def test_idle(self) -> None:
        self.successResultOf(self.calls.idle())
        first, second = self.exchange.talk()[0], self.exchange.talk()[0]
        idle, cancelled = self.calls.idle(), self.calls.idle()
        cancelled.cancel()
        self.failureResultOf(cancelled)
        first.stop()
        self.assertNoResult(idle)
        second.stop()
        self.successResultOf(idle)
        self.assertEqual(len(self.calls.ended), 2)

    def test_a_listener_that_fails_does_not_keep_a_call(self) -> None:
        def fails(_: object) -> None:
            raise ValueError("told to")

        self.exchange.calls.events.subscribe(fails)
        self.calls.on_ended(fails)
        call = self.exchange.talk()[0]
        idle = self.calls.idle()
        call.stop()
        self.successResultOf(idle)
        self.assertEqual((self.calls.running, len(self.calls.ended)), ([], 1))
        self.assertTrue(self.flushLoggedErrors(ValueError))

    def test_stop_all(self) -> None:
        phones = [self.exchange.talk()[1] for _ in range(3)]
        self.calls.stop_all()
        self.assertEqual(self.calls.outcomes[Outcome.DRAINED.value], 3)
        self.assertEqual([len(phone.hangups) for phone in phones], [1, 1, 1])
        self.successResultOf(self.calls.idle())
        reasons = {record["reason"] for record in self.calls.ended}
        self.assertEqual(reasons, {"the daemon was stopped"})
