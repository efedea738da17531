"""The transcript: turns of caller and bot, from whatever the bot tells, without doubles."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call import transcript
from pipecat_bridge.call.transcript import MAX_CHARACTERS, MAX_TURN, Transcript, Turn, Voice
from pipecat_bridge.wire.rtvi import (
    BotLLMText,
    BotOutput,
    BotStartedSpeaking,
    BotStoppedSpeaking,
    BotTranscription,
    Event,
    Metrics,
    UserStartedSpeaking,
    UserStoppedSpeaking,
    UserTranscription,
)

CALLER_SPEAKS, CALLER_STOPS = UserStartedSpeaking(), UserStoppedSpeaking()
BOT_SPEAKS, BOT_STOPS = BotStartedSpeaking(), BotStoppedSpeaking()


class Talk:
    """A call on a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.voice = Voice(0.0, 0.0)
        self.done: list[Turn] = []
        self._waiting: list[Callable[[], None]] = []
        self.transcript = Transcript(
            lambda: self.voice, self._waiting.append, lambda: self.now, self.done.append
        )

    def hear(self, *events: Event, after: float = 0.0) -> None:
        self.now += after
        for event in events:
            self.transcript.hear(event)

    def play(self, sent: float, played: float) -> None:
        """The bot has sent so many seconds more, and the phone has got so many more."""
        self.voice = Voice(self.voice.sent + sent, self.voice.played + played)

    def played_out(self) -> None:
        """All that waited has been played."""
        waiting, self._waiting[:] = list(self._waiting), []
        for each in waiting:
            each()

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(turn.speaker, turn.text) for turn in self.transcript]


class TurnTests(SynchronousTestCase):
    def test_a_question_and_its_answer(self) -> None:
        talk = Talk()
        talk.hear(CALLER_SPEAKS)
        talk.hear(CALLER_STOPS, after=2.0)
        talk.hear(UserTranscription("what time is it"), after=0.3)
        talk.hear(BOT_SPEAKS, BotOutput("Ten.", spoken=True), after=0.5)
        talk.play(1.0, 0.9)
        talk.hear(BOT_STOPS, after=1.0)
        self.assertEqual(len(talk.done), 1)
        talk.now += 0.1
        talk.play(0.0, 0.1)
        talk.played_out()
        self.assertEqual(
            talk.done,
            [
                Turn("caller", "what time is it", 100.0, 102.0),
                Turn("bot", "Ten.", 102.8, 103.9, False, 1.0, 1.0),
            ],
        )
        self.assertEqual(list(talk.transcript), talk.done)
        self.assertIs(talk.done[0].played, UNSET)

    def test_the_words_of_the_caller_come_after_the_answer_has_begun(self) -> None:
        talk = Talk()
        talk.hear(CALLER_SPEAKS)
        talk.hear(CALLER_STOPS, after=1.0)
        talk.hear(BOT_SPEAKS, after=0.5)
        talk.hear(UserTranscription("yes"), after=0.5)
        self.assertEqual(talk.done, [Turn("caller", "yes", 100.0, 101.0)])

    def test_an_interruption(self) -> None:
        talk = Talk()
        talk.hear(BOT_SPEAKS, BotOutput("A long story.", spoken=True))
        talk.play(4.0, 1.5)
        talk.hear(CALLER_SPEAKS, after=1.5)
        talk.transcript.interrupted()
        talk.hear(CALLER_STOPS, UserTranscription("stop"), after=0.5)
        talk.hear(BOT_STOPS)
        talk.played_out()
        talk.transcript.close()
        self.assertEqual(
            talk.done,
            [
                Turn("bot", "A long story.", 100.0, 101.5, True, 4.0, 1.5),
                Turn("caller", "stop", 101.5, 102.0),
            ],
        )

    def test_of_a_turn_that_is_cut_short_what_was_only_written_is_left_out(self) -> None:
        """Pipecat tells all sentences when they are written, and one as output when it begins."""
        written = BotLLMText("One. Two."), BotTranscription("One."), BotTranscription("Two.")
        begun, spoken = BotOutput("One."), BotOutput("On", spoken=True)
        for words, said, whole in (
            ((*written, BOT_SPEAKS, begun), "One.", "One. Two."),
            ((*written, BOT_SPEAKS, begun, spoken), "On", "On"),
            ((*written, BOT_SPEAKS), "One. Two.", "One. Two."),
        ):
            for ends in (Transcript.interrupted, Transcript.bot_gone, Transcript.close):
                talk = Talk()
                talk.hear(*words)
                talk.play(1.0, 0.5)
                ends(talk.transcript)
                self.assertEqual(talk.said, [("bot", said)])
            talk = Talk()
            talk.hear(*words, BOT_STOPS)
            talk.played_out()
            self.assertEqual(talk.said, [("bot", whole)])

    def test_only_a_turn_can_be_interrupted(self) -> None:
        talk = Talk()
        self.assertFalse(talk.transcript.interrupted())
        talk.hear(BOT_SPEAKS)
        talk.play(1.0, 0.5)
        self.assertTrue(talk.transcript.interrupted())
        self.assertFalse(talk.transcript.interrupted())

    def test_an_answer_that_was_not_heard_is_no_turn(self) -> None:
        """A key comes while the bot thinks: Pipecat has told the words, and drops them."""
        talk = Talk()
        talk.hear(BotTranscription("The whole answer."))
        self.assertFalse(talk.transcript.interrupted())
        talk.hear(BotTranscription("Another one."), BOT_SPEAKS)
        talk.play(1.0, 1.0)
        talk.hear(BOT_STOPS)
        talk.played_out()
        self.assertEqual(talk.said, [("bot", "Another one.")])

    def test_a_pause_ends_no_turn(self) -> None:
        talk = Talk()
        talk.hear(CALLER_SPEAKS, CALLER_STOPS, UserTranscription("one"))
        talk.hear(CALLER_SPEAKS, CALLER_STOPS, UserTranscription("two"), after=2.0)
        talk.hear(BOT_SPEAKS, BotOutput("three", spoken=True), BOT_STOPS, after=1.0)
        talk.hear(BOT_SPEAKS, BotOutput("four", spoken=True), after=0.1)
        talk.played_out()
        talk.hear(BOT_STOPS, after=1.0)
        talk.played_out()
        self.assertEqual(talk.said, [("caller", "one two"), ("bot", "three four")])

    def test_the_end_of_the_call_ends_both(self) -> None:
        talk = Talk()
        talk.hear(BOT_SPEAKS, BotOutput("Goodbye.", spoken=True))
        talk.hear(CALLER_SPEAKS, UserTranscription("bye"), after=0.5)
        talk.transcript.close()
        self.assertEqual(talk.said, [("bot", "Goodbye."), ("caller", "bye")])
        talk.played_out()
        self.assertEqual(len(talk.done), 2)

    def test_without_a_word_there_is_no_turn(self) -> None:
        talk = Talk()
        talk.hear(CALLER_SPEAKS, CALLER_STOPS, BOT_SPEAKS, BOT_STOPS, Metrics({}))
        talk.hear(UserTranscription("hal", final=False), UserTranscription(""))
        talk.played_out()
        talk.transcript.close()
        self.assertEqual(talk.done, [])


