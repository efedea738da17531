"""The link to a bot, in memory: readiness, frames both ways, barge-in, backpressure, endings."""

from __future__ import annotations

import json
from itertools import permutations, product
from typing import Any

from autobahn.twisted.websocket import WebSocketAdapterProtocol

from pipecat_bridge.runner.link.early import CallerDigit, CallerText
from pipecat_bridge.runner.socket import protocol
from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.frames import LONGEST_TEXT
from tests.doubles import protobuf
from tests.doubles.bot import BotDouble
from tests.doubles.garbage import GARBAGE
from tests.hostile import plain
from tests.unit.bot_side import FRAME, BotSideCase, numbered, numbers, order, warnings
from tests.unit.turns import turn

HOWS = ("frame", "rtvi", "flush_media")


class ReadyTests(BotSideCase):
    def test_audio_waits_for_bot_ready_and_the_last_half_second_is_kept(self) -> None:
        for sockets in (1, 2):
            with self.subTest(sockets=sockets):
                side = self.make()
                side.speak(40)
                bot = side.bot(sockets, ready_after=0.3)
                side.speak(10, start=40)
                self.assertEqual(bot.audio, [])
                side.turn(0.2)
                self.assertEqual((bot.faults, bot.ready_sent), ([], True))
                self.assertEqual(numbers(bot), list(range(25, 50)))
                side.speak(5, start=50)
                self.assertEqual(numbers(bot), list(range(25, 55)))
                self.assertEqual(side.heard.names, ["connected", "ready"])

    def test_half_a_second_is_kept_to_the_sample(self) -> None:
        for size in (2, 42, 960, 2882, 100_000):
            with self.subTest(size=size):
                side = self.make()
                said = b""
                for number in range(200_000 // size):
                    frame = number.to_bytes(4, "big")[-2:] * (size // 2)
                    said += frame
                    side.link.send_audio(frame, 16000)
                bot = side.bot()
                self.assertEqual(bot.pcm(), said[-16000:])
                self.assertEqual(bot.faults, [])

    def test_how_much_is_kept_is_an_option(self) -> None:
        for seconds in (0.0, 0.1, 2.0):
            with self.subTest(seconds=seconds):
                side = self.make(keep_before_ready=seconds)
                said = side.speak(120)
                bot = side.bot()
                self.assertEqual(bot.pcm(), said[len(said) - round(32000 * seconds) :])

    def test_what_was_kept_may_change_its_rate(self) -> None:
        side = self.make()
        side.speak(20, rate=8000)
        side.speak(20, rate=16000)
        bot = side.bot()
        self.assertApproximates(len(bot.pcm()), 16000, 4)
        self.assertEqual(bot.pcm()[-12800:], b"".join(map(numbered, range(20))))

    def test_a_bot_without_rtvi_is_ready_after_the_timeout(self) -> None:
        for timeout in (1.0, 0.4):
            with self.subTest(timeout=timeout):
                side = self.make(ready_timeout=timeout)
                bot = side.bot(ready_after=None)
                said = side.speak(100)
                self.assertEqual(bot.faults, [])
                [first] = {frame.at for frame in bot.audio[:20]}
                self.assertApproximates(first, timeout + 0.002, 0.004)
                first_kept = round((timeout - 0.5) / FRAME) if timeout > 0.5 else 0
                self.assertApproximates(numbers(bot)[0], first_kept, 1)
                self.assertTrue(said.endswith(bot.pcm()))

    def test_a_ready_bot_is_not_made_ready_again(self) -> None:
        side = self.make()
        bot = side.bot()
        bot.rtvi("bot-ready")
        side.turn(2)
        self.assertEqual(side.heard.names, ["connected", "ready"])
        self.assertEqual(side.heard.ready_by, ["bot-ready"])

    def test_bot_ready_before_the_input_socket_is_there(self) -> None:
        side = self.make()
        bot = BotDouble(side.clock)
        side.dial(bot, "output")
        bot.rtvi("bot-ready")
        side.speak(10)
        side.link.send_message(CallerDigit("1"))
        self.assertEqual(side.heard.names, [])
        bot.ready_sent = True
        side.dial(bot, "input")
        self.assertEqual(side.heard.names, ["connected", "ready"])
        self.assertEqual(numbers(bot), list(range(10)))
        self.assertEqual([each["type"] for each in bot.messages], ["client-ready", "dtmf"])
        self.assertEqual(bot.faults, [])

    def test_messages_wait_for_bot_ready_and_go_before_the_audio(self) -> None:
        side = self.make()
        side.speak(3)
        for number in range(150):
            side.link.send_message(CallerText(str(number), True, True))
        bot = BotDouble(side.clock, ready_after=0.1)
        kinds = order(bot)
        side.dial(bot)
        self.assertEqual(kinds, ["message"])
        side.turn(0.2)
        self.assertEqual(kinds, ["message"] * 101 + ["audio"] * 3)
        said = [each["data"]["content"] for each in bot.messages[1:]]
        self.assertEqual(said, [str(number) for number in range(100)])

    def test_one_of_two_sockets_is_no_bot(self) -> None:
        side = self.make()
        bot = BotDouble(side.clock, ready_after=None)
        side.dial(bot, "input")
        side.turn(3)
        self.assertEqual((side.heard.names, bot.messages), ([], []))

    def test_a_socket_that_comes_to_a_call_that_has_ended_is_closed(self) -> None:
        side = self.make()
        side.link.close()
        bot = side.bot()  # its call ended after the server had let it in
        self.assertEqual([(how.clean, how.code) for how in bot.closes], [(True, 1000)])
        self.assertEqual(side.heard.names, [])
        self.assertEqual(side.clock.getDelayedCalls(), [])


class ToBotTests(BotSideCase):
    def test_audio_goes_out_in_the_turn_it_comes_at_the_rate_of_the_bot(self) -> None:
        for rate in (8000, 16000, 24000):
            with self.subTest(rate=rate):
                side = self.make(sample_rate=rate)
                bot = side.bot(expected_rate=rate)
                side.speak(50, rate=16000)
                self.assertApproximates(len(bot.pcm()), rate * 2, 2)
                self.assertEqual((bot.faults, {frame.rate for frame in bot.audio}), ([], {rate}))
                self.assertEqual(side.link.to_bot.stats.waits.count, 0)

    def test_the_phone_may_change_its_rate(self) -> None:
        side = self.make()
        bot = side.bot()
        for rate in (8000, 16000, 8000, 48000):
            before = len(bot.pcm())
            side.speak(50, rate=rate)
            self.assertApproximates(len(bot.pcm()) - before, 32000, 2)
        self.assertEqual(bot.faults, [])

    def test_a_frame_of_which_nothing_is_left_is_not_sent(self) -> None:
        side = self.make(sample_rate=8000)
        bot = side.bot(expected_rate=8000)
        for _ in range(12):
            side.link.send_audio(b"\1\1", 48000)
            side.turn(FRAME)
        self.assertEqual((len(bot.pcm()), bot.faults), (4, []))

    def test_messages_go_past_the_queue_and_are_never_dropped(self) -> None:
        side = self.make()
        bot = side.bot()
        side.speak(20)
        bot.stall()
        side.speak(250, start=20)
        for digit in "0123456789*#":
            side.link.send_message(CallerDigit(digit))
        side.link.send_message(CallerText("hello", True, True))
        self.assertGreater(side.link.to_bot.stats.dropped, 0)
        kinds = order(bot)
        bot.unstall()
        side.turn()
        # Behind what was in flight, before all that was in the queue.
        self.assertEqual(kinds, ["audio"] * 25 + ["message"] * 13 + ["audio"] * 125)
        self.assertEqual([each["type"] for each in bot.messages[1:]], ["dtmf"] * 12 + ["send-text"])
        pressed = [each["data"]["buttons"] for each in bot.messages[1:13]]
        self.assertEqual(pressed, [[digit] for digit in "0123456789*#"])


class FromBotTests(BotSideCase):
    def talk(self, **options: Any) -> BotDouble:
        side = self.make()
        bot = side.bot(**options)
        side.heard.events.clear()
        return bot

    def test_all_five_frames(self) -> None:
        bot, heard = self.talk(), self.side.heard
        bot.send_audio(numbered(7, 8000), 8000)
        bot.send(protobuf.encode("text", text="hello"))
        said = protobuf.encode("transcription", text="hi", user_id="u", timestamp="t")
        bot.send(said)
        bot.rtvi("bot-started-speaking")
        bot.rtvi("server-message", {"t": "transfer"})
        bot.interrupt()
        bot.send_audio(numbered(8, 8000), 8000)
        self.side.turn()
        self.assertEqual(
            heard.events,
            [
                rtvi.BotOutput("hello"),
                rtvi.UserTranscription("hi", True, "t", "u"),
                rtvi.BotStartedSpeaking(),
                rtvi.ServerMessage({"t": "transfer"}),
            ],
        )
        self.assertEqual(heard.names, ["connected", "ready", "interrupted"])
        self.assertEqual(self.side.played(), numbered(8, 8000))
        self.assertEqual(
            (self.side.link.from_bot.stats.frames_in, self.side.link.from_bot.stats.bad_frames),
            (2, 0),
        )

    def test_misspelt_commands_are_told_however_they_come(self) -> None:
        bot, heard = self.talk(), self.side.heard
        wrong = {"type": "hangupp"}
        bot.rtvi("server-message", wrong)
        bot.send(protobuf.encode("text", text=json.dumps(wrong)))
        bot.send(protobuf.encode("message", data=json.dumps(wrong)))
        self.side.turn()
        told = [text for kind, text in heard.warnings if kind == "bad-command"]
        self.assertEqual(len(told), 3)
        self.assertEqual({'of type "hangupp" is no command' in each for each in told}, {True})
        self.assertIn(rtvi.ServerMessage(wrong), heard.events)

    def test_every_shape_of_audio_arrives_whole(self) -> None:
        speech = b"".join(numbered(number, 8000) for number in range(100))
        for wav, stereo, odd in product((False, True), repeat=3):
            with self.subTest(wav=wav, stereo=stereo, odd=odd):
                bot = self.talk(wav_header=wav)
                bot.burst(speech, 8000, stereo=stereo, odd=odd)
                self.side.turn()
                self.assertEqual(self.side.played(), speech)
                self.assertEqual(self.side.link.from_bot.stats.bad_frames, 0)

    def test_one_frame_of_64_kb(self) -> None:
        bot = self.talk()
        bot.long_silence(16000)
        self.side.turn()
        self.assertEqual(self.side.playout.depth, 2.0)
        self.assertEqual(self.side.played(), bytes(32000))

    def test_the_rate_may_change_within_a_call(self) -> None:
        bot = self.talk()
        for rate in (24000, 16000, 8000, 48000, 24000):
            bot.burst(bytes(rate * 2), rate)
            self.side.turn()
        self.assertApproximates(self.side.playout.depth, 5.0, 0.021)
        self.assertEqual(self.side.link.from_bot.stats.bad_frames, 0)

    def test_a_rate_that_cannot_be_is_counted_and_the_call_goes_on(self) -> None:
        bot = self.talk()
        for rate in (0, 1, 7999, 192_001, 2**32 - 1):
            bot.send_audio(bytes(320), rate)
        self.side.turn()
        self.assertEqual(self.side.link.from_bot.stats.bad_frames, 5)
        warned = self.side.heard.warnings
        self.assertEqual([kind for kind, _ in warned], ["bad-message"] * 5)
        self.assertIn("sample rate of 0 Hz", warned[0][1])
        bot.send_audio(numbered(3, 8000), 8000)
        self.side.turn()
        self.assertEqual(self.side.played(), numbered(3, 8000))

    def test_a_bad_rate_does_not_disturb_the_conversion_of_good_ones(self) -> None:
        bot = self.talk()
        bot.burst(bytes(48000), 24000)
        bot.send_audio(bytes(320), 1)
        bot.burst(bytes(48000), 24000)
        self.side.turn()
        self.assertApproximates(self.side.playout.depth, 2.0, 0.021)

    def test_a_text_that_is_too_long_is_not_read(self) -> None:
        """A megabyte of JSON would take 0.1 s, and all calls would wait."""
        bot = self.talk()
        bot.rtvi("server-message", {"t": "x" * (LONGEST_TEXT - 200)})
        self.side.turn()
        self.assertEqual(self.side.heard.warnings, [])
        bot.rtvi("server-message", {"t": [0] * LONGEST_TEXT})
        self.side.turn()
        [(kind, text)] = self.side.heard.warnings
        self.assertEqual(kind, "bad-message")
        self.assertIn(f"without audio, expected up to {LONGEST_TEXT}", text)

    def test_garbage_is_told_and_counted_and_the_call_goes_on(self) -> None:
        harmless = {"no-channels"}
        for name in GARBAGE:
            with self.subTest(name=name):
                bot = self.talk()
                for _ in range(3):
                    bot.garbage(name)
                self.side.turn()
                faults = 0 if name in harmless else 3
                self.assertEqual(self.side.link.from_bot.stats.bad_frames, faults)
                warned = [kind for kind, _ in self.side.heard.warnings]
                self.assertEqual(warned, ["bad-message"] * faults)
                self.side.played()
                bot.send_audio(numbered(3, 8000), 8000)
                self.side.speak(3)
                self.assertEqual(self.side.played(), numbered(3, 8000))
                self.assertEqual((numbers(bot), bot.closes), ([0, 1, 2], []))

    def test_nested_without_end(self) -> None:
        bot = self.talk()
        depth = 100_000
        bot.send(protobuf.encode("message", data='{"type":' + "[" * depth + "]" * depth + "}"))
        self.side.turn()
        self.assertEqual((self.side.link.from_bot.stats.bad_frames, bot.closes), (1, []))

    def test_what_comes_after_our_close_is_nothing_to_us(self) -> None:
        bot = self.talk()
        bot.stall()
        self.side.link.close()
        bot.send_audio(numbered(1, 8000), 8000)
        bot.send(b"and more", binary=False)
        bot.unstall()
        self.side.turn()
        self.assertEqual((self.side.played(), self.side.heard.names[2:]), (b"", []))
        self.assertEqual([(how.clean, how.code) for how in bot.closes], [(True, 1000)])


class BargeInTests(BotSideCase):
    def setUp(self) -> None:
        super().setUp()
        self.bot = self.side.bot()

    def flushes(self) -> int:
        self.side.turn()
        flushes = self.side.playout.stats.flushes
        self.assertEqual(self.side.heard.names.count("interrupted"), flushes)
        return flushes

    def test_each_signal_alone(self) -> None:
        for done, how in enumerate(HOWS):
            self.bot.interrupt(how)
            self.assertEqual(self.flushes(), done + 1)
            self.side.turn(1)

    def test_any_mix_is_one_barge_in(self) -> None:
        mixes = [mix for size in (2, 3) for mix in permutations(HOWS, size)]
        for done, mix in enumerate(mixes):
            with self.subTest(mix=mix):
                for how in mix:
                    self.bot.interrupt(how)
                    self.side.turn(0.1)
                self.assertEqual(self.flushes(), done + 1)
                self.side.turn(1)

    def test_two_in_quick_succession_by_the_same_signal(self) -> None:
        for done, how in enumerate(HOWS):
            self.bot.interrupt(how)
            self.side.turn(0.05)
            self.bot.interrupt(how)
            self.assertEqual(self.flushes(), 2 * done + 2)
            self.side.turn(1)

    def test_two_in_quick_succession_told_twice_each_in_any_order(self) -> None:
        orders = set(permutations(["frame", "frame", "rtvi", "rtvi"]))
        for done, signals in enumerate(sorted(orders)):
            with self.subTest(signals=signals):
                for how in signals:
                    self.bot.interrupt(how)
                    self.side.turn(0.05)
                self.assertEqual(self.flushes(), 2 * done + 2)
                self.side.turn(1)

    def test_another_signal_much_later_is_another_barge_in(self) -> None:
        self.bot.interrupt("frame")
        self.side.turn(0.6)
        self.bot.interrupt("rtvi")
        self.assertEqual(self.flushes(), 2)

    def test_what_came_before_is_dropped_and_what_comes_after_is_kept(self) -> None:
        """Everything comes in one segment, as from a bot that answers at once."""
        for how in HOWS:
            with self.subTest(how=how):
                self.bot.burst(bytes(16000 * 10), 8000)
                self.bot.interrupt(how)
                self.bot.burst(numbered(9, 8000) * 5, 8000)
                self.side.turn()
                self.assertEqual(self.side.played(), numbered(9, 8000) * 5)
                self.side.turn(1)

    def test_a_second_telling_keeps_what_was_said_since_the_first(self) -> None:
        self.bot.send_audio(numbered(1, 8000), 8000)
        self.bot.interrupt("frame")
        self.bot.send_audio(numbered(2, 8000), 8000)
        self.bot.interrupt("rtvi")
        self.bot.interrupt("flush_media")
        self.bot.send_audio(numbered(3, 8000), 8000)
        self.side.turn()
        self.assertEqual(self.side.played(), numbered(2, 8000) + numbered(3, 8000))


class FullPlayoutTests(BotSideCase):
    def test_what_is_too_much_is_dropped_and_told_once(self) -> None:
        for sockets in (1, 2):
            with self.subTest(sockets=sockets):
                side = self.make(max_queue=1.0)
                bot = side.bot(sockets)
                speech = b"".join(numbered(number, 8000) for number in range(1000))
                bot.burst(speech, 8000)
                side.turn()
                self.assertFalse(side.transports[-1].paused)
                heard = side.played()
                self.assertEqual(heard, speech[: len(heard)])
                self.assertEqual(len(heard) // 16 + side.playout.stats.dropped_ms, 20_000)
                told = {text for kind, text in side.heard.warnings if kind == "queue-full"}
                self.assertEqual(told, {"audio of the bot was dropped: it is 1 s ahead"})
                self.assertEqual(bot.closes, [])

    def test_an_interruption_makes_room_at_once(self) -> None:
        side = self.make(max_queue=1.0)
        bot = side.bot()
        bot.burst(bytes(16000 * 2), 8000)
        bot.interrupt()
        bot.send_audio(numbered(5, 8000), 8000)
        side.turn()
        self.assertEqual(side.played(), numbered(5, 8000))

    def test_the_caller_is_heard_and_pings_are_answered_meanwhile(self) -> None:
        side = self.make(max_queue=1.0, ping_interval=1.0, ping_timeout=2.0)
        bot = side.bot()
        side.speak(50)
        bot.burst(bytes(16000 * 60), 8000)
        side.speak(250, start=50)
        self.assertEqual(numbers(bot), list(range(300)))
        self.assertEqual((side.link.to_bot.queued, side.link.to_bot.stats.dropped), (0, 0))
        self.assertEqual(side.heard.names[:2], ["connected", "ready"])
        self.assertEqual(bot.closes, [])


class StallTests(BotSideCase):
    def delay(self, bot: BotDouble, began: float, first: int) -> list[float]:
        """How late each frame from `first` on was read. Frame n was sent at n * 20 ms."""
        pairs = zip(numbers(bot), bot.audio, strict=True)
        return [frame.at - began - n * FRAME for n, frame in pairs if n >= first]

    def stall(self, **options: Any) -> tuple[int, int]:
        """Stall for 5 s. Returns the frames that were sent and not read, and late frames."""
        side = self.make(**options)
        bot = side.bot()
        began = side.clock.seconds()
        side.speak(50)
        self.assertLessEqual(max(self.delay(bot, began, 0)), 0.002)
        bot.stall()
        side.speak(250, start=50)
        unread = side.link.to_bot.stats.sent - len(bot.audio)
        late = side.link.to_bot.depth + unread
        bot.unstall()
        side.speak(100, start=300)
        # A second after the stall, and at once in fact.
        self.assertLessEqual(max(self.delay(bot, began, 305)), 0.002)
        self.assertEqual(numbers(bot), sorted(numbers(bot)))
        self.assertEqual(side.link.to_bot.stats.dropped, 400 - len(bot.audio))
        self.assertEqual(bot.faults, [])
        return unread, late

    def test_at_most_three_seconds_are_late_anywhere(self) -> None:
        for sockets in (1, 2):
            with self.subTest(sockets=sockets):
                unread, late = self.stall()
                self.assertEqual((unread, late), (25, 150))

    def test_the_window_is_what_bounds_the_hidden_part(self) -> None:
        """Without the window the buffers of the transport, here 64 KB twice, hide 4 s of audio."""
        unread, late = self.stall(in_flight=3600.0, queue_frames=10_000)
        self.assertEqual((unread, late), (200, 250))

    def test_a_stall_from_the_first_frame_on(self) -> None:
        side = self.make()
        bot = side.bot()
        bot.stall()
        side.speak(250)
        self.assertEqual(side.link.to_bot.stats.sent, 25)
        self.assertEqual(side.link.to_bot.queued, 150)

    def test_a_slow_bot_stays_near_the_present(self) -> None:
        full_speed = 50 * (640 + 13 + 4) + 5 * 14  # bytes a second: protobuf, WebSocket, pings
        for speed, bound in ((0.9, 1.4), (0.5, 3.0)):
            with self.subTest(speed=speed):
                side = self.make()
                bot = side.bot(read_rate=round(full_speed * speed), answers_pings=True)
                began = side.clock.seconds()
                side.speak(1000)
                late = self.delay(bot, began, 0)
                self.assertLess(max(late), bound)
                self.assertApproximates(len(bot.audio), 1000 * speed, 60)
                bot.read_rate = 10**9
                side.speak(100, start=1000)
                self.assertLessEqual(max(self.delay(bot, began, 1050)), 0.01)
                self.assertEqual(numbers(bot), sorted(numbers(bot)))

    def test_a_bot_that_answers_no_pings_is_not_held_up(self) -> None:
        side = self.make(ping_interval=1000.0)
        bot = side.bot(answers_pings=False)
        side.speak(500)
        self.assertEqual(numbers(bot), list(range(500)))
        self.assertEqual(side.link.to_bot.queued, 0)

    def test_pongs_of_the_output_socket_say_nothing_of_the_input_socket(self) -> None:
        side = self.make(ping_interval=0.5, ping_timeout=60.0)
        bot = side.bot(2)
        side.speak(50)
        bot.sockets["input"].stall(True)
        side.speak(100, start=50)
        self.assertEqual(side.link.to_bot.stats.sent - len(bot.audio), 25)


def texts(bot: BotDouble) -> int:
    """How many texts a bot has got."""
    return sum(message["type"] == "send-text" for message in bot.messages)


class UnreadTests(BotSideCase):
    """A bot that does not read gets a limited amount, of everything."""

    def test_keys_and_texts(self) -> None:
        side = self.make()
        bot = side.bot()
        bot.stall()
        text = CallerText("x" * 10_000, True, True)
        sent = [side.link.send_message(text) for _ in range(200)]
        self.assertLess(sum(sent), 60)
        self.assertEqual(sent, sorted(sent, reverse=True))
        self.assertFalse(side.link.send_message(CallerDigit("1")))
        bot.unstall()
        side.turn(0.1)
        self.assertTrue(side.link.send_message(CallerDigit("2")))
        side.turn(0.1)
        self.assertEqual(texts(bot), sum(sent))

    def test_of_many_pings_the_last_one_is_answered(self) -> None:
        side = self.make()
        bot = side.bot()
        bot.stall()
        before = side.transports[0].written
        socket = bot.sockets[None]
        for number in range(20_000):
            socket.sendPing(b"%06d" % number + bytes(100))
            if number % 200 == 0:
                side.turn(0)
        side.turn(0.1)
        self.assertLess(side.transports[0].written - before, 400_000)
        pongs: list[bytes] = []
        socket.onPong = pongs.append
        bot.unstall()
        side.turn(0.1)
        self.assertEqual(pongs[-1][:6], b"019999")

    def test_before_the_bot_is_ready(self) -> None:
        side = self.make()
        sent = [side.link.send_message(CallerText("x" * 10_000, True, True)) for _ in range(50)]
        self.assertEqual(sent, [True] * 26 + [False] * 24)
        bot = side.bot()
        side.turn(0.1)
        self.assertEqual(texts(bot), 26)

    def test_long_pieces_of_the_callers_audio_are_cut(self) -> None:
        side = self.make(queue_frames=20)
        bot = side.bot()
        side.turn()
        said = numbered(7, 16000) * 25
        side.link.send_audio(said, 16000)
        side.turn()
        self.assertEqual(bot.pcm(), said)
        self.assertEqual([len(frame.pcm) for frame in bot.audio], [3200] * 5)
        bot.stall()
        for _ in range(200):
            side.link.send_audio(said, 16000)
        side.turn(side.audio.push_timeout)
        self.assertLessEqual(side.link.to_bot.queued, 21)  # there is always room for one

    def test_tiny_pieces_of_early_audio_are_put_together(self) -> None:
        side = self.make()
        for _ in range(8000):
            side.link.send_audio(bytes(2), 16000)
        self.assertLessEqual(len(side.early.audio.pieces), 26)

    def test_a_phone_that_changes_its_rate_all_the_time(self) -> None:
        side = self.make()
        for number in range(1000):
            side.link.send_audio(bytes(2), (8000, 192000)[number % 2])
        self.assertLessEqual(len(side.early.audio.pieces), 75)
        side.link.send_audio(bytes(16000), 16000)  # half a second
        self.assertEqual(side.early.audio.pieces, [(bytes(16000), 16000)])


class EndTests(BotSideCase):
    def end(self) -> list[str]:
        self.side.turn(0.05)
        self.assertEqual(self.side.clock.getDelayedCalls(), [])
        return self.side.heard.names[2:]

    def test_a_clean_close_ends_and_anything_else_loses(self) -> None:
        for sockets, (code, end) in product(
            (1, 2), ((1000, "ended"), (1001, "ended"), (1011, "lost"), (3000, "lost"))
        ):
            with self.subTest(sockets=sockets, code=code):
                bot = self.make().bot(sockets)
                bot.burst(numbered(100, 8000), 8000)
                bot.close(code, "good bye")
                self.assertEqual(self.end(), [end])
                if end == "lost":
                    self.assertEqual(
                        self.side.heard.reasons, [f"the bot's WebSocket closed: good bye ({code})"]
                    )

    def test_nothing_counts_after_the_bot_has_closed(self) -> None:
        bot = self.make().bot()
        self.side.turn()
        bot.sockets[None].sendCloseFrame(code=1000)
        bot.burst(numbered(100, 8000), 8000)
        self.side.turn()
        self.assertTrue(self.side.playout.empty)

    def test_a_bot_that_does_not_answer_our_close_is_read_once_more(self) -> None:
        self.make().bot(2, answers_close=False)
        self.side.turn()
        output: Any = self.side.link.sockets.output
        output.close(1000, "over")
        output.onCloseHandshakeTimeout()  # this process may have stood still until now
        self.side.turn(0.05)
        self.assertEqual(self.side.heard.reasons, [])
        self.side.turn(0.2)
        self.assertIn("closing handshake timeout", self.side.heard.reasons[0])

    def test_after_a_frame_that_is_too_long_little_is_read_in_a_turn(self) -> None:
        bot = self.make(max_frame=2000).bot()
        self.side.turn()
        given: list[int] = []
        autobahn = WebSocketAdapterProtocol.dataReceived

        def take(socket: Any, data: bytes) -> None:
            if socket is self.side.link.sockets.input:
                given.append(len(data))
            autobahn(socket, data)

        self.patch(WebSocketAdapterProtocol, "dataReceived", take)
        socket: Any = self.side.link.sockets.input
        socket.dataReceived(plain.frame(bytes(2001)) + plain.frame(b"", plain.PING) * 5000)
        self.assertLessEqual(sum(given), 1024)
        while self.side.clock.getDelayedCalls():
            before = sum(given)
            turn(self.side.clock)
            if sum(given) == before:
                break
            self.assertLessEqual(sum(given) - before, 2048)
        self.assertGreater(sum(given), 30_000)
        bot.die()

    def test_a_message_of_very_many_frames_is_too_big(self) -> None:
        bot = self.make().bot()
        self.side.turn()
        socket = bot.sockets[None]
        socket.beginMessage(isBinary=True)
        for number in range(5000):
            socket.beginMessageFrame(0)
            socket.sendMessageFrameData(b"")
            if number % 100 == 0:
                self.side.turn(0)
        self.assertEqual(self.end(), ["lost"])
        self.assertIn("a message of more than 4096 frames (1009)", self.side.heard.reasons[0])

    def test_a_message_of_two_frames_may_come_in_more_pieces(self) -> None:
        self.patch(protocol, "MOST_FRAGMENTS", 4)
        self.make().bot()
        self.side.turn()
        first, last = plain.frame(b"text in ", plain.TEXT, first=0), plain.frame(b"two", 0)
        socket: Any = self.side.link.sockets.input
        for byte in first + last:
            socket.dataReceived(bytes((byte,)))
            self.side.turn(0)
        self.assertEqual(self.side.heard.reasons, [])
        self.assertIn("a text message of 11 bytes", self.side.heard.warnings[0][1])

    def test_a_reset_loses(self) -> None:
        bot = self.make().bot()
        bot.die()
        self.assertEqual(self.end(), ["lost"])
        self.assertIn("(1006)", self.side.heard.reasons[0])

    def test_what_waits_for_its_turn_is_taken_before_the_loss(self) -> None:
        bot = self.make().bot()
        said = b"".join(numbered(number, 8000) for number in range(1, 1500))
        bot.send(protobuf.encode("audio", audio=said, sample_rate=8000))
        while self.side.playout.empty:
            turn(self.side.clock)
        bot.die()
        turn(self.side.clock)
        turn(self.side.clock)
        self.assertEqual(self.side.heard.names, ["connected", "ready"])
        self.assertEqual(self.end(), ["lost"])
        self.assertEqual(self.side.played(), said)

    def test_both_sockets_are_closed_when_one_is_lost(self) -> None:
        for direction, other in (("input", "output"), ("output", "input")):
            with self.subTest(direction=direction):
                bot = self.make().bot(2)
                bot.sockets[direction].die()
                self.assertEqual(self.end(), ["lost"])
                self.assertEqual(
                    {(how.direction, how.clean) for how in bot.closes},
                    {(direction, False), (other, True)},
                )

    def test_the_last_words_are_heard_whichever_socket_closes_first(self) -> None:
        for direction in ("input", "output"):
            with self.subTest(direction=direction):
                bot = self.make().bot(2)
                bot.burst(numbered(300, 8000), 8000)
                self.side.turn()
                self.side.played()
                bot.sockets["output"]._tcp().pauseProducing()  # it reads our close late
                bot.sockets[direction].sendCloseFrame(code=1000)
                if direction == "input":
                    self.side.turn()
                    bot.burst(numbered(4, 8000) * 100, 8000)
                    self.side.turn()
                    self.assertEqual(self.side.heard.names, ["connected", "ready"])
                bot.sockets["output"]._tcp().resumeProducing()
                self.assertEqual(self.end(), ["ended"])
                expected = numbered(4, 8000) * 100 if direction == "input" else b""
                self.assertEqual(self.side.played(), expected)

    def test_a_socket_lost_before_the_other_came(self) -> None:
        for code in (1000, 1011):
            bot = BotDouble(self.make().clock)
            self.side.dial(bot, "input")
            bot.close(code, "good bye")
            self.side.turn(0.05)
            self.assertEqual(self.side.heard.names, ["failed"])
            [error] = self.side.heard.errors
            lost = "the bot was lost before it was ready: the bot's WebSocket closed: good bye"
            self.assertEqual(str(error), f"{lost} ({code}); it had sent nothing")

    def test_half_open(self) -> None:
        """Not even pongs come back: the bot is dropped `ping_timeout` after the first ping."""
        for interval, timeout in ((10.0, 20.0), (5.0, 2.0), (1.0, 2.5)):
            with self.subTest(interval=interval, timeout=timeout):
                side = self.make(ping_interval=interval, ping_timeout=timeout)
                side.bot(answers_pings=False)
                side.turn(interval + timeout - 0.2)
                self.assertEqual(side.heard.names, ["connected", "ready"])
                side.turn(0.4)
                self.assertEqual(self.end(), ["lost"])
                self.assertIn(f"no answer to a ping within {timeout:g} s", side.heard.reasons[0])

    def test_a_silent_bot_that_answers_pings_stays(self) -> None:
        side = self.make(ping_interval=1.0, ping_timeout=0.5)
        bot = side.bot(2)
        side.turn(20)
        self.assertEqual((side.heard.names, bot.closes), (["connected", "ready"], []))

    def test_a_bot_that_talks_and_answers_no_pings_stays(self) -> None:
        side = self.make(ping_interval=1.0, ping_timeout=0.5)
        bot = side.bot(answers_pings=False)
        for _ in range(100):
            bot.send_audio(bytes(320), 8000)
            side.turn(0.1)
        self.assertEqual((side.heard.names, bot.closes), (["connected", "ready"], []))

    def test_a_listener_that_ends_the_call_while_it_is_told(self) -> None:
        for told in ("link_connected", "bot_ready", "bot_event", "bot_interrupted"):
            with self.subTest(told=told):
                side = self.make()
                setattr(side.heard, told, lambda *_: self.side.link.close())
                bot = BotDouble(side.clock)
                with warnings() as said:
                    side.dial(bot)
                    bot.interrupt()
                    side.turn(0.05)
                self.assertEqual((side.clock.getDelayedCalls(), said), ([], []))
                self.assertEqual([(how.clean, how.code) for how in bot.closes], [(True, 1000)])

    def test_our_close(self) -> None:
        for sockets in (1, 2):
            with self.subTest(sockets=sockets):
                side = self.make()
                bot = side.bot(sockets)
                side.link.close()
                side.link.close()
                side.link.send_audio(bytes(640), 16000)
                side.link.send_message(CallerDigit("1"))
                self.assertEqual(self.end(), [])
                self.assertEqual([how.code for how in bot.closes], [1000] * sockets)
