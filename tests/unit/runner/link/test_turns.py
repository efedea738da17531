"""Work on one bot's frames that is cut into turns of the loop."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.runner.link.turns import BUDGET, PER_FRAME, Turns
from pipecat_bridge.wire.frames import Audio, BotFrame, Interruption, Message, Text, Transcription
from tests.doubles.bot import riff_header
from tests.unit.turns import turn


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.taken: list[BotFrame] = []
        self.held: list[bool] = []
        self.playout = Playout()
        self.turns = Turns(self.clock, self.playout, self.taken.append, self.held.append)

    def turn(self) -> int:
        before = len(self.taken)
        turn(self.clock)
        return len(self.taken) - before

    def test_usual_frames_do_not_wait(self) -> None:
        self.turns.add([Audio(bytes(1920), 8000, 1), Interruption()])
        self.assertEqual((len(self.taken), self.turns.busy, self.held), (2, False, []))

    def test_much_audio_is_taken_in_pieces_and_nothing_is_read_meanwhile(self) -> None:
        audio = bytes(range(256)) * (10 * BUDGET // 256)
        long = Audio(audio, 8000, 1)
        self.turns.add([long])
        self.assertEqual((len(self.taken), self.held), (1, [True]))
        self.assertTrue(self.turns.busy)
        self.turns.add([Interruption()])
        turns = 1
        while self.held == [True]:
            self.assertEqual(self.turn(), 1)
            turns += 1
        self.assertEqual((turns, self.held), (11, [True, False]))
        self.assertEqual(b"".join(f.audio for f in self.taken if isinstance(f, Audio)), audio)
        self.assertEqual(self.taken[-1], Interruption())
        self.assertFalse(self.clock.getDelayedCalls())

    def test_a_header_is_read_before_the_audio_is_cut(self) -> None:
        self.turns.add([Audio(riff_header(2 * BUDGET, 16000, 2) + bytes(2 * BUDGET), 8000, 1)])
        self.clock.pump([0.0] * 4)
        self.assertEqual({frame[1:] for frame in self.taken}, {(16000, 2)})
        self.assertEqual(sum(len(f.audio) for f in self.taken if isinstance(f, Audio)), 2 * BUDGET)

    def test_many_small_frames(self) -> None:
        self.turns.add([Interruption()] * 1000)
        self.assertEqual(len(self.taken), BUDGET // PER_FRAME)
        self.assertEqual(self.turn(), BUDGET // PER_FRAME)

    def test_long_texts_are_more_work_than_short_ones(self) -> None:
        for text in (Message("x" * 65536), Text("x" * 65536), Transcription("x" * 65536, "", "")):
            self.turns.add([text] * 3)
            self.assertEqual([len(self.taken), self.turn(), self.turn()], [1, 1, 1])
            self.turn()
            self.taken.clear()

    def test_what_asks_for_a_rest_ends_the_turn(self) -> None:
        self.turns.rest()
        self.turns.rest()
        self.assertEqual((self.turns.busy, self.held), (True, [True]))
        frames = [Audio(bytes(320), rate, 1) for rate in (16000, 24000, 48000)]
        self.turns.add(frames)
        self.assertEqual(self.taken, [])
        self.turns.close()
        resting = Turns(self.clock, Playout(), lambda _: resting.rest(), self.held.append)
        resting.add(frames)
        turns = 0
        while resting.busy:
            turn(self.clock)
            turns += 1
        self.assertEqual((turns, self.held), (3, [True, True, False]))

    def test_the_end_comes_after_what_waits(self) -> None:
        done: list[int] = []
        self.turns.finish(lambda: done.append(0))
        self.assertEqual(done, [0])
        self.turns.add([Interruption()] * 1000)
        self.turns.finish(lambda: done.append(len(self.taken)))
        self.assertLess(len(self.taken), 100)
        while self.clock.getDelayedCalls():
            self.turn()
        self.assertEqual(done, [0, 1000])

    def test_what_waits_is_forgotten(self) -> None:
        self.turns.add([Interruption()] * 1000)
        self.turns.finish(lambda: self.fail("it is over already"))
        taken = len(self.taken)
        self.turns.close()
        self.clock.advance(1)
        self.assertEqual(len(self.taken), taken)
        late: list[None] = []
        self.turns.finish(lambda: late.append(None))
        self.assertEqual(late, [None], "what is kept here is in a cycle")
        self.assertFalse(self.clock.getDelayedCalls())

    def test_a_new_rate_is_the_work_of_a_turn_for_the_bot_that_is_heard(self) -> None:
        self.turns.begin([])
        self.playout.write(bytes(320), 16000, 1, 0.0)
        self.assertTrue(self.turns.busy)
        self.turn()
        self.playout.write(bytes(320), 16000, 1, 0.0)
        self.assertFalse(self.turns.busy)
        other = Turns(self.clock, self.playout, self.taken.append, self.held.append)
        other.begin([])
        self.turns.close()
        self.playout.write(bytes(320), 24000, 1, 0.0)
        self.assertTrue(other.busy)
        other.close()
        self.playout.write(bytes(320), 16000, 1, 0.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
