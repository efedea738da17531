"""A call between phone and bot: each is joined, informed and stopped exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.call.call import LAST_FRAMES, MAX_KEYS, Call
from pipecat_bridge.call.life import Outcome, State
from pipecat_bridge.call.record import record
from pipecat_bridge.events.events import EventLog
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
    "bot event": lambda _, call, phone, bot: call.bot_event(rtvi.Other("terminated", {"a": 1})),
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
        self.assertEqual((kinds.count("created"), kinds.index("created")), (1, 0))
        self.assertEqual(kinds.count("initialized"), int(call.initialized_at is not None))
        self.assertEqual(kinds.count("terminated"), ended)
        self.assertEqual(len(phone.hangups), ended)
        self.assertEqual(call.outcome is not None, bool(ended))
        self.check_bots(exchange, call)
        if ended:
            self.assertEqual(kinds[-1], "terminated")

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
        self.assertEqual(exchange.kinds(), ["created", "terminated"])
        self.assertEqual((call.outcome, call.reason), (Outcome.RUNNER_FAILED, "503"))
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
        for kind in ("created", "bot-lost"):
            with self.subTest(kind=kind):
                exchange = Exchange(on_bot_lost="restart")

                def stop(event: Any, exchange: Exchange = exchange, kind: str = kind) -> None:
                    if event.kind == kind:
                        exchange.calls.get(event.call_id).stop()

                exchange.calls.events.subscribe(stop)
                call, phone, _ = exchange.call()
                if kind == "bot-lost":
                    call.bot_ready("bot-ready")
                    call.bot_lost("connection", "reset")
                self.assertEqual(call.outcome, Outcome.STOPPED)
                self.assertEqual(len(phone.hangups), 1)
                self.assertEqual(exchange.clock.getDelayedCalls(), [])
                self.assertEqual(len(exchange.runner.bots), 1)
                self.assertEqual(exchange.told[-1].kind, "terminated")


class WarningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()

    def warned(self) -> list[str]:
        return [event.data["kind"] for event in self.exchange.told if event.kind == "warning"]

    def test_a_side_that_says_nothing(self) -> None:
        call, _, _ = self.exchange.talk()
        self.exchange.clock.advance(9.9)
        self.assertEqual(self.warned(), [])
        self.exchange.clock.advance(0.2)
        self.assertEqual(sorted(self.warned()), ["bot-mute", "phone-mute"])
        self.assertEqual(record(call)["warnings"], {"bot-mute": 1, "phone-mute": 1})

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
        self.assertEqual(exchange.kinds(), ["created", "warning", "terminated"])
        self.assertEqual(exchange.calls.record(call_id)["warnings"], {"metadata": 1})

    def test_each_kind_is_told_once_and_counted(self) -> None:
        call, _, _ = self.exchange.talk()
        for number in range(3):
            call.bot_warning("bot-error", f"error {number}")
            call.bot_warning("bad-command", f"wrong {number}")
        self.assertEqual(self.warned(), ["bot-error", *["bad-command"] * 3])
        self.assertEqual(record(call)["warnings"], {"bot-error": 3, "bad-command": 3})
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
        self.assertEqual(said, [f"{call.call_id} bot-error: {wrong}"])


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
        call, _, _ = self.exchange.talk()
        call.bot_event(rtvi.UserTranscription("hello", True, "t", "u"))
        call.bot_event(rtvi.ServerMessage({"a": [1]}))
        call.bot_interrupted()
        said, message, interrupted = self.exchange.told[-3:]
        self.assertEqual(said.kind, "user-transcription")
        wanted = {"text": "hello", "final": True, "timestamp": "t", "user_id": "u"}
        self.assertEqual(said.data, wanted)
        self.assertEqual((message.kind, message.data), ("server-message", {"data": {"a": [1]}}))
        self.assertEqual(interrupted.kind, "interrupted")

    def test_each_event_that_is_parsed_can_be_told(self) -> None:
        call, _, _ = self.exchange.talk()
        parsed = [kind for kind in rtvi.Event.__subclasses__() if kind is not rtvi.BotInterrupted]
        for kind in parsed:
            fields = dict.fromkeys(kind.__struct_fields__, "x")
            call.bot_event(kind(**fields))
            self.assertNotIn(None, (self.exchange.told[-1].kind, self.exchange.told[-1].data))
        self.assertGreater(len(parsed), 12)

    def test_a_bot_cannot_tell_events_of_the_calls_own(self) -> None:
        call, _, _ = self.exchange.talk()
        for kind in ("terminated", "created", "resumed", "rejected", "dtmf", "transfer"):
            call.bot_event(rtvi.Other(kind, {"outcome": "completed"}))
            told = self.exchange.told[-1]
            self.assertEqual(told.kind, "rtvi")
            self.assertEqual(told.data, {"type": kind, "data": {"outcome": "completed"}})
        self.assertEqual(self.exchange.calls.running, [call])

    def test_times_are_those_of_the_wall_clock(self) -> None:
        call, phone, _ = self.exchange.call()
        phone.play(0.5)
        call.bot_ready("bot-ready")
        phone.play(1.0)
        call.phone_gone()
        times = call.created_at, call.initialized_at, call.ended_at
        for found, wanted in zip(times, (0.0, 0.5, 1.5), strict=True):
            assert found is not None
            self.assertApproximates(found - EPOCH, wanted, 1e-6)
        self.assertEqual(self.exchange.told[-1].data["duration"], 1.5)

    def test_a_wall_clock_that_is_set_back(self) -> None:
        call, phone, _ = self.exchange.call()
        phone.play(0.5)
        self.exchange.set_back = 7200.0
        call.bot_ready("bot-ready")
        phone.play(1.0)
        call.phone_gone()
        assert call.initialized_at is not None
        assert call.ended_at is not None
        self.assertApproximates(call.initialized_at - call.created_at, 0.5, 1e-6)
        self.assertApproximates(call.ended_at - call.created_at, 1.5, 1e-6)
        times = [event.time for event in call.history]
        self.assertEqual(times, sorted(times))
        self.assertEqual(self.exchange.told[-1].data["duration"], 1.5)


class HistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()
        self.call, _, _ = self.exchange.talk()

    def kept(self) -> list[str]:
        return [event.kind for event in self.call.history]

    def test_the_last_ones_are_kept(self) -> None:
        for number in range(500):
            self.call.bot_event(rtvi.BotTranscription(str(number)))
        self.assertEqual(len(self.call.history), 200)
        texts = [event.data["text"] for event in self.call.history]
        self.assertEqual(texts, [str(number) for number in range(300, 500)])

    def test_a_bot_that_tells_much_does_not_fill_the_memory(self) -> None:
        for _ in range(50):
            self.call.bot_event(rtvi.BotTranscription("x" * 8000))
        self.assertEqual(self.kept(), ["bot-transcription"] * 8)
        self.call.bot_event(rtvi.ServerMessage("x" * 1_000_000))
        *_, last = self.call.history
        self.assertEqual(last.data, {"omitted": "1000011 bytes"})
        self.assertEqual(len(self.exchange.told[-1].data["data"]), 1_000_000)

    def test_what_comes_too_often_is_told_and_not_kept(self) -> None:
        before = len(self.exchange.told)
        self.call.bot_event(rtvi.BotLLMText("a"))
        self.call.bot_event(rtvi.Metrics({"ttfb": []}))
        self.call.bot_event(rtvi.BotOutput("a"))
        self.call.bot_event(rtvi.Other("bot-tts-text", {"text": "a"}))
        self.assertEqual(len(self.exchange.told) - before, 4)
        self.assertEqual(self.kept(), ["created", "initialized", "ready"])
        self.call.bot_event(rtvi.Other("llm-function-call", {}))
        self.assertEqual(self.kept()[-1], "rtvi")
