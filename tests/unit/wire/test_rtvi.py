"""RTVI messages as typed events; whatever a bot sends, only RTVIError escapes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.nesting import MAX_DEPTH, too_deep


def message(kind: Any, data: Any = None, label: Any = "rtvi-ai") -> str:
    return json.dumps({"label": label, "type": kind, "id": "1", "data": data})


# Type, data, and the event that they are; without data for those that carry none.
KNOWN: list[tuple[str, Any, rtvi.Event]] = [
    (
        "bot-ready",
        {"version": "1.2.0", "about": {"library": "x"}},
        rtvi.BotReady("1.2.0"),
    ),
    ("bot-interrupted", None, rtvi.BotInterrupted()),
    (
        "user-transcription",
        {"text": "hello", "user_id": "u", "timestamp": "t", "final": False},
        rtvi.UserTranscription("hello", False, "t", "u"),
    ),
    ("bot-transcription", {"text": "Hello."}, rtvi.BotTranscription("Hello.")),
    (
        "bot-output",
        {"text": "a", "spoken": True, "aggregated_by": "word"},
        rtvi.BotOutput("a", True),
    ),
    ("bot-llm-text", {"text": "He"}, rtvi.BotLLMText("He")),
    ("bot-llm-started", None, rtvi.BotLLMStarted()),
    ("bot-llm-stopped", None, rtvi.BotLLMStopped()),
    ("bot-started-speaking", None, rtvi.BotStartedSpeaking()),
    ("bot-stopped-speaking", None, rtvi.BotStoppedSpeaking()),
    ("user-started-speaking", None, rtvi.UserStartedSpeaking()),
    ("user-stopped-speaking", None, rtvi.UserStoppedSpeaking()),
    ("metrics", {"ttfb": [{"value": 0.1}]}, rtvi.Metrics({"ttfb": [{"value": 0.1}]})),
    ("error", {"error": "broken", "fatal": True}, rtvi.BotError("broken", True)),
    ("server-message", {"hangup": True}, rtvi.ServerMessage({"hangup": True})),
    ("server-message", "hangup", rtvi.ServerMessage("hangup")),
    ("llm-function-call", {"args": {}}, rtvi.Other("llm-function-call", {"args": {}})),
]

WRONG: tuple[Any, ...] = (0, 1, -1.5, "x", "", True, [], ["x"], {}, {"a": 1}, None, 2**70)


class ParseTests(SynchronousTestCase):
    def test_all_that_pipecat_sends(self) -> None:
        for kind, data, event in KNOWN:
            self.assertEqual(rtvi.parse(message(kind, data)), event)

    def test_every_event_has_an_example_here(self) -> None:
        shown = {type(event) for _, _, event in KNOWN}
        self.assertEqual(shown, set(rtvi.Event.__subclasses__()))

    def test_data_left_out(self) -> None:
        for kind, data, event in KNOWN:
            if data is None:
                text = json.dumps({"label": "rtvi-ai", "type": kind})
                self.assertEqual(rtvi.parse(text), event)

    def test_null_is_as_if_left_out(self) -> None:
        data = {"text": "a", "spoken": None, "timestamp": None, "user_id": None, "final": None}
        self.assertEqual(rtvi.parse(message("bot-output", data)), rtvi.BotOutput("a"))
        self.assertEqual(
            rtvi.parse(message("user-transcription", data)), rtvi.UserTranscription("a")
        )
        self.assertEqual(rtvi.parse(message("bot-ready", {"version": None})), rtvi.BotReady())

    def test_what_is_wrong_is_said(self) -> None:
        for text, fault in (
            ("", "not an RTVI message"),
            ("{", "not an RTVI message"),
            ("[]", "not an RTVI message: Expected `object`"),
            ('{"label": "rtvi-ai"}', "missing required field `type`"),
            (message(5), r"Expected `str`, got `int` - at `\$.type`"),
            (message("bot-ready", label="other"), 'label "other" where "rtvi-ai" is expected'),
            (message("bot-ready", label=None), "not an RTVI message"),
            (message("bot-transcription"), "bot-transcription: .*missing required field `text`"),
            (
                message("bot-transcription", {"text": 5}),
                r"Expected `str`, got `int` - at `\$.text`",
            ),
        ):
            with self.assertRaisesRegex(rtvi.RTVIError, fault):
                rtvi.parse(text)

    def test_a_label_is_not_repeated_at_length(self) -> None:
        with self.assertRaises(rtvi.RTVIError) as caught:
            rtvi.parse(message("x", label="y" * 10_000))
        self.assertLess(len(str(caught.exception)), 200)


class GarbageTests(SynchronousTestCase):
    def parse(self, text: str) -> rtvi.Event | None:
        try:
            event = rtvi.parse(text)
        except rtvi.RTVIError:
            return None
        self.assertIsInstance(event, rtvi.Event)
        return event

    def test_wrong_values_in_every_place(self) -> None:
        for kind, data, _ in KNOWN:
            for wrong in WRONG:
                self.parse(message(kind, wrong))
                self.parse(message(wrong, data))
                self.parse(message(kind, data, label=wrong))
                for name in data if isinstance(data, dict) else ():
                    self.parse(message(kind, {**data, name: wrong}))

    def test_a_wrong_type_is_never_passed_on(self) -> None:
        for kind, data, event in KNOWN:
            if not isinstance(data, dict) or type(event) in (rtvi.ServerMessage, rtvi.Other):
                continue
            for name in set(data) & set(event.__struct_fields__):
                for wrong in WRONG:
                    parsed = self.parse(message(kind, {**data, name: wrong}))
                    if parsed is not None:
                        found, wanted = getattr(parsed, name), getattr(event, name)
                        self.assertIs(type(found), type(wanted), (kind, name, wrong))

    def test_nested_too_deep(self) -> None:
        for depth in (MAX_DEPTH + 1, 900, 1_500, 200_000):
            for nested in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
                for kind in ("server-message", "metrics", "bot-ready", "unheard-of"):
                    text = f'{{"label":"rtvi-ai","type":"{kind}","data":{nested}}}'
                    self.assertIsNone(self.parse(text), (kind, depth))

    def test_as_deep_as_it_may_be(self) -> None:
        nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH
        text = f'{{"label":"rtvi-ai","type":"server-message","data":{nested}}}'
        self.assertIsNotNone(self.parse(text))

    def test_numbers_and_characters_beyond_bounds(self) -> None:
        for data in (
            "1" * 5000,
            "-" + "9" * 400,
            "1e999",
            "NaN",
            "Infinity",
            '"\\ud800"',
            '"\ud800"',
        ):
            for kind in ("server-message", "bot-ready", "unheard-of"):
                self.parse(f'{{"label":"rtvi-ai","type":"{kind}","data":{data}}}')
        self.parse('{"label":"rtvi-ai","type":"server-message","data":{"\\udc00":1}}')
        self.parse('{"label":"rtvi-ai","type":"\ud800"}')

    @settings(deadline=None, max_examples=300)
    @given(text=st.text(max_size=200))
    def test_any_text(self, text: str) -> None:
        self.parse(text)

    @settings(deadline=None, max_examples=300)
    @given(
        kind=st.sampled_from([kind for kind, _, _ in KNOWN]),
        data=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["text", "version", "error", "fatal", "final", "spoken"])
                    | st.text(),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=10,
        ),
    )
    def test_any_data(self, kind: str, data: Any) -> None:
        event = self.parse(message(kind, data))
        if isinstance(event, rtvi.ServerMessage):
            json.dumps(event.data)


class BuildTests(SynchronousTestCase):
    def built(self, text: str, kind: str) -> Any:
        decoded = json.loads(text)
        self.assertEqual((decoded["label"], decoded["type"]), ("rtvi-ai", kind))
        self.assertIsInstance(decoded["id"], str)
        return decoded["data"]

    def test_client_ready(self) -> None:
        data = self.built(rtvi.client_ready("1.2.3"), "client-ready")
        about = {"library": "pipecat-bridge", "library_version": "1.2.3"}
        self.assertEqual(data, {"version": rtvi.VERSION, "about": about})

    def test_send_text(self) -> None:
        for run in (True, False):
            for audio in (True, False):
                text = rtvi.send_text("ä", run_immediately=run, audio_response=audio)
                options = {"run_immediately": run, "audio_response": audio}
                data = {"content": "ä", "options": options}
                self.assertEqual(self.built(text, "send-text"), data)

    def test_dtmf_in_both_shapes(self) -> None:
        for digit in "0123456789*#ABCD":
            data = self.built(rtvi.dtmf(digit), "dtmf")
            self.assertEqual(data, {"buttons": [digit], "button": digit})

    def test_client_message(self) -> None:
        data = self.built(rtvi.client_message("transfer", {"to": 5}), "client-message")
        self.assertEqual(data, {"t": "transfer", "d": {"to": 5}})

    def test_each_has_an_id_of_its_own(self) -> None:
        ids = {json.loads(rtvi.dtmf("1"))["id"] for _ in range(100)}
        self.assertEqual(len(ids), 100)


class NestingTests(SynchronousTestCase):
    def test_levels(self) -> None:
        for value, levels in ((1, 0), ("x", 0), ([], 1), ({}, 1), ([[], {"a": [1]}], 3)):
            self.assertFalse(too_deep(value, levels))
            if levels:
                self.assertTrue(too_deep(value, levels - 1))
