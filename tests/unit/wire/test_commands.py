"""Commands of a bot, and the errors for wrong commands."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio import tones
from pipecat_bridge.wire import commands
from pipecat_bridge.wire.commands import CommandError, Hangup, PlayDTMF, SetVariables, Transfer

COMMANDS: dict[str, commands.Command] = {
    '{"type": "hangup"}': Hangup(),
    '{"type": "hangup", "reason": null}': Hangup(),
    '{"type": "hangup", "reason": "all said"}': Hangup("all said"),
    '{"type": "transfer", "target": "support"}': Transfer("support"),
    '{"type": "transfer", "target": " Sales-EU\\n"}': Transfer("Sales-EU"),
    '{"type": "transfer", "target": "+49.30_1*2#3"}': Transfer("+49.30_1*2#3"),
    '{"type": "set", "variables": {"TOPIC": "Rechnung, \\"offen\\"", "_X1": ""}}': SetVariables(
        {"TOPIC": 'Rechnung, "offen"', "_X1": ""}
    ),
    '{"type": "set", "variables": {"N": 3, "X": 0.5, "YES": true, "NO": false}}': SetVariables(
        {"N": "3", "X": "0.5", "YES": "1", "NO": "0"}
    ),
    '{"type": "play_dtmf", "digits": "0123456789ABCD*#"}': PlayDTMF("0123456789ABCD*#"),
    '{"type": "play_dtmf", "digits": "1w2W3,ad"}': PlayDTMF("1w2W3,AD"),
    ' {"id": 7, "type": "hangup", "more": {"deep": [1]}} ': Hangup(),
}

NO_COMMANDS = (
    "",
    "Good morning",
    "hangup",
    '"hangup"',
    '["hangup"]',
    "7",
    "null",
    "{}",
    '{"type": "Hangup"}',
    '{"type": null}',
    '{"type": ["hangup"]}',
    '{"type": {"hangup": 1}}',
    '{"kind": "hangup"}',
    '{"type": "hangup"',
    '{"type": "hangup", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"type": "hangup", "reason": "\ud800"}',
)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no-target": (
        {"type": "transfer"},
        'a transfer command without a target: expected {"type": "transfer", "target": "..."}',
    ),
    "blank-target": ({"type": "transfer", "target": " "}, "a transfer command without a target: "),
    "null-target": ({"type": "transfer", "target": None}, "a transfer command without a target: "),
    "number": (
        {"type": "transfer", "target": 100},
        "a transfer command with a number for target: "
        'expected {"type": "transfer", "target": "..."}',
    ),
    "reason": (
        {"type": "hangup", "reason": ["x"]},
        'a hangup command with an array for reason: expected {"type": "hangup", "reason": "..."}',
    ),
    "two-targets": (
        {"type": "transfer", "target": "support&PJSIP/00900"},
        'a transfer command with the target "support&PJSIP/00900": '
        "expected letters A-Z a-z, digits and _ - + * # ., and no _ - . at the beginning",
    ),
    "two-lines": (
        {"type": "transfer", "target": "a\nb"},
        'a transfer command with the target "a\\nb": expected letters A-Z a-z, digits and ',
    ),
    "no-variables": (
        {"type": "set"},
        'a set command without variables: expected {"type": "set", "variables": {"NAME": "value"}}',
    ),
    "empty-variables": ({"type": "set", "variables": {}}, "a set command without variables: "),
    "array-of-variables": (
        {"type": "set", "variables": ["A"]},
        "a set command with an array for variables: expected {",
    ),
    "function": (
        {"type": "set", "variables": {"SHELL(rm)": "x"}},
        'a set command with a variable named "SHELL(rm)": '
        "expected up to 80 letters, digits and underscores, and no digit at the beginning",
    ),
    "no-name": ({"type": "set", "variables": {"": "x"}}, "a set command with a variable named "),
    "digit": ({"type": "set", "variables": {"1A": "x"}}, "a set command with a variable named "),
    "line-end": (
        {"type": "set", "variables": {"A\n": "x"}},
        'a set command with a variable named "A\\n": ',
    ),
    "umlaut": ({"type": "set", "variables": {"Ä": "x"}}, "a set command with a variable named "),
    "object": (
        {"type": "set", "variables": {"A": {}}},
        "a set command whose variable A is an object: expected a string, a number or a boolean",
    ),
    "null": ({"type": "set", "variables": {"A": None}}, "a set command whose variable A is null: "),
    "lines": (
        {"type": "set", "variables": {"A": "x\r\nAction: Originate"}},
        "a set command whose variable A has line ends or other control characters: expected none",
    ),
    "no-digits": (
        {"type": "play_dtmf"},
        'a play_dtmf command without digits: expected {"type": "play_dtmf", "digits": "..."}',
    ),
    "digits-as-number": ({"type": "play_dtmf", "digits": 12}, "a play_dtmf command with a number "),
    "letter": (
        {"type": "play_dtmf", "digits": "12E"},
        'a play_dtmf command with "E" among its digits: '
        'expected 0-9 A-D * # and, for a pause, "," or "w" or "W"',
    ),
    "other-digits": ({"type": "play_dtmf", "digits": "\u0661"}, "a play_dtmf command with "),
}


class CommandTests(SynchronousTestCase):
    def test_commands(self) -> None:
        for text, command in COMMANDS.items():
            self.assertEqual(commands.from_text(text), command)
            self.assertEqual(commands.parse(json.loads(text)), command)
            self.assertTrue(commands.is_command(json.loads(text)))

    def test_what_is_no_command(self) -> None:
        for text in NO_COMMANDS:
            self.assertIsNone(commands.from_text(text), text[:40])
        for data in (None, 1, "hangup", [], {}, {"type": "x"}, {"type": []}):
            self.assertIsNone(commands.parse(data))
            self.assertFalse(commands.is_command(data))

    def test_wrong_commands(self) -> None:
        for name, (data, sentence) in WRONG.items():
            for read in (lambda data: commands.from_text(json.dumps(data)), commands.parse):
                error = self.assertRaises(CommandError, read, data)
                self.assertTrue(str(error).startswith(sentence), f"{name}: {error}")
                self.assertTrue(str(error).isprintable(), name)
            self.assertTrue(commands.is_command(data))

    def test_misspelt_types_are_told(self) -> None:
        for kind, meant in (
            ("hangupp", "hangup"),
            ("hang_up", "hangup"),
            ("HANGUP", "hangup"),
            ("end_call", "hangup"),
            ("transfert", "transfer"),
            ("setVariables", "set"),
            ("playDTMF", "play_dtmf"),
            ("dtmf", "play_dtmf"),
        ):
            data = {"type": kind}
            self.assertIsNone(commands.parse(data))
            sentence = commands.near_miss(data)
            self.assertIn(f'of type "{kind}" is no command', sentence)
            self.assertIn(f'{{"type": "{meant}"', sentence)

    def test_what_is_another_word_is_not(self) -> None:
        others = ("reset", "test", "sent", "hand", "call", "transcript", "x", "", "hangup" * 9)
        for data in (*({"type": kind} for kind in others), {}, [], "hangupp", None, {"type": 1}):
            self.assertEqual(commands.near_miss(data), "")
        for kind in ("hangup", "transfer", "set", "play_dtmf"):
            self.assertEqual(commands.near_miss({"type": kind}), "", "right or wrong, it is one")

    def test_a_command_names_its_type_when_it_is_written(self) -> None:
        for command in COMMANDS.values():
            written = msgspec.json.encode(command).decode()
            self.assertEqual(commands.from_text(written), command)

    def test_digits_and_pauses_are_those_that_have_tones(self) -> None:
        self.assertEqual(set(commands.DIGITS), set("".join(tones.KEYPAD)))
        self.assertEqual(set(commands.PAUSES), set(tones.WAITS))


class LimitTests(SynchronousTestCase):
    def check(self, longest: dict[str, Any], longer: dict[str, Any], sentence: str) -> None:
        self.assertIsNotNone(commands.parse(longest))
        error = self.assertRaises(CommandError, commands.parse, longer)
        self.assertEqual(str(error), sentence)

    def test_target(self) -> None:
        self.check(
            {"type": "transfer", "target": "x" * 64},
            {"type": "transfer", "target": "x" * 65},
            "a transfer command with a target of 65 characters: expected up to 64",
        )

    def test_targets_that_are_no_name(self) -> None:
        """A name is taken whole or not at all."""
        for target in (
            "../0900; evil",
            "100@sales",
            "sip:bob@example.com",
            "_X.",
            ".5",
            "-x",
            "a b",
            "a,1",
            "a/b",
            "b\xfcro",
            "\u0663",
            "$EXTEN",
            "${EXTEN}",
            "!",
        ):
            command = {"type": "transfer", "target": target}
            error = self.assertRaises(CommandError, commands.parse, command)
            shown = json.dumps(target)
            self.assertIn(f"with the target {shown}: expected letters", str(error))

    def test_number_of_variables(self) -> None:
        many = {f"V{number}": "x" for number in range(51)}
        self.check(
            {"type": "set", "variables": dict(list(many.items())[:50])},
            {"type": "set", "variables": many},
            "a set command with 51 variables: expected up to 50",
        )

    def test_name(self) -> None:
        self.check(
            {"type": "set", "variables": {"N" * 80: "x"}},
            {"type": "set", "variables": {"N" * 81: "x"}},
            f'a set command with a variable named "{"N" * 40}": '
            "expected up to 80 letters, digits and underscores, and no digit at the beginning",
        )

    def test_value(self) -> None:
        sentence = "a set command whose variable A has 1001 characters: expected up to 1000"
        for short, long in (("x" * 1000, "x" * 1001), (10**999, 10**1000)):
            self.check(
                {"type": "set", "variables": {"A": short}},
                {"type": "set", "variables": {"A": long}},
                sentence,
            )

    def test_digits(self) -> None:
        self.check(
            {"type": "play_dtmf", "digits": "1" * 64},
            {"type": "play_dtmf", "digits": "1" * 65},
            "a play_dtmf command with 65 digits: expected up to 64",
        )

    def test_a_reason_does_not_keep_a_call_from_its_end(self) -> None:
        self.assertEqual(
            commands.parse({"type": "hangup", "reason": "x" * 5000}), Hangup("x" * 200)
        )
        command = commands.parse({"type": "hangup", "reason": "one\r\ntwo\x00\u2028three\n"})
        self.assertEqual(command, Hangup("one two three"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


class GarbageTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=300)
    @given(
        kind=st.sampled_from(["hangup", "transfer", "set", "play_dtmf"]),
        key=st.sampled_from(["reason", "target", "variables", "digits"]),
        value=_JSON,
    )
    def test_only_command_errors_escape(self, kind: str, key: str, value: Any) -> None:
        try:
            command = commands.parse({"type": kind, key: value})
        except CommandError as error:
            self.assertIn(f"a {kind} command ", str(error))
        else:
            self.assertIsInstance(command, commands.Command)

    @settings(deadline=None, max_examples=300)
    @given(text=st.text(st.characters(), max_size=50))
    def test_text_that_is_said(self, text: str) -> None:
        self.assertIsNone(commands.from_text(text))
