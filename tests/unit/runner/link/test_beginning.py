"""When a bot is ready, and what happens to messages that it sent before."""

from __future__ import annotations

from typing import Any

from pipecat_bridge.audio import g711
from pipecat_bridge.errors import PeerBusyError, brief
from pipecat_bridge.runner.link.beginning import MAX_HELD
from pipecat_bridge.runner.link.early import CallerDigit
from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.commands import Hangup, SetVariables
from tests.doubles import protobuf
from tests.doubles.bot import BotDouble, riff_header
from tests.unit.bot_side import BotSideCase, numbered, numbers

SOUND = numbered(700, 8000)


LONG = "\x1b[2J" + "x" * 10_000


class ReadyByTests(BotSideCase):
    def silent_bot(self, **options: Any) -> BotDouble:
        """A bot that has connected and sends nothing by itself."""
        return self.make(ready_timeout=5.0).bot(ready_after=None, dies_before=None, **options)

    def test_its_first_audio(self) -> None:
        bot = self.silent_bot()
        self.assertEqual(self.side.heard.names, ["connected"])
        bot.burst(SOUND, 8000)
        self.side.turn()
        self.assertEqual(self.side.heard.ready_by, ["audio"])
        self.assertEqual(self.side.played(), SOUND)

    def test_silence_is_audio_too(self) -> None:
        """As Pipecat sends it at the end: with a WAV header, or with the dither of mu-law."""
        for quiet in (bytes(320), riff_header(320, 8000, 1) + bytes(320), b"\xf8\xff\0\0" * 80):
            bot = self.silent_bot()
            bot.send_audio(quiet, 8000)
            self.side.turn()
            self.assertEqual(self.side.heard.ready_by, ["audio"])
            self.assertFalse(self.side.link.from_bot.stats.spoke)
            bot.send_audio(b"\x15\0", 8000)
            self.side.turn()
            self.assertTrue(self.side.link.from_bot.stats.spoke)

    def test_no_audio_is_none(self) -> None:
        bot = self.silent_bot()
        bot.send_audio(b"", 8000)
        self.side.turn()
        self.assertEqual(self.side.heard.ready_by, [])

    def test_a_command_to_end_the_call(self) -> None:
        bot = self.silent_bot()
        bot.rtvi("server-message", {"type": "hangup", "reason": "blocked"})
        self.side.turn()
        self.assertEqual(self.side.heard.ready_by, ["command"])
        self.assertEqual(self.side.heard.commands, [Hangup("blocked")])

    def test_other_messages_wait_until_it_is_ready(self) -> None:
        bot = self.silent_bot()
        bot.rtvi("server-message", {"type": "set", "variables": {"A": "1"}})
        bot.rtvi("bot-started-speaking")
        self.side.turn()
        heard = self.side.heard
        self.assertEqual((heard.ready_by, heard.events, heard.commands), ([], [], []))
        bot.burst(SOUND, 8000)
        self.side.turn()
        self.assertEqual(heard.commands, [SetVariables({"A": "1"})])
        self.assertIn(rtvi.BotStartedSpeaking(), heard.events)
        self.assertEqual(self.side.played(), SOUND)

    def test_a_message_that_cannot_be_read_is_told_once_it_is_ready(self) -> None:
        bot = self.silent_bot()
        bot.send(b"\xff\xff\xff")
        self.side.turn()
        self.assertEqual(self.side.heard.warnings, [])
        bot.burst(SOUND, 8000)
        self.side.turn()
        [(kind, text)] = self.side.heard.warnings
        self.assertEqual(kind, "bad-message")
        self.assertIn("a message from the bot was dropped: ", text)
        self.assertEqual(self.side.link.from_bot.stats.bad_frames, 1)

    def test_of_a_failed_bot_it_is_no_more_than_part_of_the_reason(self) -> None:
        bot = self.silent_bot()
        for _ in range(30):
            bot.send(b"\xff\xff\xff")
        self.side.turn()
        bot.close(1011, "no")
        self.side.turn(0.05)
        heard = self.side.heard
        self.assertEqual(heard.warnings, [])
        self.assertIn("(1011); a message from the bot was dropped: ", str(heard.errors[0]))

    def test_a_wrong_message_that_was_held_costs_nothing_else(self) -> None:
        bot = self.silent_bot()
        bot.send_audio(b"", 1)
        bot.rtvi("bot-started-speaking")
        bot.burst(SOUND, 8000)
        self.side.turn()
        self.assertEqual([kind for kind, _ in self.side.heard.warnings], ["bad-message"])
        self.assertEqual(self.side.heard.events, [rtvi.BotStartedSpeaking()])

    def test_surviving_the_timeout(self) -> None:
        self.silent_bot()
        self.side.turn(4.9)
        self.assertEqual(self.side.heard.names, ["connected"])
        self.side.turn(0.2)
        self.assertEqual(self.side.heard.ready_by, ["timeout"])

    def test_bot_ready_after_the_timeout_is_told(self) -> None:
        bot = self.silent_bot()
        self.side.turn(20)
        bot.rtvi("bot-ready", {"version": "1.0.0"})
        bot.rtvi("bot-ready", {"version": "1.0.0"})
        self.side.turn()
        [(kind, text)] = self.side.heard.warnings
        self.assertEqual(kind, "bot-late")
        self.assertIn("bot-ready came 20.0 s after the bot connected", text)


