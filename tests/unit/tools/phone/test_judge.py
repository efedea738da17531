"""The grammar that the judge gives to the recogniser, and its verdict on words."""

from __future__ import annotations

import numpy as np
import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.judge import grammar, listen, missing_words, words_of

pytestmark = pytest.mark.tools


class GrammarTests(SynchronousTestCase):
    def test_sentences_in_plain_words_each_once(self) -> None:
        text = grammar(["We're open, from nine.", "Good-bye!", "good bye"])
        self.assertEqual(
            text,
            "#JSGF V1.0;\ngrammar judge;\npublic <heard> = <sentence>+;\n"
            "<sentence> = we're open from nine | good bye;\n",
        )

    def test_beginnings_of_any_length(self) -> None:
        text = grammar(["one two three"], cut_short=True)
        self.assertIn("public <heard> = <sentence>* <beginning>;", text)
        self.assertIn("<beginning> = one [two [three]];", text)


class ListenTests(SynchronousTestCase):
    def test_listens_again_with_other_silence_until_it_understands(self) -> None:
        lengths: list[int] = []

        def recognise(pcm: bytes, rate: int, words: str) -> str:
            lengths.append(len(pcm) // 2)
            self.assertEqual((rate, words), (8000, "grammar"))
            self.assertIn(b"\x07\x00" * 100, pcm)
            return "yes" if len(lengths) == understood else ""

        for understood, heard, count in ((1, "yes", 1), (3, "yes", 3), (9, "", 3)):
            with self.subTest(understood=understood):
                lengths.clear()
                speech = np.full(100, 7, dtype=np.int16)
                self.assertEqual(listen(speech, 8000, "grammar", recognise), heard)
                self.assertEqual(len(set(lengths)), count)


class WordsTests(SynchronousTestCase):
    def test_words(self) -> None:
        self.assertEqual(words_of("It's Nine - to six."), ["it's", "nine", "to", "six"])

    def test_wanted_words_in_their_order(self) -> None:
        heard = "we are open from nine to six"
        self.assertEqual(missing_words(heard, ["open", "nine", "six"]), [])
        self.assertEqual(missing_words(heard, ["open", "eight", "six"]), ["eight"])
        self.assertEqual(missing_words(heard, ["six", "nine"]), ["nine"])
        self.assertEqual(missing_words("", ["open"]), ["open"])
        self.assertEqual(missing_words("nine", ["nine", "nine"]), ["nine"])
