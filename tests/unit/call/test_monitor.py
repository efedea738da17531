"""Both sides of a call are heard at the phone."""

from __future__ import annotations

from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.call.monitor import Monitor
from pipecat_bridge.events.record import Talk


def frame(level: int, rate: int = 8000) -> bytes:
    """A frame in which each sample is `level`."""
    return level.to_bytes(2, "little") * (frame_bytes(rate) // 2)


CALLER, BOT, SILENCE = 2000, 3000, 0


class Line:
    """A phone, a bot and the monitor between them."""

    def __init__(self) -> None:
        self.bot: list[tuple[bytes, int]] = []
        self.taken: list[tuple[bytes, bytes, int]] = []
        self.monitor = Monitor()
        self.sink = self.monitor.beside(lambda pcm, rate: self.bot.append((pcm, rate)))

    def turn(self, seconds: float, caller: int, bot: int | None, rate: int = 8000) -> None:
        """Both sides send a frame every 20 ms; the bot none for None."""
        for _ in range(round(seconds / 0.02)):
            self.monitor.sent(None if bot is None else frame(bot, rate), rate)
            self.sink(frame(caller, rate), rate)

    def take(self) -> None:
        self.monitor.take = lambda *taken: self.taken.append(taken)

    def sides(self) -> tuple[bytes, bytes]:
        """All that was taken, of the caller and of the bot."""
        callers, bots, _ = zip(*self.taken, strict=True)
        return b"".join(callers), b"".join(bots)

    def talk(self) -> Talk:
        self.monitor.close()
        return self.monitor.conversation.talk(0, UNSET)


class ConversationTests(SynchronousTestCase):
    def test_both_sides_reach_it(self) -> None:
        line = Line()
        line.turn(1.0, SILENCE, None)
        line.turn(2.0, CALLER, None)
        line.turn(0.5, SILENCE, SILENCE)
        line.turn(3.0, SILENCE, BOT)
        talk = line.talk()
        self.assertEqual((talk.caller_utterances, talk.bot_utterances), (1, 1))
        self.assertApproximates(talk.caller_talk, 2.0, 0.021)
        self.assertApproximates(talk.bot_talk, 3.0, 0.021)
        assert talk.answers is not UNSET
        self.assertApproximates(talk.answers.max, 0.5, 0.041)
        self.assertEqual(talk.first_answer, 3.5)

    def test_nothing_is_heard_of_a_call_without_audio(self) -> None:
        line = Line()
        self.assertEqual(line.talk().caller_talk, 0.0)

    def test_a_change_of_the_rate_in_the_call(self) -> None:
        line = Line()
        line.turn(1.3, CALLER, None)
        line.turn(1.3, CALLER, None, 16000)
        line.turn(0.3, SILENCE, None, 16000)
        line.turn(1.5, SILENCE, BOT, 16000)
        line.turn(1.5, SILENCE, BOT)
        talk = line.talk()
        self.assertEqual((talk.caller_utterances, talk.bot_utterances), (1, 1))
        self.assertApproximates(talk.caller_talk, 2.6, 0.061)
        self.assertApproximates(talk.bot_talk, 3.0, 0.061)

    def test_the_caller_has_another_rate_a_moment_before_the_phone_gets_it(self) -> None:
        line = Line()
        line.turn(0.5, CALLER, None)
        for _ in range(10):  # each would be two frames of 8000 Hz
            line.sink(frame(CALLER, 16000), 16000)
        line.turn(0.5, CALLER, None, 16000)
        line.take()
        self.assertApproximates(line.talk().caller_talk, 1.0, 0.061)
        self.assertEqual({rate for _, _, rate in line.taken}, {16000})

    def test_it_goes_on_after_a_close(self) -> None:
        line = Line()
        line.turn(1.0, CALLER, None)
        self.assertEqual(line.talk().caller_talk, 1.0)
        line.turn(1.0, CALLER, None)
        self.assertApproximates(line.talk().caller_talk, 2.0, 0.021)


class SinkTests(SynchronousTestCase):
    def test_the_bot_gets_all_of_it(self) -> None:
        line = Line()
        line.sink(frame(CALLER), 8000)  # before the first frame to the phone
        line.turn(0.04, CALLER, None)
        line.sink(frame(CALLER, 16000), 16000)
        sent = [(frame(CALLER), 8000)] * 3 + [(frame(CALLER, 16000), 16000)]
        self.assertEqual(line.bot, sent)

    def test_who_records_gets_both_sides(self) -> None:
        line = Line()
        line.take()
        line.turn(2.4, CALLER, None)
        line.turn(2.0, SILENCE, BOT)
        line.monitor.close()
        caller, bot = line.sides()
        self.assertEqual((len(caller), len(bot)), (220 * 320, 220 * 320))
        self.assertEqual(caller, frame(CALLER) * 120 + frame(SILENCE) * 100)
        self.assertEqual(bot, frame(SILENCE) * 120 + frame(BOT) * 100)

    def test_and_at_the_rate_of_the_line(self) -> None:
        line = Line()
        line.take()
        line.turn(1.5, CALLER, BOT)
        line.turn(1.5, CALLER, BOT, 16000)
        line.monitor.close()
        seconds = {8000: 0.0, 16000: 0.0}
        for caller, bot, rate in line.taken:
            self.assertEqual(len(caller), len(bot))
            self.assertEqual(set(bot), set(frame(BOT)))
            seconds[rate] += len(bot) / 2 / rate
        self.assertEqual(seconds, {8000: 1.5, 16000: 1.5})

    def test_a_stall_is_a_hole_and_takes_nothing_from_the_caller(self) -> None:
        """The phone got nothing for a time, and what the caller said in it comes at once."""
        for stall in (5, 40, 200):
            line = Line()
            line.take()
            line.turn(0.5, CALLER, BOT)
            line.monitor.sent(bytes(stall * 320), 8000)
            for _ in range(stall):
                line.sink(frame(CALLER), 8000)
            line.turn(2.5, CALLER, BOT)
            line.monitor.close()
            caller, bot = line.sides()
            self.assertEqual(caller, frame(CALLER) * (150 + stall))
            self.assertEqual(bot, frame(BOT) * 25 + bytes(stall * 320) + frame(BOT) * 125)

    def test_it_may_begin_within_the_call(self) -> None:
        line = Line()
        line.turn(3.0, CALLER, BOT)
        line.take()
        line.turn(2.0, CALLER, BOT)
        line.monitor.close()
        caller, bot = line.sides()
        self.assertTrue(2.0 <= len(bot) / 16000 <= 3.0)
        self.assertEqual(len(caller), len(bot))
