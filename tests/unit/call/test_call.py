"""A call between phone and bot: each is joined, informed and stopped exactly once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.call.call import LAST_FRAMES, MAX_KEYS, Call
from pipecat_bridge.call.life import Outcome, State
from pipecat_bridge.call.record import record
from pipecat_bridge.events.kinds import KINDS, BotError, Message, Turn
from pipecat_bridge.events.log import EventLog
from pipecat_bridge.options import CallOptions
from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.commands import Hangup, PlayDTMF, SetVariables, Transfer
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.link import join, turn
from tests.unit.bot_side import warnings
from tests.unit.sides import EPOCH, FRAME, BotSide, Exchange, PhoneSide

Step = Callable[[Exchange, Call, PhoneSide, BotSide], Any]

# What can happen to a call at any time, and what only while it lasts: its sides see to that.
ANY_TIME: dict[str, Step] = {
    "bot ready": lambda _, call, phone, bot: ready(call),
    "bot failed": lambda _, call, phone, bot: call.bot_failed("no", "runner"),
    "bot ended": lambda _, call, phone, bot: call.bot_ended(),
    "bot lost": lambda _, call, phone, bot: call.bot_lost("connection", "reset"),
    "phone gone": lambda _, call, phone, bot: call.phone_gone(),
    "stop": lambda _, call, phone, bot: call.stop(),
    "drain": lambda _, call, phone, bot: call.stop(Outcome.DRAINED, "the daemon was stopped"),
    "time": lambda _, call, phone, bot: phone.play(0.2),
}
WHILE_IT_LASTS: dict[str, Step] = {
    "bot event": lambda _, call, phone, bot: call.bot_event(rtvi.Other("call.ended", {"a": 1})),
    "barge-in": lambda _, call, phone, bot: call.bot_interrupted(),
    "digit": lambda _, call, phone, bot: call.caller_digit("5"),
    "text": lambda _, call, phone, bot: call.bot.send_text("hello", True, True),
    "bot audio": lambda exchange, call, phone, bot: exchange.say(bot, 0.3),
    "variables": lambda _, call, phone, bot: call.bot_command(SetVariables({"A": "1"})),
    "tones": lambda _, call, phone, bot: call.bot_command(PlayDTMF("12")),
    "hangup": lambda _, call, phone, bot: call.bot_command(Hangup()),
    "transfer": lambda _, call, phone, bot: call.bot_command(Transfer("support")),
    "old bot gone": lambda exchange, call, phone, bot: gone(exchange),
}
POLICIES = ("hangup", "restart", "dialplan")
STEPS = st.lists(st.sampled_from([*ANY_TIME, *WHILE_IT_LASTS]), max_size=12)


def ready(call: Call) -> None:
    """Let the current bot of the call be ready, if the call has asked for it."""
    bot: Any = call.bot
    if bot.starts:
        call.bot_ready("bot-ready")


def gone(exchange: Exchange) -> None:
    """Let the runners of stopped bots know that these have stopped."""
    for bot in exchange.runner.bots:
        if bot.stops and not bot.gone.called:
            bot.gone.callback(None)


class OnceTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=500)
    @given(
        names=STEPS,
        max_duration=st.sampled_from([0.0, 0.5]),
        policy=st.sampled_from(POLICIES),
        forgets_at_once=st.booleans(),
    )
    def test_in_every_order_of_inputs(
        self, names: list[str], max_duration: float, policy: str, forgets_at_once: bool
    ) -> None:
        exchange = Exchange(max_duration=max_duration, on_bot_lost=policy)
        exchange.runner.forgets_at_once = forgets_at_once
        sides = exchange.call()
        call = sides[0]
        for name in names:
            if name in ANY_TIME:
                ANY_TIME[name](exchange, *sides)
            elif call.state is not State.ENDED:
                WHILE_IT_LASTS[name](exchange, *sides)
            self.check(exchange, *sides)
        call.stop()
        gone(exchange)
        self.check(exchange, *sides)
        self.assertIs(call.state, State.ENDED)
        self.assertEqual(exchange.clock.getDelayedCalls(), [])
        self.assertEqual(exchange.calls.running, [])

    def check(self, exchange: Exchange, call: Call, phone: PhoneSide, bot: BotSide) -> None:
        kinds = exchange.kinds()
        ended = int(call.state is State.ENDED)
        self.assertEqual(kinds[:2], ["call.created", "call.answered"])
        self.assertEqual(kinds.count("call.created"), 1)
        self.assertEqual(kinds.count("call.ready"), int(call.ready_at is not None))
        self.assertEqual(kinds.count("call.ended"), ended)
        self.assertEqual(len(phone.hangups), ended)
        self.assertEqual(call.outcome is not None, bool(ended))
        self.check_bots(exchange, call)
        if ended:
            self.assertEqual(kinds[-1], "call.ended")

    def check_bots(self, exchange: Exchange, call: Call) -> None:
        """Check that there was one bot at a time, and that each was stopped once."""
        *lost, bot = exchange.runner.bots
        self.assertIs(call.bot, bot)
        self.assertLessEqual(len(lost), CallOptions().max_restarts)
        self.assertEqual([(each.starts, each.stops) for each in lost], [(1, 1)] * len(lost))
        over = call.state in (State.FINISHING, State.ENDED)
        self.assertEqual(bot.stops, int(over))
        if not all(each.gone.called for each in lost):
            self.assertEqual(bot.starts, 0)
        elif not over:
            self.assertEqual(bot.starts, 1)

    def test_a_runner_that_refuses_at_once(self) -> None:
        exchange = Exchange(refuses="503")
        call, phone, bot = exchange.call()
        kinds = ["call.created", "call.answered", "bot.error", "call.ended"]
        self.assertEqual(exchange.kinds(), kinds)
        self.assertEqual((call.outcome, call.reason), (Outcome.RUNNER_FAILED, "503"))
        self.assertEqual(record(call).errors, {"start": 1})
        self.assertEqual((bot.stops, len(phone.hangups)), (1, 1))
        self.assertEqual(exchange.calls.running, [])


class FinishTests(SynchronousTestCase):
    def test_the_last_words_are_played_then_the_phone_is_hung_up(self) -> None:
        exchange = Exchange()
        call, phone, bot = exchange.talk()
        exchange.say(bot, 1.0)
        call.bot_ended()
        phone.play(0.9)
        self.assertEqual((call.state, phone.hangups), (State.FINISHING, []))
        phone.play(0.3)
        self.assertEqual(b"".join(phone.heard), FRAME * 50)
        self.assertEqual(call.outcome, Outcome.COMPLETED)
        played = 1.0 + LAST_FRAMES
        self.assertTrue(played <= phone.hangups[0] <= played + 0.05, phone.hangups)

    def test_nothing_left_to_play(self) -> None:
        exchange = Exchange()
        call, phone, _ = exchange.talk()
        call.bot_ended()
        phone.play(0.1)
        self.assertEqual(call.outcome, Outcome.COMPLETED)
        self.assertApproximates(phone.hangups[0], 0.02 + LAST_FRAMES, 1e-6)

    def test_a_stop_drops_what_waits(self) -> None:
        exchange = Exchange()
        call, phone, bot = exchange.talk()
        exchange.say(bot, 1.0)
        call.bot_ended()
        phone.play(0.2)
        call.stop(Outcome.STOPPED, "over the API")
        self.assertEqual(phone.hangups, [exchange.clock.seconds()])
        self.assertEqual((call.outcome, call.reason), (Outcome.STOPPED, "over the API"))
        self.assertEqual(exchange.clock.getDelayedCalls(), [])

    def test_the_caller_hangs_up_in_the_last_words(self) -> None:
        exchange = Exchange()
        call, phone, bot = exchange.talk()
        exchange.say(bot, 1.0)
        call.bot_ended()
        phone.play(0.2)
        call.phone_gone()
        self.assertEqual(call.outcome, Outcome.CALLER_HANGUP)
        self.assertEqual(exchange.clock.getDelayedCalls(), [])

    def test_a_real_line_hears_every_sample_before_the_hangup(self) -> None:
        exchange = Exchange()
        clock = exchange.clock
        frames = FrameClock(clock, clock.seconds)
        line = AudioSocketConnection(
            exchange.calls.answer, frames, clock, LineOptions(), clock.seconds
        )
        asterisk = StrictAsterisk(clock)
        join(clock, asterisk, line)
        asterisk.start_audio()
        turn(clock, 0.1)
        [call] = exchange.calls.running
        call.bot_ready("bot-ready")
        speech = b"".join(number.to_bytes(2, "little") for number in range(1, 4001))
        exchange.runner.bots[0].playout.write(speech, 8000, 1, clock.seconds())
        call.bot_ended()
        turn(clock, 1.0)
        self.assertEqual(call.outcome, Outcome.COMPLETED)
        self.assertIn(speech, asterisk.pcm())
        self.assertEqual((asterisk.ended, asterisk.faults), ("hangup received", []))


class LimitTests(SynchronousTestCase):
    def test_longer_than_max_duration(self) -> None:
        exchange = Exchange(max_duration=2.5)
        call, phone, _ = exchange.talk()
        turn(exchange.clock, 2.49, 0.01)
        self.assertIs(call.state, State.TALKING)
        turn(exchange.clock, 0.02, 0.01)
        self.assertIs(call.outcome, Outcome.TIMEOUT)
        self.assertEqual(call.reason, "longer than [calls] max_duration, 2.5 s")
        self.assertEqual(len(phone.hangups), 1)

    def test_no_limit_by_default(self) -> None:
        exchange = Exchange()
        call, _, _ = exchange.talk()
        turn(exchange.clock, 36_000, 60)
        self.assertIs(call.state, State.TALKING)

    def test_the_limit_goes_with_the_call(self) -> None:
        exchange = Exchange(max_duration=2.5)
        call, _, _ = exchange.talk()
        call.phone_gone()
        self.assertEqual(exchange.clock.getDelayedCalls(), [])


class StoppedByListenerTests(SynchronousTestCase):
    """A listener that gets an event may end the call at once."""

    def test_nothing_goes_on(self) -> None:
        for kind in ("call.created", "call.answered", "bot.lost"):
            with self.subTest(kind=kind):
                exchange = Exchange(on_bot_lost="restart")

                def stop(event: Any, exchange: Exchange = exchange, kind: str = kind) -> None:
                    if event.kind == kind:
                        exchange.calls.get(event.call_id).stop()

                exchange.calls.events.subscribe(stop)
                call, phone, _ = exchange.call()
                if kind == "bot.lost":
                    call.bot_ready("bot-ready")
                    call.bot_lost("connection", "reset")
                self.assertEqual(call.outcome, Outcome.STOPPED)
                self.assertEqual(len(phone.hangups), 1)
                self.assertEqual(exchange.clock.getDelayedCalls(), [])
                self.assertEqual(len(exchange.runner.bots), 1)
                self.assertEqual(exchange.kinds()[-1], "call.ended")


class MemoryTests(SynchronousTestCase):
    def test_an_ended_call_waits_for_no_garbage_collection(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        exchange = Exchange()
        call, phone, bot = exchange.talk()
        phone.play(0.5)
        call.bot_event(rtvi.UserTranscription("hello"))
        call.warn("bot-error", "no key")
        call.phone_gone()
        del bot.listener, phone  # which the sides of a real call do by themselves
        exchange.runner.bots.clear()
        ended = weakref.ref(call)
        del call
        self.assertIsNone(ended())


class WarningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()

    def warned(self) -> list[str]:
        return [told["kind"] for told in self.exchange.data("warning")]

    def test_a_side_that_says_nothing(self) -> None:
        call, _, _ = self.exchange.talk()
        self.exchange.clock.advance(9.9)
        self.assertEqual(self.warned(), [])
        self.exchange.clock.advance(0.2)
        self.assertEqual(sorted(self.warned()), ["bot-mute", "phone-mute"])
        self.assertEqual(record(call).warnings, {"bot-mute": 1, "phone-mute": 1})

    def test_sides_that_say_something(self) -> None:
        _, phone, bot = self.exchange.talk()
        phone.stats.frames_in = 1
        bot.link.stats.spoke = True
        self.exchange.clock.advance(60)
        self.assertEqual(self.warned(), [])

    def test_a_bot_that_never_answers(self) -> None:
        call, phone, bot = self.exchange.talk()
        phone.stats.frames_in, bot.link.stats.spoke = 1, True
        for answers in (True, False):
            call.bot_event(rtvi.UserStartedSpeaking())
            call.bot_event(rtvi.UserStoppedSpeaking())
            self.exchange.clock.advance(14)
            self.assertEqual(self.warned(), [])
            bot.link.stats.frames_in += answers
            self.exchange.clock.advance(1.1)
        self.assertEqual(self.warned(), ["bot-no-answer"])

    def test_what_a_call_begins_with_is_told_before_its_end(self) -> None:
        exchange = Exchange(refuses="503")
        call_id = str(uuid4())
        exchange.calls.prepare(call_id, {}, {}, ["caller is no number"])
        exchange.call(call_id)
        kinds = ["call.created", "call.answered", "warning", "bot.error", "call.ended"]
        self.assertEqual(exchange.kinds(), kinds)
        self.assertEqual(exchange.calls.record(call_id).warnings, {"metadata": 1})

    def test_each_kind_is_told_once_and_counted(self) -> None:
        call, _, _ = self.exchange.talk()
        for number in range(3):
            call.bot_warning("bot-error", f"error {number}")
            call.bot_warning("bad-command", f"wrong {number}")
        self.assertEqual(self.warned(), ["bot-error", *["bad-command"] * 3])
        self.assertEqual(record(call).warnings, {"bot-error": 3, "bad-command": 3})
        for _ in range(100):
            call.bot_warning("bad-command", "wrong")
        self.assertEqual(len(self.warned()), 21)

    def test_the_log_has_a_line_with_the_calls_id(self) -> None:
        call, _, _ = self.exchange.talk()
        self.exchange.events.subscribe(EventLog())
        with warnings() as said:
            call.warn("bot-error", "the bot reports an error: no\nkey")
        self.assertEqual(len(said), 1)
        wrong = "the bot reports an error: no\\nkey"
        self.assertEqual(said, [f"{call.call_id} warning bot-error: {wrong}"])


class KeyTests(SynchronousTestCase):
    def test_as_many_as_a_caller_can_press(self) -> None:
        exchange = Exchange()
        call, _, bot = exchange.talk()
        for _ in range(MAX_KEYS + 100):
            call.caller_digit("1")
        self.assertEqual(bot.link.digits, "1" * MAX_KEYS)
        self.assertEqual(exchange.kinds(call).count("dtmf"), MAX_KEYS)
        self.assertEqual(exchange.kinds(call).count("warning"), 1)
        self.assertEqual(call.warnings.counts["keys-dropped"], 100)
        exchange.clock.advance(1.0)
        call.caller_digit("2")
        self.assertEqual(bot.link.digits[-1], "2")


class PassingOnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()

    def test_the_sides_are_joined(self) -> None:
        _, phone, bot = self.exchange.call()
        self.assertIs(phone.playout, bot.playout)
        assert phone.sink is not None
        phone.sink(FRAME, 8000)
        self.assertEqual(bot.link.audio, [(FRAME, 8000)])

    def test_digits_and_texts_reach_the_link_before_the_bot_is_there(self) -> None:
        call, _, bot = self.exchange.call()
        call.caller_digit("#")
        self.assertEqual(call.bot.send_text("hello", False, True), "sent")
        self.assertEqual(bot.link.digits, "#")
        self.assertEqual(bot.link.texts, [("hello", False, True)])

    def test_a_bot_that_takes_no_text(self) -> None:
        call, _, bot = self.exchange.talk()
        bot.link.takes_text = False
        self.assertEqual(call.bot.send_text("hello", True, True), "no-texts")

    def test_a_bot_that_does_not_read_gets_no_more_keys(self) -> None:
        call, _, bot = self.exchange.talk()
        bot.link.reads = False
        call.caller_digit("5")
        call.caller_digit("6")
        self.assertEqual(call.warnings.counts, {"not-read": 2})

    def test_what_the_bot_tells_becomes_events(self) -> None:
        call, _, bot = self.exchange.talk()
        call.bot_event(rtvi.ServerMessage({"a": [1]}))
        call.bot_event(rtvi.BotError("no\nkey", fatal=False))
        call.bot_event(rtvi.BotError("out of credit", fatal=True))
        self.exchange.say(bot, 1.0)
        call.bot_interrupted()
        message, *errors, interrupted = self.exchange.told[-4:]
        self.assertEqual((message.kind, message.data), ("message", Message({"a": [1]})))
        self.assertEqual(
            [error.data for error in errors],
            [
                BotError("reported", r"no\nkey", bot.runner_name),
                BotError("fatal", "out of credit", bot.runner_name),
            ],
        )
        self.assertEqual((interrupted.kind, interrupted.body), ("interrupted", b"{}"))

    def test_speech_that_the_bot_tells_is_no_event(self) -> None:
        call, _, _ = self.exchange.talk()
        before = list(self.exchange.told)
        for event in (
            rtvi.UserStartedSpeaking(),
            rtvi.UserTranscription("hel", final=False),
            rtvi.BotLLMText("a"),
            rtvi.Metrics({"ttfb": []}),
            rtvi.Other("bot-tts-text", {"text": "a"}),
        ):
            call.bot_event(event)
        self.assertEqual(self.exchange.told, before)

    def test_each_event_that_is_parsed_is_taken(self) -> None:
        call, _, _ = self.exchange.talk()
        parsed = [kind for kind in rtvi.Event.__subclasses__() if kind is not rtvi.BotInterrupted]
        for kind in parsed:
            fields = dict.fromkeys(kind.__struct_fields__, "x")
            call.bot_event(kind(**fields))
        self.assertGreater(len(parsed), 12)
        self.assertIs(call.state, State.TALKING)

    def test_a_bot_cannot_tell_events_of_the_calls_own(self) -> None:
        call, _, _ = self.exchange.talk()
        before = list(self.exchange.told)
        for kind in KINDS:
            call.bot_event(rtvi.Other(kind, {"outcome": "completed"}))
        self.assertEqual(self.exchange.told, before)
        call.bot_event(rtvi.ServerMessage({"kind": "call.ended", "type": "call.ended"}))
        self.assertEqual(self.exchange.told[-1].kind, "message")
        self.assertEqual(self.exchange.calls.running, [call])

    def test_times_are_those_of_the_wall_clock(self) -> None:
        call, phone, _ = self.exchange.call()
        phone.play(0.5)
        call.bot_ready("bot-ready")
        phone.play(1.0)
        call.phone_gone()
        times = call.created_at, call.ready_at, call.ended_at
        for found, wanted in zip(times, (0.0, 0.5, 1.5), strict=True):
            assert found is not None
            self.assertApproximates(found - EPOCH, wanted, 1e-6)
        self.assertEqual(self.exchange.record()["duration"], 1.5)

    def test_a_wall_clock_that_is_set_back(self) -> None:
        call, phone, _ = self.exchange.call()
        phone.play(0.5)
        self.exchange.set_back = 7200.0
        call.bot_ready("bot-ready")
        phone.play(1.0)
        call.phone_gone()
        assert call.ready_at is not None
        assert call.ended_at is not None
        self.assertApproximates(call.ready_at - call.created_at, 0.5, 1e-6)
        self.assertApproximates(call.ended_at - call.created_at, 1.5, 1e-6)
        times = [event.time for event in call.history]
        self.assertEqual(times, sorted(times))
        self.assertEqual(self.exchange.record()["duration"], 1.5)


class TurnTests(SynchronousTestCase):
    """What is said becomes a turn when the other side speaks, or when it is over."""

    def setUp(self) -> None:
        self.exchange = Exchange(on_bot_lost="restart")
        self.call, self.phone, self.bot = self.exchange.talk()

    def hear(self, *events: rtvi.Event) -> None:
        for event in events:
            self.call.bot_event(event)

    def turns(self) -> list[Turn]:
        return [event.data for event in self.exchange.told if isinstance(event.data, Turn)]

    def interrupt(self) -> None:
        """The caller barges in: the link of the bot says so, and drops what waits."""
        self.call.bot_interrupted()
        self.call.playout.flush()

    def test_a_question_and_its_answer(self) -> None:
        self.hear(rtvi.UserStartedSpeaking())
        self.phone.play(1.0)
        self.hear(rtvi.UserStoppedSpeaking(), rtvi.UserTranscription("what time is it"))
        self.phone.play(0.5)
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("Ten.", spoken=True))
        [question] = self.turns()
        self.exchange.say(self.bot, 1.0)
        self.hear(rtvi.BotStoppedSpeaking())
        self.phone.play(0.5)
        self.assertEqual(self.turns(), [question], "its voice is still played")
        self.phone.play(1.0)
        [_, answer] = self.turns()
        self.assertEqual((question.speaker, question.text), ("caller", "what time is it"))
        self.assertEqual((question.start, question.end), (EPOCH, EPOCH + 1.0))
        self.assertEqual((answer.speaker, answer.text, answer.start), ("bot", "Ten.", EPOCH + 1.5))
        self.assertApproximates(answer.end, EPOCH + 2.5, 0.061)
        self.assertEqual((answer.audio, answer.played, answer.interrupted), (1.0, 1.0, False))
        self.assertEqual(list(self.call.transcript), [question, answer])

    def test_a_barge_in_ends_it_and_says_how_much_was_heard(self) -> None:
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("A long story.", spoken=True))
        self.exchange.say(self.bot, 4.0)
        self.phone.play(1.5)
        self.interrupt()
        [turn] = self.turns()
        self.assertEqual((turn.text, turn.interrupted), ("A long story.", True))
        assert isinstance(turn.audio, float)
        assert isinstance(turn.played, float)
        self.assertApproximates(turn.audio, 4.0, 0.021)
        self.assertApproximates(turn.played, 1.5, 0.061)
        self.assertEqual(self.exchange.kinds()[-2:], ["turn", "interrupted"])

    def test_a_barge_in_after_the_bot_has_sent_all_of_it(self) -> None:
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("A long story.", spoken=True))
        self.exchange.say(self.bot, 4.0)
        self.hear(rtvi.BotStoppedSpeaking())
        self.phone.play(1.5)
        self.interrupt()
        [turn] = self.turns()
        self.assertTrue(turn.interrupted)

    def test_a_barge_in_while_the_bots_voice_is_late(self) -> None:
        """Nothing waits, but the bot has not said that it is done."""
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("A long story.", spoken=True))
        self.exchange.say(self.bot, 0.5)
        self.phone.play(1.5)
        self.interrupt()
        [turn] = self.turns()
        self.assertEqual((turn.interrupted, turn.audio, turn.played), (True, 0.5, 0.5))
        self.assertEqual(self.exchange.kinds()[-2:], ["turn", "interrupted"])

    def test_a_bot_that_is_done_is_not_interrupted(self) -> None:
        """Pipecat's bots give way at each turn of the caller."""
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("Hello.", spoken=True))
        self.exchange.say(self.bot, 0.5)
        self.hear(rtvi.BotStoppedSpeaking())
        self.phone.play(1.0)
        self.interrupt()
        [turn] = self.turns()
        self.assertEqual((turn.interrupted, self.call.interruptions), (False, 0))
        self.assertEqual(self.exchange.kinds()[-1], "turn")

    def test_a_barge_in_into_a_bot_that_tells_nothing(self) -> None:
        self.exchange.say(self.bot, 1.0)
        self.phone.play(0.5)
        self.interrupt()
        self.phone.play(0.5)
        self.interrupt()
        self.assertEqual(self.exchange.kinds().count("interrupted"), 1)

    def test_how_fast_it_is_played_makes_no_difference(self) -> None:
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("So.", spoken=True))
        self.exchange.say(self.bot, 1.0)
        self.call.playout.stats.shortened_ms += 300.0
        self.call.playout.stats.stretched_ms += 100.0
        self.hear(rtvi.BotStoppedSpeaking())
        self.phone.play(1.5)
        [turn] = self.turns()
        self.assertEqual((turn.audio, turn.played), (1.2, 1.2))

    def test_a_turn_has_nothing_of_what_the_turn_before_lost(self) -> None:
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("A long story.", spoken=True))
        self.call.playout.write(bytes(2 * 8 * 1018), 8000, 1, self.exchange.clock.seconds())
        self.phone.play(0.5)
        self.interrupt()
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("So.", spoken=True))
        self.exchange.say(self.bot, 1.0)
        self.hear(rtvi.BotStoppedSpeaking())
        self.phone.play(1.5)
        long, short = self.turns()
        self.assertApproximates(long.audio, 1.018, 0.0011)
        self.assertApproximates(short.audio, 1.0, 0.0011)
        self.assertEqual(short.played, 1.0)

    def test_each_turn_has_its_own_voice(self) -> None:
        for seconds in (1.0, 0.6):
            self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("So.", spoken=True))
            self.exchange.say(self.bot, seconds)
            self.hear(rtvi.BotStoppedSpeaking())
            self.phone.play(seconds + 0.5)
        self.assertEqual(
            [(turn.audio, turn.played) for turn in self.turns()], [(1.0, 1.0), (0.6, 0.6)]
        )

    def test_the_loss_of_the_bot_ends_it(self) -> None:
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("And then", spoken=True))
        self.call.bot_lost("connection", "reset")
        self.assertEqual(self.exchange.kinds()[-2:], ["turn", "bot.lost"])

    def test_the_end_of_the_call_ends_it(self) -> None:
        self.hear(rtvi.BotStartedSpeaking(), rtvi.BotOutput("A long story.", spoken=True))
        self.exchange.say(self.bot, 4.0)
        self.phone.play(1.5)
        self.call.phone_gone()
        self.assertEqual(self.exchange.kinds()[-2:], ["turn", "call.ended"])
        [turn] = self.turns()
        self.assertFalse(turn.interrupted)
        assert isinstance(turn.audio, float)
        assert isinstance(turn.played, float)
        self.assertApproximates(turn.audio, 4.0, 0.021)
        self.assertApproximates(turn.played, 1.5, 0.061)
        self.assertEqual(self.exchange.record()["transcript"], {"turns": 1})

    def test_nothing_is_told_after_the_end(self) -> None:
        self.call.stop()
        self.hear(rtvi.UserTranscription("hello"), rtvi.BotOutput("Hi.", spoken=True))
        self.assertEqual(self.exchange.kinds()[-1], "call.ended")


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()
        self.call, _, _ = self.exchange.talk()

    def kept(self) -> list[dict[str, Any]]:
        """What a client of the API gets."""
        shown = msgspec.json.encode(self.exchange.calls.history(self.call.call_id))
        kept: list[dict[str, Any]] = msgspec.json.decode(shown)
        return kept

    def messages(self) -> list[Any]:
        return [event["data"]["data"] for event in self.kept() if event["kind"] == "message"]

    def test_what_was_told_is_kept_and_the_end_is_not(self) -> None:
        self.call.bot_event(rtvi.ServerMessage({"a": 1}))
        self.call.warn("bot-error", "no key")  # for the log only
        running = self.kept()
        self.call.stop()
        self.assertEqual(self.kept(), running)
        kinds = ["call.created", "call.answered", "call.ready", "message"]
        self.assertEqual([event["kind"] for event in running], kinds)
        self.assertEqual(self.exchange.kinds(), [*kinds, "warning", "call.ended"])
        told = [event for event in self.exchange.told if event.kind in kinds]
        self.assertEqual([event["id"] for event in running], [event.id for event in told])
        self.assertEqual(len({event["id"] for event in running}), len(kinds))

    def test_the_last_ones_are_kept(self) -> None:
        for number in range(500):
            self.call.bot_event(rtvi.ServerMessage(number))
        self.assertEqual(self.messages(), list(range(300, 500)))

    def test_a_bot_that_tells_much_does_not_fill_the_memory(self) -> None:
        for _ in range(50):
            self.call.bot_event(rtvi.ServerMessage("x" * 8000))
        self.assertEqual(self.messages(), ["x" * 8000] * 8)
        self.call.bot_event(rtvi.ServerMessage("x" * 1_000_000))
        self.assertEqual(self.messages()[-1], {"omitted": "1000002 bytes"})
        self.assertEqual(self.exchange.told[-1].data, Message({"omitted": "1000002 bytes"}))
