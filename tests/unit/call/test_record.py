"""The record of a call: what is known is in it, and what is not known is left out."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call.life import ENDED_BY, Outcome
from pipecat_bridge.call.record import listed, quality, record
from pipecat_bridge.call.transcript import NOTHING_TOLD
from pipecat_bridge.events.kinds import CallEnded
from pipecat_bridge.events.record import VERSION, BotRecord, Delay, Record, TranscriptPart
from pipecat_bridge.wire import rtvi
from tests.unit.sides import EPOCH, Exchange, PhoneSide

FIRST, SECOND, THIRD = (f"http://runner-{number}:8000" for number in (1, 2, 3))

LOUD = (3000).to_bytes(2, "little") * 160
SILENCE = bytes(320)


def shown(of: object) -> dict[str, Any]:
    """It as JSON."""
    text = msgspec.json.encode(of)
    members: dict[str, Any] = msgspec.json.decode(text)
    return members


class RecordCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange(on_bot_lost="restart")
        self.clock = self.exchange.clock

    def ended(self) -> Record:
        """The record of the last event."""
        data = self.exchange.told[-1].data
        assert isinstance(data, CallEnded)
        return data.record


class MemberTests(RecordCase):
    def test_a_call_that_has_just_begun(self) -> None:
        call_id = str(uuid4())
        call, _, _ = self.exchange.call(call_id)
        members = shown(record(call))
        for unknown in ("quality", "transcript", "talk"):
            del members[unknown]
        self.assertEqual(
            members,
            {
                "version": VERSION,
                "id": call_id,
                "node": "",
                "direction": "in",
                "state": "starting",
                "created_at": EPOCH,
                "answered_at": EPOCH,
                "peer": "127.0.0.1:40000",
                "metadata": {},
                "runner": FIRST,
                "variables": {},
                "errors": {},
                "warnings": {},
                "phone_codec": "linear",
                "phone_rate": 8000,
            },
        )

    def test_times_and_the_duration(self) -> None:
        call, phone, _ = self.exchange.call()
        phone.play(0.5)
        call.bot_ready("bot-ready")
        phone.play(1.0)
        self.assertIs(record(call).duration, UNSET)
        call.phone_gone()
        ended = self.ended()
        self.assertEqual(ended.duration, 1.5)
        for time, wanted in ((ended.ready_at, 0.5), (ended.ended_at, 1.5)):
            assert time is not UNSET
            self.assertApproximates(time - EPOCH, wanted, 1e-6)

    def test_who_calls_whom(self) -> None:
        for metadata, caller, called in (
            ({"caller": "+4930", "called": "600"}, "+4930", "600"),
            ({"caller": "", "called": 600}, UNSET, UNSET),
            ({"caller": ["+4930"]}, UNSET, UNSET),
        ):
            call_id = str(uuid4())
            self.exchange.calls.prepare(call_id, {}, metadata)
            call, _, _ = self.exchange.call(call_id)
            self.assertEqual((record(call).caller, record(call).called), (caller, called))
            created = self.exchange.data("call.created")[-1]
            self.assertEqual(created.get("caller", UNSET), caller)
            self.assertEqual(record(call).metadata, metadata)

    def test_the_list_has_the_same_without_what_is_measured(self) -> None:
        call, _, _ = self.exchange.talk()
        call.bot_event(rtvi.BotError("no key", fatal=False))
        whole, short = shown(record(call)), shown(listed(call))
        measured = {"bots", "phone_codec", "phone_rate", "quality", "talk", "transcript"}
        self.assertEqual(set(whole) - set(short), measured)
        self.assertEqual(short, {**{name: whole[name] for name in short}, "errors": {}})

    def test_it_can_be_read_again(self) -> None:
        call, phone, bot = self.exchange.talk()
        self.exchange.say(bot, 1.0)
        phone.play(1.0)
        call.stop()
        ended = self.ended()
        self.assertEqual(msgspec.json.decode(msgspec.json.encode(ended), type=Record), ended)


class BotsTests(RecordCase):
    def test_all_in_order(self) -> None:
        call, phone, _ = self.exchange.call()
        phone.play(0.2)
        call.bot_attempt_failed("http://busy:8000", "503")
        phone.play(0.1)
        call.bot_ready("bot-ready")
        phone.play(10.0)
        call.bot_lost("connection", "reset")
        phone.play(1.0)
        call.bot_ready("audio")
        phone.play(5.0)
        call.phone_gone()
        rounded = [
            BotRecord(**{name: near(value) for name, value in shown(bot).items()})
            for bot in self.ended().bots
        ]
        self.assertEqual(
            rounded,
            [
                BotRecord(runner="http://busy:8000", asked_at=0.0, ended_at=0.2, fault="503"),
                BotRecord(
                    runner=FIRST,
                    asked_at=0.2,
                    ready_at=0.3,
                    ready_by="bot-ready",
                    ended_at=10.3,
                    fault="reset",
                ),
                BotRecord(
                    runner=SECOND, asked_at=10.3, ready_at=11.3, ready_by="audio", ended_at=16.3
                ),
            ],
        )

    def test_a_bot_that_goes_with_the_call_has_a_fault_only_if_it_ended_the_call(self) -> None:
        for end, fault in (
            (lambda call: call.phone_gone(), UNSET),
            (lambda call: call.stop(), UNSET),
            (lambda call: call.bot_lost("connection", "reset"), "reset"),
            (lambda call: call.bot_lost("error", "no key"), "no key"),
        ):
            exchange = Exchange()
            call, _, _ = exchange.talk()
            end(call)
            [bot] = exchange.calls.record(call.call_id).bots
            self.assertEqual((bot.fault, bot.ended_at), (fault, EPOCH))

    def test_no_bot_came(self) -> None:
        exchange = Exchange(refuses="503")
        call, _, _ = exchange.call()
        [bot] = exchange.calls.record(call.call_id).bots
        self.assertEqual((bot.runner, bot.ready_at, bot.fault), (FIRST, UNSET, "503"))

    def test_no_other_bot_came(self) -> None:
        call, _, _ = self.exchange.talk()
        self.exchange.runner.refuses = "503"
        call.bot_lost("connection", "reset")
        lost, none = self.ended().bots
        self.assertEqual((lost.fault, none.runner, none.fault), ("reset", SECOND, "503"))


def near(value: Any) -> Any:
    """A time since the beginning; all else as it is."""
    return round(value - EPOCH, 3) if isinstance(value, float) else value


class ErrorTests(RecordCase):
    def test_by_category(self) -> None:
        call, _, _ = self.exchange.call()
        call.bot_attempt_failed("http://busy:8000", "503")
        call.bot_ready("bot-ready")
        for fatal in (False, False, True):
            call.bot_event(rtvi.BotError("no key", fatal=fatal))
        self.assertEqual(record(call).errors, {"start": 1, "reported": 2, "fatal": 1})
        told = [error["category"] for error in self.exchange.data("bot.error")]
        self.assertEqual(told, ["start", "reported", "reported", "fatal"])


class EndedByTests(RecordCase):
    def test_each_outcome_has_a_side(self) -> None:
        self.assertEqual(set(ENDED_BY), set(Outcome))

    def test_who_ended_it(self) -> None:
        for end, by in (
            (lambda call: call.phone_gone("hangup"), "caller"),
            (lambda call: call.phone_gone("lost"), "phone"),
            (lambda call: call.phone_gone("fault"), "phone"),
            (lambda call: call.phone_gone("bridge"), "bridge"),
            (lambda call: call.bot_lost("connection", ""), "bot"),
            (lambda call: call.bot_broken(""), "bridge"),
            (lambda call: call.stop(), "operator"),
            (lambda call: call.stop(Outcome.DRAINED), "operator"),
        ):
            exchange = Exchange()
            call, _, _ = exchange.talk()
            self.assertIs(record(call).ended_by, UNSET)
            end(call)
            self.assertEqual(exchange.calls.record(call.call_id).ended_by, by)

    def test_by_the_bot_that_hangs_up_or_the_runner_that_gives_none(self) -> None:
        call, phone, _ = self.exchange.talk()
        call.bot_ended()
        phone.play(1.0)
        self.assertEqual(self.ended().ended_by, "bot")
        self.exchange.call()[0].bot_failed("503", "runner")
        self.assertEqual(self.ended().ended_by, "runner")

    def test_a_phone_that_is_refused(self) -> None:
        self.exchange.calls.drain()
        self.exchange.calls.answer(str(uuid4()), PhoneSide(self.clock))
        refused = shown(self.ended())
        self.assertEqual((refused["outcome"], refused["ended_by"]), ("rejected", "operator"))
        for unknown in ("answered_at", "ready_at", "duration", "runner", "quality", "transcript"):
            self.assertNotIn(unknown, refused)


class TranscriptTests(RecordCase):
    def test_a_bot_that_tells_nothing(self) -> None:
        call, _, _ = self.exchange.talk()
        part = record(call).transcript
        self.assertEqual(part, TranscriptPart(turns=0, none=NOTHING_TOLD))
        call.bot_event(rtvi.Metrics({"ttfb": []}))  # says nothing of speech
        self.assertEqual(record(call).transcript, part)
        self.assertNotIn("turns", shown(record(call).talk))

    def test_a_bot_that_tells_something(self) -> None:
        call, _, _ = self.exchange.talk()
        call.bot_event(rtvi.UserStartedSpeaking())
        self.assertEqual(shown(record(call).transcript), {"turns": 0})
        self.assertEqual(shown(record(call).talk)["turns"], 0)
        call.bot_event(rtvi.UserTranscription("hello"))
        call.phone_gone()
        self.assertEqual(shown(self.ended().transcript), {"turns": 1})
        self.assertEqual(shown(self.ended().talk)["turns"], 1)


class MeasuredTests(RecordCase):
    def test_what_was_not_measured_is_left_out(self) -> None:
        call, _, _ = self.exchange.talk()
        members = shown(record(call))
        self.assertNotIn("bot_rate", members)
        self.assertNotIn(None, members.values())
        self.assertEqual(
            members["talk"],
            {
                "caller_talk": 0.0,
                "bot_talk": 0.0,
                "caller_utterances": 0,
                "bot_utterances": 0,
                "interruptions": 0,
            },
        )
        unknown = {"caller_delay_ms", "bot_delay_ms", "one_way"}
        self.assertEqual(unknown & set(members["quality"]), set())

    def test_the_delay_of_the_bot(self) -> None:
        call, phone, bot = self.exchange.talk()
        self.exchange.say(bot, 0.08)
        phone.play(0.3)
        delay = quality(call).bot_delay_ms
        assert isinstance(delay, Delay)
        delays = call.playout.stats.delays
        self.assertEqual((delays.count, delay.max), (4, round(delays.longest * 1000, 2)))
        self.assertEqual(delay.mean, round(delays.mean * 1000, 2))
        self.assertTrue(delay.mean <= delay.p95 <= delay.max)

    def test_frames_that_did_not_wait_count_in_the_delay_of_the_caller(self) -> None:
        call, _, bot = self.exchange.talk()
        queue = bot.link.queue_stats
        queue.sent, queue.filter_delay = 100, 0.002
        self.assertEqual(quality(call).caller_delay_ms, Delay(mean=2.0, p95=2.0, max=2.0))
        queue.waits.add(0.5)
        self.assertEqual(quality(call).caller_delay_ms, Delay(mean=7.0, p95=2.0, max=502.0))
        for _ in range(5):
            queue.waits.add(0.5)
        self.assertEqual(quality(call).caller_delay_ms, Delay(mean=32.0, p95=502.0, max=502.0))

    def test_what_both_sides_say_is_heard_at_the_phone(self) -> None:
        call, phone, bot = self.exchange.talk()
        assert phone.sink is not None
        for caller in (LOUD, SILENCE):
            for _ in range(50):
                phone.play(0.02)
                phone.sink(caller, 8000)
        for _ in range(100):
            bot.playout.write(LOUD, 8000, 1, self.clock.seconds())
        phone.play(2.5)
        call.phone_gone()
        talk = shown(self.ended().talk)
        self.assertEqual((talk["caller_utterances"], talk["bot_utterances"]), (1, 1))
        self.assertApproximates(talk["caller_talk"], 1.0, 0.021)
        self.assertApproximates(talk["bot_talk"], 2.0, 0.021)
        self.assertEqual(talk["answers"]["count"], 1)
        self.assertApproximates(talk["answers"]["max"], 1.0, 0.06)

    def test_one_way_audio(self) -> None:
        call, phone, bot = self.exchange.talk()
        for _ in range(600):
            bot.playout.write(LOUD, 8000, 1, self.clock.seconds())
        phone.play(9.0)
        self.assertIs(quality(call).one_way, UNSET)
        phone.play(4.0)
        call.phone_gone()
        self.assertEqual(shown(self.ended().quality)["one_way"], "caller")

    def test_interruptions(self) -> None:
        """Those of all bots, and no signal of a bot that had nothing more to say."""
        call, phone, bot = self.exchange.talk()
        for times in (1, 2):
            for _ in range(2):
                self.exchange.say(bot, 1.0)
                phone.play(0.5)
                for _ in range(2):
                    call.bot_interrupted()
                    call.playout.flush()
            for part in (record(call).talk, quality(call)):
                self.assertEqual(shown(part)["interruptions"], 2 * times)
            call.bot_lost("connection", "reset")
            call.bot_ready("audio")
            bot = self.exchange.runner.bots[-1]
        self.assertEqual(self.exchange.kinds().count("interrupted"), 4)
