"""Who speaks when, from the levels of frames."""

from __future__ import annotations

import numpy as np
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call.speech import BEGIN, FRAME, PAUSE, Conversation, Speaker
from pipecat_bridge.events.record import Talk

LOUD = 2000.0


def levels(text: str) -> list[float]:
    """Five frames for each letter: `.` is silence, any other one is loud."""
    return [LOUD if one != "." else 0.0 for one in text for _ in range(5)]


def talk(caller: str, bot: str) -> Conversation:
    """Each letter is 0.1 s: `.` is silence."""
    conversation = Conversation()
    length = max(len(caller), len(bot))
    sides = (levels(each.ljust(length, ".")) for each in (caller, bot))
    for one, other in zip(*sides, strict=True):
        conversation.hear(one, other)
    return conversation


def measured(caller: str, bot: str) -> Talk:
    """The figures of it."""
    return talk(caller, bot).talk(interruptions=0, turns=UNSET)


class SpeakerTests(SynchronousTestCase):
    def begins(self, frames: list[float]) -> list[int]:
        speaker = Speaker()
        return [speaker.began for at, level in enumerate(frames) if speaker.hear(level, at)]

    def test_an_utterance_begins_with_its_first_loud_frame(self) -> None:
        self.assertEqual(self.begins([0.0] * 7 + [LOUD] * 20), [7])

    def test_a_click_is_none(self) -> None:
        self.assertEqual(self.begins(([0.0] * 9 + [LOUD] * (BEGIN - 1)) * 10), [])

    def test_pauses_between_words_are_none(self) -> None:
        words = ([LOUD] * 10 + [0.0] * (PAUSE - 1)) * 3
        self.assertEqual(self.begins(words), [0])
        sentences = ([LOUD] * 10 + [0.0] * (PAUSE + 1)) * 3
        self.assertEqual(self.begins(sentences), [0, 31, 62])

    def test_background_sound_is_no_speech(self) -> None:
        noise = np.random.default_rng(1).uniform(250, 350, 1000).tolist()
        speaker = Speaker()
        for at, level in enumerate(noise):
            speaker.hear(level, at)
        before = speaker.utterances
        self.assertLessEqual(before, 1)  # until it is known as background
        self.assertTrue(any(speaker.hear(LOUD, 1000 + at) for at in range(10)))
        self.assertEqual(speaker.utterances, before + 1)

    def test_a_long_sentence_does_not_become_background(self) -> None:
        speaker = Speaker()
        quiet = [20.0] * 50
        sentence = ([LOUD] * 12 + [200.0] * 3) * 40  # 12 s with short dips
        for at, level in enumerate(quiet + sentence):
            speaker.hear(level, at)
        self.assertTrue(speaker.speaking)
        self.assertEqual(speaker.utterances, 1)


class ConversationTests(SynchronousTestCase):
    def test_a_conversation(self) -> None:
        figures = measured(
            ".......ccccc..............ccc.......",
            "bbbb...............bbbb........bbb..",
        )
        self.assertEqual((figures.caller_talk, figures.bot_talk), (0.8, 1.1))
        self.assertEqual((figures.caller_utterances, figures.bot_utterances), (2, 3))
        self.assertEqual(figures.first_answer, 0.0)
        answers = figures.answers
        self.assertEqual((answers.count, answers.p50, answers.max), (2, 0.2, 0.7))
        self.assertEqual(figures.longest_silence, 0.7)

    def test_a_quick_answer_comes_before_the_end_of_the_utterance_is_known(self) -> None:
        self.assertEqual(measured("ccccc", "......bb").answers.max, 0.1)
        self.assertEqual(measured("ccccc", ".....bb").answers.max, 0.0)

    def test_a_bot_that_speaks_into_the_caller_gives_no_answer(self) -> None:
        figures = measured("cccccccc", "...bbb")
        self.assertIs(figures.answers, UNSET)
        self.assertEqual(figures.first_answer, 0.3)

    def test_an_answer_is_counted_once(self) -> None:
        figures = measured("ccc", "......bbb......bbb")
        self.assertEqual(figures.answers.count, 1)

    def test_nothing_is_measured_of_silence(self) -> None:
        figures = measured("..........", "..........")
        self.assertEqual(
            (figures.caller_talk, figures.bot_utterances, figures.first_answer),
            (0.0, 0, UNSET),
        )

    def test_percentiles(self) -> None:
        pairs = [
            ("ccccc" + "." * 20, "." * (5 + gap) + "bb".ljust(20 - gap, "."))
            for gap in range(1, 11)
        ]
        caller, bot = ("".join(side) for side in zip(*pairs, strict=True))
        answers = measured(caller, bot).answers
        self.assertEqual(
            (answers.count, answers.p50, answers.p95, answers.max), (10, 0.5, 1.0, 1.0)
        )
        self.assertEqual(FRAME, 0.02)

    def test_one_way_audio(self) -> None:
        for caller, bot, wanted in (
            ("c" * 20, "." * 20, "bot"),
            ("." * 20, "b" * 20, "caller"),
            ("c" * 19, "." * 20, UNSET),  # too short to say so
            ("." * 20, "." * 20, UNSET),
            ("c" * 20, "b" + "." * 19, UNSET),
        ):
            self.assertEqual(talk(caller, bot).one_way(2.0), wanted)