class LostBeforeReadyTests(BotSideCase):
    def failed(self, bot: BotDouble) -> str:
        """The reason of the failed start. Checks that nothing of the bot is left."""
        self.side.turn(0.05)
        heard = self.side.heard
        self.assertEqual(heard.names[-1:], ["failed"])
        self.assertEqual((heard.events, heard.commands, heard.ready_by), ([], [], []))
        self.assertEqual(self.side.played(), b"")
        self.assertEqual(bot.sockets, {})
        self.assertEqual(self.side.clock.getDelayedCalls(), [])
        return str(heard.errors[0])

    def bot(self) -> BotDouble:
        bot = self.make().bot(ready_after=0.5)
        self.side.speak(2)
        return bot

    def test_any_close(self) -> None:
        for code in (1000, 1001, 1011, 4003):
            bot = self.bot()
            bot.close(code, "no")
            lost = f"the bot was lost before it was ready: the bot's WebSocket closed: no ({code})"
            self.assertEqual(self.failed(bot), f"{lost}; it had sent nothing")
            self.assertNotIsInstance(self.side.heard.errors[0], PeerBusyError)

    def test_a_reset(self) -> None:
        bot = self.bot()
        bot.die()
        self.assertIn("(1006)", self.failed(bot))

    def test_a_server_that_restarts_or_has_another_client_is_busy(self) -> None:
        for code in (1012, 1013):
            bot = self.bot()
            bot.close(code, "later")
            self.assertIn(f"({code})", self.failed(bot))
            self.assertIsInstance(self.side.heard.errors[0], PeerBusyError)

    def test_a_fatal_error(self) -> None:
        bot = self.bot()
        bot.rtvi("error", {"error": "no API key", "fatal": True})
        self.assertEqual(self.failed(bot), "the bot reported a fatal error: no API key")

    def test_of_a_long_error_the_beginning_is_told(self) -> None:
        for fatal in (False, True):
            bot = self.bot()
            bot.rtvi("error", {"error": LONG, "fatal": fatal})
            if not fatal:
                bot.close(1000, "bye")
            self.assertTrue(self.failed(bot).endswith(f"error: {brief(LONG)}"))

    def test_an_error_before_the_close_is_told_with_it(self) -> None:
        bot = self.bot()
        bot.rtvi("error", {"error": "quota exceeded", "fatal": False})
        bot.close(1000, "bye")
        self.assertTrue(self.failed(bot).endswith("; its last error: quota exceeded"))

    def test_another_protocol(self) -> None:
        bot = self.bot()
        bot.send(b'{"event": "connected"}', binary=False)
        self.assertEqual(
            self.failed(bot),
            "the bot speaks another protocol: a text message of 22 bytes, expected binary",
        )

    def test_between_its_two_sockets(self) -> None:
        for direction in ("input", "output"):
            self.make()
            bot = BotDouble(self.side.clock)
            self.side.dial(bot, direction)  # type: ignore[arg-type]
            bot.die()
            self.assertIn("lost before it was ready", self.failed(bot))

    def test_what_it_said_on_the_output_socket_before_the_input_socket_came(self) -> None:
        self.make()
        bot = BotDouble(self.side.clock)
        self.side.dial(bot, "output")
        bot.rtvi("bot-ready", {"version": "1.0.0"})
        bot.burst(SOUND * 5, 8000)
        bot.rtvi("server-message", {"type": "transfer", "target": "support"})
        self.side.turn()
        self.assertEqual(self.side.heard.names, [])
        bot.die()
        self.failed(bot)

    def test_too_much_of_that_is_not_read(self) -> None:
        self.make(max_queue=120.0)
        bot = BotDouble(self.side.clock)
        self.side.dial(bot, "output")
        bot.burst(bytes(2 * MAX_HELD), 24000)
        self.side.turn()
        [output] = self.side.transports
        self.assertTrue(output.paused)
        bot.ready_sent = True
        self.side.dial(bot, "input")
        self.side.turn()
        self.assertFalse(output.paused)
        self.assertEqual(self.side.heard.ready_by, ["audio"])

    def test_too_much_of_any_kind_is_not_read(self) -> None:
        self.make()
        bot = BotDouble(self.side.clock)
        self.side.dial(bot, "output")
        said = protobuf.encode("transcription", text="word " * 10_000, user_id="", timestamp="")
        for _ in range(2 * MAX_HELD // len(said)):
            bot.send(said)
        self.side.turn()
        [output] = self.side.transports
        self.assertTrue(output.paused)

    def test_the_caller_is_kept_for_the_next_bot(self) -> None:
        bot = self.bot()
        self.side.link.send_message(CallerDigit("5"))
        bot.die()
        self.side.turn(0.05)
        early = self.side.early
        self.assertEqual(len(early.audio.pieces), 2)
        self.assertEqual(early.messages, [CallerDigit("5")])


class LostAfterReadyTests(BotSideCase):
    def talk(self) -> BotDouble:
        bot = self.make().bot()
        bot.burst(SOUND, 8000)
        self.side.turn()
        return bot

    def test_a_fatal_error_and_a_clean_close(self) -> None:
        bot = self.talk()
        bot.rtvi("error", {"error": "out of credit", "fatal": True})
        bot.close()
        self.side.turn(0.05)
        [loss] = self.side.heard.losses
        self.assertEqual(loss.cause, "error")
        self.assertEqual(loss.reason, "the bot reported a fatal error: out of credit")
        self.assertIn(("bot-error", "the bot reports an error: out of credit"), self.heard())
        self.assertEqual(self.side.clock.getDelayedCalls(), [])

    def heard(self) -> list[tuple[str, str]]:
        return self.side.heard.warnings

    def test_of_a_long_error_the_beginning_is_told(self) -> None:
        bot = self.talk()
        bot.rtvi("error", {"error": LONG, "fatal": True})
        bot.close()
        self.side.turn(0.05)
        [loss] = self.side.heard.losses
        self.assertEqual(loss.reason, f"the bot reported a fatal error: {brief(LONG)}")
        self.assertIn(("bot-error", f"the bot reports an error: {brief(LONG)}"), self.heard())

    def test_a_fatal_error_of_a_bot_that_stays(self) -> None:
        bot = self.talk()
        bot.rtvi("error", {"error": "out of credit", "fatal": True})
        self.side.turn(1.9)
        self.assertEqual(self.side.heard.losses, [])
        self.side.turn(0.2)
        self.assertEqual([loss.cause for loss in self.side.heard.losses], ["error"])

    def test_an_error_that_is_not_fatal(self) -> None:
        bot = self.talk()
        bot.rtvi("error", {"error": "one request failed", "fatal": False})
        bot.close()
        self.side.turn(0.05)
        self.assertEqual((self.side.heard.losses, self.side.heard.names[-1]), ([], "ended"))

    def test_an_end_without_a_word(self) -> None:
        for sends in (b"", bytes(32000 * 2)):  # as Pipecat does at an EndFrame: 2 s of silence
            bot = self.make().bot()
            bot.burst(sends, 16000)
            bot.close()
            self.side.turn(0.05)
            [loss] = self.side.heard.losses
            self.assertEqual(loss.cause, "silent")

    def test_a_restart_of_its_server_is_busy(self) -> None:
        for code, busy in ((1012, True), (1013, True), (1011, False)):
            bot = self.talk()
            bot.close(code, "later")
            self.side.turn(0.05)
            [loss] = self.side.heard.losses
            self.assertEqual((loss.cause, loss.busy), ("connection", busy))

    def test_another_protocol_is_only_counted(self) -> None:
        bot = self.talk()
        bot.send(b"hello", binary=False)
        self.side.turn()
        self.assertEqual([kind for kind, _ in self.heard()], ["bad-message"])
        self.assertEqual(numbers(bot), [])
        self.assertEqual(g711.decode("ulaw", b"\xff"), bytes(2), "silence of Twilio's is silence")
