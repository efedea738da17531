"""The registry: which calls are accepted, which calls run, and records of the last ended calls."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import UNSET
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call import ended, preparations
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.preparations import NoRoomError
from pipecat_bridge.call.record import LISTED, listed, record
from pipecat_bridge.call.registry import Calls, UnknownCallError
from pipecat_bridge.events.kinds import CallEnded
from pipecat_bridge.events.log import LINES, EventLog
from pipecat_bridge.events.notes import Rejected
from pipecat_bridge.wire.rtvi import UserTranscription
from tests.unit.sides import Exchange, PhoneSide


def ended_calls(calls: Calls) -> list[dict[str, Any]]:
    """What the list shows of the ended calls."""
    return [json.loads(bytes(each)) for each in calls.ended]


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

    def test_more_than_the_limit_is_refused_and_nothing_is_lost(self) -> None:
        ids = [str(uuid4()) for _ in range(6)]
        self.patch(preparations, "MAX_CALLS", 5)
        for call_id in ids[:5]:
            self.calls.prepare(call_id, {}, {})
        with self.assertRaisesRegex(NoRoomError, "5 calls are prepared already"):
            self.calls.prepare(ids[5], {}, {})
        self.calls.prepare(ids[0], {}, {"caller": "1"})  # one that is among them
        self.assertTrue(all(self.calls.prepared(call_id) for call_id in ids[:5]))
        self.exchange.call(ids[1])
        self.calls.prepare(ids[5], {}, {})

    def test_their_bytes_have_a_limit_too(self) -> None:
        ids = [str(uuid4()) for _ in range(4)]
        self.patch(preparations, "MAX_BYTES", 3500)
        data = {"x": "y" * 1000}
        for call_id in ids[:3]:
            self.calls.prepare(call_id, {}, data)
        for call_id in (ids[3], ids[3].upper()):
            with self.assertRaisesRegex(NoRoomError, "has more than 3500 bytes"):
                self.calls.prepare(call_id, {}, data)
        with self.assertRaises(NoRoomError):
            self.calls.prepare(ids[0], {}, {"x": "y" * 2000})
        self.assertTrue(all(self.calls.prepared(call_id) for call_id in ids[:3]))
        for _ in range(10):  # what is prepared again takes the place of what was there
            self.calls.prepare(ids[0], {}, data)
        self.exchange.call(ids[0])
        self.calls.prepare(ids[3], {}, data)
        self.exchange.clock.advance(60.0)
        for _ in range(3):
            self.calls.prepare(str(uuid4()), {}, data)

    def test_what_comes_out_is_what_went_in(self) -> None:
        data = {"a": [1, 2.5, None, True, 1 << 70], "ä": {"\x00": "\U0001f600"}, "": []}
        self.calls.prepare(UUID, {"llm_messages": [data]}, data, ["looks odd"])
        call, _, bot = self.exchange.call(UUID)
        self.assertEqual((bot.request.parameters, call.metadata), ({"llm_messages": [data]}, data))
        self.assertEqual(record(call).warnings, {"metadata": 1})

    def test_small_data_with_many_objects_takes_no_more_than_its_bytes(self) -> None:
        data = {"a": [[] for _ in range(20_000)]}  # 60 KB of JSON, and 1.3 MB of objects
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            self.calls.prepare(str(uuid4()), {}, data)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 2_000_000)


class RefusalTests(SynchronousTestCase):
    def refused(self, exchange: Exchange, call_id: str) -> str:
        """The reason with which one more phone is refused."""
        phone = PhoneSide(exchange.clock, "10.0.0.9:5")
        before, told = exchange.calls.outcomes["rejected"], len(exchange.told)
        self.assertIsNone(exchange.calls.answer(call_id, phone))
        self.assertEqual(exchange.calls.outcomes["rejected"], before + 1)
        [event] = [event for event in exchange.told[told:] if event.kind == "rejected"]
        assert isinstance(event.data, Rejected)
        self.assertEqual((event.call_id, event.data.peer), (call_id, "10.0.0.9:5"))
        return event.data.reason

    def test_a_uuid_that_is_in_a_call(self) -> None:
        exchange = Exchange()
        call, phone, bot = exchange.talk(UUID)
        self.assertIn("running already", self.refused(exchange, UUID))
        self.assertEqual(exchange.kinds()[-2:], ["call.ready", "rejected"])
        self.assertEqual(exchange.calls.running, [call])
        self.assertEqual((phone.hangups, bot.stops, len(exchange.runner.bots)), ([], 0, 1))
        self.assertIsNone(call.outcome)

    def test_a_uuid_that_was_in_a_call_may_come_again(self) -> None:
        exchange = Exchange()
        first, _, _ = exchange.talk(UUID)
        first.phone_gone()
        second, _, _ = exchange.talk(UUID)
        self.assertEqual(exchange.calls.record(UUID).state, "talking")
        second.bot_lost("connection", "reset")
        self.assertEqual(exchange.calls.record(UUID).outcome, "bot-hangup")

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
        self.assertEqual((record.state, record.outcome), ("ended", "rejected"))
        self.assertEqual((record.reason, record.ended_by), (reason, "operator"))
        self.assertIs(record.quality, UNSET)
        self.assertEqual(exchange.told[-1].data, CallEnded(record))
        self.assertIsNone(exchange.calls.prepared(UUID))

    def test_the_last_word_of_a_uuid_whatever_the_wall_clock_says(self) -> None:
        exchange = Exchange(max_calls=1)
        first, _, _ = exchange.call(UUID)
        first.phone_gone()
        exchange.set_back += 7200.0
        other, _, _ = exchange.call()
        self.refused(exchange, UUID)
        self.assertEqual(exchange.calls.record(UUID).outcome, "rejected")
        exchange.set_back += 7200.0
        other.phone_gone()
        second, _, _ = exchange.call(UUID)
        second.stop()
        self.assertEqual(exchange.calls.record(UUID).outcome, "stopped")

    def test_many_of_them_do_not_fill_the_log(self) -> None:
        exchange = Exchange(max_calls=1)
        exchange.call()
        exchange.events.subscribe(EventLog())
        with capturedLogs() as captured:
            for _ in range(1000):
                exchange.calls.answer(str(uuid4()), PhoneSide(exchange.clock))
        self.assertTrue(LINES <= len(captured) <= 2 * LINES, len(captured))

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
        [shown] = ended_calls(self.calls)
        kept = self.calls.record(UUID.upper())
        self.assertEqual(kept, record(call))
        whole = msgspec.to_builtins(kept)
        self.assertEqual(shown, {name: whole[name] for name in shown})
        self.assertEqual((kept.id, kept.outcome), (UUID, "caller-hangup"))
        with self.assertRaises(UnknownCallError):
            self.calls.get(UUID)

    def test_what_was_told_and_said_is_there_after_the_end(self) -> None:
        call, _, _ = self.exchange.talk(UUID)
        call.bot_event(UserTranscription("hello"))
        call.phone_gone()
        [turn] = self.calls.turns(UUID.upper())
        self.assertEqual((turn, turn.text), (self.exchange.told[-2].data, "hello"))
        kinds = [event.kind for event in self.calls.history(UUID.upper())]
        self.assertEqual([*kinds, "call.ended"], self.exchange.kinds())

    def test_unknown(self) -> None:
        for ask in (self.calls.get, self.calls.record, self.calls.turns, self.calls.history):
            with self.assertRaises(UnknownCallError):
                ask("42")

    def test_the_last_records_are_kept(self) -> None:
        ids = [str(uuid4()) for _ in range(5)]
        for call_id in [*ids, ids[2]]:  # the last one for the second time
            self.exchange.talk(call_id)[0].stop()
        kept = [each["id"] for each in ended_calls(self.calls)]
        self.assertEqual(kept, [ids[3], ids[4], ids[2]])

    def test_their_bytes_have_a_limit_too(self) -> None:
        exchange = Exchange(keep_ended=200)
        self.patch(ended, "MAX_BYTES", 100_000)
        ids = [str(uuid4()) for _ in range(40)]
        for call_id in ids:
            exchange.calls.prepare(call_id, {}, {"x": "y" * 10_000})
            exchange.talk(call_id)[0].stop()
        kept = [each["id"] for each in ended_calls(exchange.calls)]
        self.assertTrue(5 < len(kept) < 10)
        self.assertEqual(kept, ids[-len(kept) :], "the last ones")
        for call_id in kept[::-1] * 20:  # an id that comes again takes the place of the first
            exchange.talk(call_id)[0].stop()
        self.assertEqual(len(exchange.calls.ended), len(kept))

    def test_the_list_has_no_long_metadata(self) -> None:
        for size, shown in ((LISTED - 8, True), (LISTED - 7, False), (60_000, False)):
            metadata = {"x": "y" * size}
            self.calls.prepare(UUID, {}, metadata)
            call = self.exchange.talk(UUID)[0]
            wanted = metadata if shown else {"omitted": f"{size + 8} bytes"}
            self.assertEqual(listed(call).metadata, wanted)
            self.assertEqual(self.calls.record(UUID).metadata, metadata)
            call.stop()
            self.assertEqual(ended_calls(self.calls)[-1]["metadata"], wanted)
            self.assertEqual(self.calls.record(UUID).metadata, metadata)

    def test_a_record_that_cannot_be_kept_does_not_keep_the_call(self) -> None:
        self.patch(ended, "record", lambda _: object())
        call = self.exchange.talk()[0]
        idle = self.calls.idle()
        call.stop()
        self.successResultOf(idle)
        self.assertTrue(self.flushLoggedErrors(TypeError))

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
        reasons = {each["reason"] for each in ended_calls(self.calls)}
        self.assertEqual(reasons, {"the daemon was stopped"})
