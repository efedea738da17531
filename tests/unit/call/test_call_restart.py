"""A bot is lost during a call: hang up, continue in the dialplan, or start another bot."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.audio.delays import Delays
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import Outcome, State
from pipecat_bridge.call.record import quality, record
from pipecat_bridge.contracts import LinkStats, QueueStats
from pipecat_bridge.events.record import Delay
from pipecat_bridge.wire.commands import Hangup, SetVariables
from tests.doubles.asterisk import HUNG_UP, StrictAsterisk
from tests.doubles.link import join, turn
from tests.unit.files import scratch
from tests.unit.sides import FRAME, BotSide, Exchange, PhoneSide
from tests.unit.signals import tone, wav

UUID = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
OTHER_FRAME = b"\2\0" * 160


def waits(*seconds: float) -> Delays:
    """Frames that had to wait."""
    delays = Delays()
    for each in seconds:
        delays.add(each)
    return delays


class PolicyTests(SynchronousTestCase):
    def lose(self, policy: str, **options: Any) -> tuple[Call, PhoneSide]:
        exchange = Exchange(on_bot_lost=policy, **options)
        call, phone, bot = exchange.talk()
        exchange.say(bot, 0.5)
        call.bot_lost("connection", "reset by peer")
        return call, phone

    def test_the_caller_is_hung_up_on(self) -> None:
        call, phone = self.lose("hangup")
        self.assertEqual((call.outcome, call.reason), (Outcome.BOT_HANGUP, "reset by peer"))
        self.assertEqual((len(phone.hangups), phone.cleanly), (1, False))

    def test_the_dialplan_goes_on(self) -> None:
        call, phone = self.lose("dialplan")
        self.assertIs(call.outcome, Outcome.BOT_HANGUP)
        self.assertEqual((len(phone.hangups), phone.cleanly), (1, True))

    def test_no_restart_is_allowed(self) -> None:
        call, phone = self.lose("restart", max_restarts=0)
        self.assertIs(call.outcome, Outcome.BOT_HANGUP)
        self.assertIs(phone.cleanly, False)

    def test_hangup_is_the_default(self) -> None:
        call, phone, _ = Exchange().talk()
        call.bot_lost("connection", "reset")
        self.assertEqual((call.outcome, phone.cleanly), (Outcome.BOT_HANGUP, False))

    def test_every_other_end_is_in_good_order(self) -> None:
        for policy in ("hangup", "restart", "dialplan"):
            ends = (
                lambda call: call.stop(),
                lambda call: call.bot_failed("503", "runner"),
                lambda call: call.stop(Outcome.TIMEOUT),
            )
            for end in ends:
                call, phone, _ = Exchange(on_bot_lost=policy).call()
                end(call)
                self.assertEqual((call.state, phone.cleanly), (State.ENDED, True))

    def test_a_strict_asterisk_takes_it_for_an_error(self) -> None:
        for policy, ended in (
            ("hangup", HUNG_UP),
            ("dialplan", "hangup received"),
        ):
            exchange = Exchange(on_bot_lost=policy)
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
            call.bot_lost("connection", "reset")
            turn(clock, 2.0)
            self.assertEqual((asterisk.ended, asterisk.faults), (ended, []))
            self.assertEqual(clock.getDelayedCalls(), [])


class RestartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self, **options: Any) -> None:
        self.exchange = Exchange(on_bot_lost="restart", **options)
        self.exchange.calls.prepare(UUID, {"llm_type": "a"}, {"caller": "1"})
        self.call, self.phone, self.first = self.exchange.talk(UUID)

    def bots(self) -> list[BotSide]:
        return self.exchange.runner.bots

    def test_another_bot_is_asked_for_with_the_same_request(self) -> None:
        self.call.bot_lost("connection", "reset")
        first, second = self.bots()
        self.assertEqual((first.stops, second.starts), (1, 1))
        self.assertEqual((first.request.resumption, second.request.resumption), (0, 1))
        self.assertEqual(second.request.call_id, UUID)
        self.assertEqual(second.request.parameters, {"llm_type": "a"})
        self.assertEqual(second.request.metadata, {"caller": "1"})
        self.assertIs(second.listener, self.call)
        self.assertIs(self.call.state, State.RESUMING)
        self.assertEqual(self.phone.hangups, [])

    def test_not_before_the_lost_one_is_gone(self) -> None:
        self.begin_slowly()
        self.call.bot_lost("connection", "reset")
        first, second = self.bots()
        self.exchange.clock.advance(1.9)
        self.assertEqual((first.stops, second.starts), (1, 0))
        first.gone.callback(None)
        self.assertEqual(second.starts, 1)

    def begin_slowly(self) -> None:
        """A call whose runner takes a while to stop bots."""
        self.begin()
        self.exchange.runner.forgets_at_once = False
        self.first.gone = Deferred()

    def test_a_call_that_has_ended_meanwhile_gets_none(self) -> None:
        for end in (Call.stop, Call.phone_gone):
            self.begin_slowly()
            self.call.bot_lost("connection", "reset")
            first, second = self.bots()
            end(self.call)
            first.gone.callback(None)
            self.assertEqual((second.starts, second.stops), (0, 1))

    def test_it_goes_on_with_events(self) -> None:
        self.call.bot_lost("connection", "reset")
        self.call.bot_ready("bot-ready")
        self.assertIs(self.call.state, State.TALKING)
        told = [(event.kind, json.loads(event.body)) for event in self.exchange.told[-2:]]
        lost = ("bot.lost", {"reason": "reset", "runner": "http://runner-1:8000"})
        resumed = ("bot.resumed", {"resumption": 1, "runner": "http://runner-2:8000"})
        self.assertEqual(told, [lost, resumed])
        self.assertEqual(self.exchange.kinds().count("call.ready"), 1)
        self.call.bot_ended()
        self.phone.play(0.2)
        self.assertIs(self.call.outcome, Outcome.COMPLETED)

    def test_the_lost_bot_is_named_so_that_its_runner_is_avoided(self) -> None:
        self.call.bot_lost("connection", "reset")
        self.assertEqual([bot.lost for bot in self.bots()], [None, self.first])

    def test_the_outcome_is_that_of_the_loss(self) -> None:
        for cause, outcome in (("error", "bot-error"), ("silent", "bot-silent")):
            self.begin()
            self.exchange.runner.refuses = "503"
            self.call.bot_lost(cause, "why")
            assert self.call.outcome is not None
            self.assertEqual((self.call.outcome.value, self.phone.cleanly), (outcome, False))
            self.assertEqual(self.call.reason, "why; no other bot came: 503")

    def test_the_caller_is_joined_to_the_new_link_at_once(self) -> None:
        self.begin_slowly()
        self.call.bot_lost("connection", "reset")
        second = self.bots()[1]
        assert self.phone.sink is not None
        self.phone.sink(FRAME, 8000)
        self.call.caller_digit("5")
        self.call.bot.send_text("hello", True, True)
        link = second.link
        self.assertEqual((link.audio, link.digits), ([(FRAME, 8000)], "5"))
        self.assertEqual(link.texts, [("hello", True, True)])
        self.assertIs(self.phone.playout, second.playout)

    def test_what_the_lost_bot_had_said_is_played_out_first(self) -> None:
        self.exchange.say(self.first, 0.5)
        self.call.bot_lost("connection", "reset")
        self.phone.play(0.1)
        self.call.bot_ready("bot-ready")
        self.bots()[1].playout.write(OTHER_FRAME, 8000, 1, self.exchange.clock.seconds())
        self.phone.play(0.6)
        self.assertEqual(self.phone.heard, [FRAME] * 25 + [OTHER_FRAME])

    def test_half_a_sample_of_the_lost_bot_does_not_shift_the_new_ones(self) -> None:
        now = self.exchange.clock.seconds()
        self.first.playout.write(FRAME + b"\x55", 8000, 1, now)
        self.call.bot_lost("connection", "reset")
        self.call.bot_ready("bot-ready")
        self.bots()[1].playout.write(OTHER_FRAME, 8000, 1, now)
        self.phone.play(0.2)
        self.assertEqual(self.phone.heard, [FRAME, OTHER_FRAME])

    def test_at_most_so_many_in_a_call(self) -> None:
        self.begin(max_restarts=2)
        for number in range(2):
            self.call.bot_lost("connection", f"reset {number}")
            self.call.bot_ready("bot-ready")
        self.call.bot_lost("connection", "reset once more")
        self.assertEqual(len(self.bots()), 3)
        self.assertEqual([bot.request.resumption for bot in self.bots()], [0, 1, 2])
        self.assertEqual([(bot.starts, bot.stops) for bot in self.bots()], [(1, 1)] * 3)
        self.assertEqual(self.call.outcome, Outcome.BOT_HANGUP)
        self.assertEqual((self.call.reason, self.phone.cleanly), ("reset once more", False))

    def test_the_new_bot_does_not_come(self) -> None:
        self.exchange.runner.refuses = "503"
        self.call.bot_lost("connection", "reset")
        self.assertIs(self.call.outcome, Outcome.BOT_HANGUP)
        self.assertEqual(self.call.reason, "reset; no other bot came: 503")
        self.assertIs(self.phone.cleanly, False)
        self.assertEqual(self.exchange.kinds()[-3:], ["bot.lost", "bot.error", "call.ended"])

    def test_what_was_kept_with_the_call_stays(self) -> None:
        self.call.bot_command(SetVariables({"TOPIC": "billing"}))
        self.call.bot_lost("connection", "reset")
        self.call.bot_ready("bot-ready")
        self.call.bot_command(SetVariables({"SCORE": "1"}))
        self.assertEqual(record(self.call).variables, {"TOPIC": "billing", "SCORE": "1"})

    def test_the_new_bot_hangs_up(self) -> None:
        self.call.bot_lost("connection", "reset")
        self.call.bot_ready("bot-ready")
        self.call.bot_command(Hangup("done"))
        self.phone.play(0.2)
        self.assertEqual((self.call.outcome, self.call.reason), (Outcome.COMPLETED, "done"))
        self.assertEqual([bot.stops for bot in self.bots()], [1, 1])

    def test_the_record_names_the_runner_of_the_last_one(self) -> None:
        self.assertEqual(record(self.call).runner, "http://runner-1:8000")
        self.call.bot_lost("connection", "reset")
        self.call.bot_ready("bot-ready")
        self.call.stop()
        self.assertEqual(self.exchange.record()["runner"], "http://runner-2:8000")

    def test_counters_are_those_of_all_bots_together(self) -> None:
        link, queue = self.first.link.stats, self.first.link.queue_stats
        for counters in (link, queue):
            for number, field in enumerate(fields(counters), 1):
                setattr(counters, field.name, number)
        queue.waits = waits(0.4)
        before = quality(self.call)
        self.call.bot_lost("connection", "reset")
        self.assertEqual(quality(self.call), replace(before, bots_replaced=1))
        second = self.bots()[1].link
        second.stats = LinkStats(frames_in=10, bad_frames=20)
        second.queue_stats = QueueStats(sent=3, dropped=100, depth_max=2, waits=waits(0.1, 0.3))
        after = quality(self.call)
        self.assertEqual(after.bot_frames - before.bot_frames, 10)
        self.assertEqual(after.bot_frames_bad - before.bot_frames_bad, 20)
        self.assertEqual(after.caller_frames_dropped - before.caller_frames_dropped, 100)
        self.assertEqual(after.caller_queue_max, before.caller_queue_max)
        # 0.8 s of wait in all, for four frames; and 5 s of filter.
        self.assertEqual(queue.filter_delay, 5.0)
        self.assertEqual(after.caller_delay_ms, Delay(mean=5200.0, p95=5400.0, max=5400.0))


class NoHoldFileTests(SynchronousTestCase):
    def heard(self, **options: Any) -> bytes:
        exchange = Exchange(on_bot_lost="restart", **options)
        call, phone, _ = exchange.talk()
        call.bot_lost("connection", "reset")
        phone.play(3.0)
        return b"".join(phone.heard)

    def test_a_quiet_beep_by_default(self) -> None:
        heard = np.frombuffer(self.heard(), "<i2")
        self.assertEqual(len(heard), 24000)
        self.assertTrue(500 < np.abs(heard).max() < 3500)
        self.assertGreater(np.count_nonzero(np.abs(heard) < 5), 20000)

    def test_silence_on_demand(self) -> None:
        self.assertEqual(self.heard(hold_file="none"), b"")


class HoldTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.music = tone(440, 8000, 1.0)
        path = scratch(self)
        path.write_bytes(wav(self.music, 8000))
        self.exchange = Exchange(on_bot_lost="restart", hold_file=str(path))
        self.call, self.phone, self.first = self.exchange.talk()

    def heard(self) -> bytes:
        return b"".join(self.phone.heard)

    def test_music_until_the_new_bot_is_ready(self) -> None:
        self.phone.play(0.2)
        self.assertEqual(self.heard(), b"")
        self.call.bot_lost("connection", "reset")
        self.phone.play(1.5)
        self.assertEqual(self.heard(), (self.music * 2)[: int(1.5 * 16000)])
        self.call.bot_ready("bot-ready")
        self.phone.heard.clear()
        self.phone.play(1.0)
        self.assertEqual(self.heard(), b"")

    def test_after_the_lost_bots_last_words(self) -> None:
        self.exchange.say(self.first, 0.2)
        self.call.bot_lost("connection", "reset")
        self.phone.play(0.5)
        self.assertEqual(self.phone.heard[:10], [FRAME] * 10)
        self.assertEqual(b"".join(self.phone.heard[10:]), self.music[: 15 * 320])

    def test_a_second_loss_begins_it_anew(self) -> None:
        for _ in range(2):
            self.phone.heard.clear()
            self.call.bot_lost("connection", "reset")
            self.phone.play(0.5)
            self.assertEqual(self.heard(), self.music[: 25 * 320])
            self.call.bot_ready("bot-ready")

    def test_a_goodbye_is_not_followed_by_music(self) -> None:
        self.call.bot_lost("connection", "reset")
        self.phone.play(0.1)
        self.call.bot_ready("command")
        self.call.bot_command(Hangup())
        self.phone.heard.clear()
        self.phone.play(0.5)
        self.assertEqual((self.heard(), self.call.outcome), (b"", Outcome.COMPLETED))

    def test_without_a_loss_there_is_none(self) -> None:
        self.phone.play(0.5)
        self.call.bot_ended()
        self.phone.play(0.5)
        self.assertEqual(self.heard(), b"")
