"""The script of the demonstration, and what is told about a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.judge import missing_words
from pipecat_bridge.tools.phone.scenario import ScenarioError, load
from tests.unit.files import scratch

pytestmark = pytest.mark.tools


class PackagedTests(SynchronousTestCase):
    def test_right_sentences_pass_and_all_others_fail(self) -> None:
        scenario = load()
        for name, answer in scenario.answers.items():
            whole = " ".join(answer.sentences)
            self.assertEqual(missing_words(whole, answer.words), [], name)
            others = [one for key, one in scenario.answers.items() if key != name]
            rest = [*scenario.decoys, *(" ".join(one.sentences) for one in others)]
            for sentence in rest:
                with self.subTest(name=name, sentence=sentence):
                    self.assertNotEqual(missing_words(sentence, answer.words), [])

    def test_the_call_has_an_interruption_and_an_end(self) -> None:
        scenario = load()
        interrupting = [n for n, one in enumerate(scenario.say) if one.interrupt_after]
        self.assertEqual(len(interrupting), 1)
        cut = scenario.expected[interrupting[0]]  # the answer before the interrupting line
        self.assertNotEqual(cut.opening, [])
        self.assertEqual(scenario.say[-1].expect, "farewell")


class FaultTests(SynchronousTestCase):
    def test_each_in_one_sentence(self) -> None:
        good = Path(load.__code__.co_filename).with_name("demo-call.toml").read_text("utf-8")
        cases = [
            ("= =", "is not TOML"),
            (good.replace("[timing]", "[timings]"), "timings"),
            (good.replace('greeting = "greeting"', 'greeting = "hello"'), "no answer 'hello'"),
            (good.replace("opening = ", "# "), "'hours' is interrupted by .* expected the words"),
            (good.replace("patience = ", 'patience = "long" # '), r"Expected `float`.*timing"),
        ]
        for text, words in cases:
            with self.subTest(words=words):
                path = scratch(self)
                path.write_text(text, "utf-8")
                with self.assertRaisesRegex(ScenarioError, words):
                    load(path)
        with self.assertRaisesRegex(ScenarioError, "cannot be read: No such file"):
            load(Path("nowhere.toml"))
