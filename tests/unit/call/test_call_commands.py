"""Commands of a bot: when they are carried out, what is stored, what is refused."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.audio.tones import dtmf
from pipecat_bridge.call.call import LAST_FRAMES
from pipecat_bridge.call.digits import MAX_DIGITS
from pipecat_bridge.call.life import Outcome, State
from pipecat_bridge.call.record import record
from pipecat_bridge.call.variables import MAX_BYTES, Variables
from pipecat_bridge.wire.commands import CommandError, Hangup, PlayDTMF, SetVariables, Transfer
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.link import join, turn
from tests.unit.sides import FRAME, Exchange, PhoneSide


def heard(phone: PhoneSide) -> str:
    """What the caller heard, a letter for each frame: speech, tones; in runs, "s25 t10"."""
    letters = ["s" if frame == FRAME else "t" for frame in phone.heard]
    return " ".join(f"{letter}{len(list(run))}" for letter, run in groupby(letters))


class HangupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()
        self.call, self.phone, self.bot = self.exchange.talk()

    def test_what_was_said_before_is_played_and_then_the_phone_is_hung_up(self) -> None:
        self.exchange.say(self.bot, 1.0)
        self.call.bot_command(Hangup("the caller said goodbye"))
        self.phone.play(0.9)
        self.assertEqual((self.call.state, self.phone.hangups), (State.FINISHING, []))
        self.phone.play(0.3)
        self.assertEqual(heard(self.phone), "s50")
        self.assertIs(self.call.outcome, Outcome.COMPLETED)
        self.assertEqual(self.call.reason, "the caller said goodbye")
        self.assertIs(self.phone.cleanly, True)
        played = 1.0 + LAST_FRAMES
        self.assertTrue(played <= self.phone.hangups[0] <= played + 0.05, self.phone.hangups)

    def test_the_bot_is_let_go_at_once_and_its_link_closes_with_it(self) -> None:
        self.exchange.say(self.bot, 1.0)
        self.call.bot_command(Hangup())
        self.assertEqual(self.bot.stops, 1)
        self.phone.play(2.0)
        self.assertEqual(self.bot.stops, 1)

    def test_tones_are_played_before_it(self) -> None:
        self.exchange.say(self.bot, 0.5)
        self.call.bot_command(PlayDTMF("12"))
        self.call.bot_command(Hangup())
        self.phone.play(0.5 + 0.4 - 0.02)
        self.assertIs(self.call.state, State.FINISHING)
        self.phone.play(0.3)
        self.assertEqual(heard(self.phone), "s25 t20")
        self.assertIs(self.call.outcome, Outcome.COMPLETED)

    def test_it_is_an_event_once(self) -> None:
        self.call.bot_command(Hangup("done"))
        self.call.bot_command(Hangup("again"))
        self.assertEqual(self.exchange.data("hangup"), [{"reason": "done"}])
        self.phone.play(0.2)
        self.assertEqual(self.exchange.data("call.ended")[0]["record"]["reason"], "done")

    def test_the_end_leaves_nothing_behind_in_the_playout(self) -> None:
        self.exchange.say(self.bot, 1.0)
        self.call.bot_command(PlayDTMF("12"))
        self.call.bot_command(Hangup())
        self.call.phone_gone()
        self.assertIs(self.call.outcome, Outcome.CALLER_HANGUP)
        now = self.exchange.clock.seconds()
        frames = [self.call.playout.read(now + number * 0.02) for number in range(100)]
        self.assertEqual({frame for frame in frames if frame}, {FRAME})  # no tones, no mark
        self.assertEqual(self.exchange.clock.getDelayedCalls(), [])

    def test_a_real_line_hears_speech_and_tones_to_the_last_sample(self) -> None:
        exchange = Exchange()
        clock = exchange.clock
        frames = FrameClock(clock, clock.seconds)
        line = AudioSocketConnection(
            exchange.calls.answer, frames, clock, LineOptions(), clock.seconds
        )
        asterisk = StrictAsterisk(clock, rate=16000)
        join(clock, asterisk, line)
        asterisk.start_audio()
        turn(clock, 0.1)
        [call] = exchange.calls.running
        call.bot_ready("bot-ready")
        speech = b"".join(number.to_bytes(2, "little") for number in range(1, 8001))
        exchange.runner.bots[0].playout.write(speech, 16000, 1, clock.seconds())
        call.bot_command(PlayDTMF("5"))
        call.bot_command(Hangup())
        turn(clock, 1.0)
        self.assertIs(call.outcome, Outcome.COMPLETED)
        self.assertIn(speech + dtmf("5", 16000), asterisk.pcm(16000))
        self.assertEqual((asterisk.ended, asterisk.faults), ("hangup received", []))


class TransferTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()
        self.call, self.phone, self.bot = self.exchange.talk()

    def test_the_bot_says_its_last_words_and_the_dialplan_takes_over(self) -> None:
        self.exchange.say(self.bot, 0.5)
        self.call.bot_command(Transfer("support"))
        self.assertEqual((self.call.state, self.bot.stops), (State.FINISHING, 1))
        self.phone.play(1.0)
        self.assertEqual(heard(self.phone), "s25")
        self.assertIs(self.call.outcome, Outcome.TRANSFERRED)
        self.assertIs(self.phone.cleanly, True)
        self.assertEqual(self.exchange.data("transfer"), [{"target": "support"}])
        self.assertEqual(self.exchange.calls.outcomes["transferred"], 1)

    def test_the_target_is_shown_while_it_finishes_and_after(self) -> None:
        self.assertIs(record(self.call).transfer, UNSET)
        self.call.bot_command(Transfer("support"))
        self.assertEqual(record(self.call).transfer, "support")
        self.phone.play(0.5)
        ended = self.exchange.record()
        self.assertEqual((ended["transfer"], ended["outcome"]), ("support", "transferred"))

    def test_the_first_command_counts(self) -> None:
        self.call.bot_command(Transfer("support"))
        for late in (Transfer("sales"), Hangup("no"), PlayDTMF("1")):
            self.call.bot_command(late)
        self.phone.play(0.5)
        self.assertEqual((self.call.transfer, self.call.outcome), ("support", Outcome.TRANSFERRED))
        self.assertEqual(self.phone.heard, [])
        self.assertEqual(self.exchange.kinds()[-2:], ["transfer", "call.ended"])

    def test_a_caller_who_hangs_up_before_is_not_transferred(self) -> None:
        self.exchange.say(self.bot, 0.5)
        self.call.bot_command(Transfer("support"))
        self.call.phone_gone()
        self.assertIs(self.call.outcome, Outcome.CALLER_HANGUP)


class VariablesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()
        self.call, self.phone, self.bot = self.exchange.talk()

    def test_they_are_kept_and_the_later_ones_win(self) -> None:
        self.call.bot_command(SetVariables({"TOPIC": "billing", "SCORE": "1"}))
        self.call.bot_command(SetVariables({"SCORE": "2"}))
        wanted = {"TOPIC": "billing", "SCORE": "2"}
        self.assertEqual(record(self.call).variables, wanted)
        self.call.phone_gone()
        self.assertEqual(self.exchange.record()["variables"], wanted)
        told = self.exchange.data("variables")
        self.assertEqual(told[1:], [{"variables": {"SCORE": "2"}}])

    def test_even_while_the_call_finishes(self) -> None:
        self.exchange.say(self.bot, 0.5)
        self.call.bot_command(Hangup())
        self.call.bot_command(SetVariables({"SCORE": "2"}))
        self.phone.play(1.0)
        self.assertEqual(self.exchange.record()["variables"], {"SCORE": "2"})

    def test_not_after_the_end(self) -> None:
        self.call.stop()
        self.call.bot_command(SetVariables({"SCORE": "2"}))
        self.assertEqual((self.call.variables, self.exchange.kinds()[-1]), ({}, "call.ended"))

    def test_too_many_are_refused_whole_and_what_was_there_stays(self) -> None:
        self.call.bot_command(SetVariables({"A": "x" * 900}))
        before = len(self.exchange.told)
        with self.assertRaisesRegex(CommandError, "expected up to 2000"):
            self.call.bot_command(SetVariables({"A": "y", "B": "x" * 1990}))
        self.assertEqual(self.call.variables, {"A": "x" * 900})
        self.assertEqual(len(self.exchange.told), before)
        self.call.bot_command(SetVariables({"A": "", "B": "x" * 900}))

    @settings(deadline=None)
    @given(st.lists(st.dictionaries(st.sampled_from("ABCDEFGH"), st.text(max_size=600))))
    def test_never_more_than_the_bound(self, settings: list[dict[str, str]]) -> None:
        variables, kept = Variables(), dict[str, str]()
        for each in settings:
            try:
                variables.set(each)
            except CommandError:
                continue
            kept.update(each)
        self.assertEqual(variables, kept)
        shown = ",".join(f'"{name}":"{value}"' for name, value in kept.items())
        self.assertLessEqual(len(shown.encode("utf-8", "surrogatepass")), MAX_BYTES)


class PlayDTMFTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.exchange = Exchange()
        self.call, self.phone, self.bot = self.exchange.talk()

    def test_after_what_was_said_before_and_before_what_is_said_then(self) -> None:
        self.exchange.say(self.bot, 0.2)
        self.call.bot_command(PlayDTMF("12#"))
        self.exchange.say(self.bot, 0.1)
        self.phone.play(1.2)
        self.assertEqual(heard(self.phone), "s10 t30 s5")
        self.assertEqual(b"".join(self.phone.heard[10:40]), dtmf("12#", 8000))
        self.assertEqual(self.exchange.data("play-dtmf"), [{"digits": "12#"}])
        self.assertIs(self.call.state, State.TALKING)

    def test_one_after_the_other(self) -> None:
        self.call.bot_command(PlayDTMF("1"))
        self.call.bot_command(PlayDTMF("2"))
        self.phone.play(0.5)
        self.assertEqual(b"".join(self.phone.heard), dtmf("12", 8000))

    def test_at_the_rate_that_the_phone_has_when_they_are_played(self) -> None:
        self.exchange.say(self.bot, 0.2)
        self.call.bot_command(PlayDTMF("7"))
        self.call.playout.set_rate(16000)
        self.phone.play(0.5)
        self.assertEqual(b"".join(self.phone.heard[-10:]), dtmf("7", 16000))

    def test_a_barge_in_drops_the_words_and_not_the_tones(self) -> None:
        self.exchange.say(self.bot, 2.0)
        self.call.bot_command(PlayDTMF("12"))
        self.call.playout.flush()
        self.phone.play(0.5)
        self.assertEqual(heard(self.phone), "t20")

    def test_a_bot_cannot_keep_the_line_busy_for_long(self) -> None:
        self.exchange.say(self.bot, 0.1)
        for _ in range(MAX_DIGITS // 50):
            self.call.bot_command(PlayDTMF("1" * 50))
        before = len(self.exchange.told)
        with self.assertRaisesRegex(CommandError, "of 1 digits while 200 wait"):
            self.call.bot_command(PlayDTMF("1"))
        self.assertEqual(len(self.exchange.told), before)
        self.phone.play(0.2)  # the first one has begun, the others wait
        self.call.bot_command(PlayDTMF("1"))
        self.phone.play(60)
        self.assertEqual(heard(self.phone), "s5 t2010")