class WordTests(SynchronousTestCase):
    """A bot tells its words in several ways at once."""

    def said(self, *events: Event) -> list[tuple[str, str]]:
        talk = Talk()
        talk.hear(BOT_SPEAKS, *events)
        talk.transcript.close()
        return talk.said

    def test_the_best_way_of_those_that_came(self) -> None:
        tokens = BotLLMText("Good"), BotLLMText(" morning."), BotLLMText(" Yes?")
        sentences = BotTranscription("Good morning."), BotTranscription(" Yes?")
        output = BotOutput("Good morning."), BotOutput("Yes?")
        spoken = BotOutput("Good", spoken=True), BotOutput("morning.", spoken=True)
        said = [("bot", "Good morning. Yes?")]
        self.assertEqual(self.said(*tokens), said)
        self.assertEqual(self.said(*tokens, *output), said)
        self.assertEqual(self.said(*sentences, *tokens, *output), said)
        self.assertEqual(self.said(*tokens, *output, *spoken), [("bot", "Good morning.")])

    def test_words_before_the_voice(self) -> None:
        talk = Talk()
        talk.hear(CALLER_SPEAKS, CALLER_STOPS, UserTranscription("hello"))
        talk.hear(BotLLMText("Hi!"), after=0.2)
        talk.hear(BOT_SPEAKS, after=0.8)
        talk.transcript.close()
        self.assertEqual(talk.said, [("caller", "hello"), ("bot", "Hi!")])
        self.assertEqual(talk.done[1].start, 101.0)


class LimitTests(SynchronousTestCase):
    def test_a_turn_that_never_ends(self) -> None:
        talk = Talk()
        for _ in range(40):
            talk.hear(BotOutput("x" * 1000, spoken=True))
        talk.transcript.close()
        [turn] = talk.transcript
        self.assertEqual(turn.text.replace(" ", ""), "x" * MAX_TURN)

    def test_the_oldest_turns_make_room(self) -> None:
        talk = Talk()
        most = MAX_CHARACTERS // MAX_TURN
        for number in range(most + 3):
            talk.hear(BOT_SPEAKS, BotOutput(f"{number:016}" * (MAX_TURN // 16), spoken=True))
            talk.play(1.0, 0.5)
            talk.transcript.interrupted()
        self.assertEqual(len(talk.transcript), most)
        self.assertEqual(talk.transcript.omitted, 3)
        self.assertTrue(talk.said[0][1].startswith(f"{3:016}"))
        self.assertEqual(len(talk.done), most + 3)
        self.assertEqual(transcript.MAX_CHARACTERS % MAX_TURN, 0)
