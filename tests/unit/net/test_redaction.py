"""The redaction of texts of runners."""

from __future__ import annotations

import html
import json
from typing import Any
from urllib.parse import quote, quote_plus

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.errors import MAX_SENTENCE
from pipecat_bridge.net import redaction
from pipecat_bridge.net.redaction import (
    MAX_LENGTH,
    MAX_READ,
    MAX_SECRETS,
    MAX_VALUES,
    Redaction,
    printable,
)
from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.secrets import redaction_of

SECRET = "sk-1234567890"

SPELLINGS = (
    str,
    json.dumps,
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: json.dumps({"error": f"wrong: {text}"}),
    quote,
    lambda text: quote(text, safe=""),
    quote_plus,
    html.escape,
    lambda text: f"a{text}b",
    lambda text: text * 3,
)


class SecretTests(SynchronousTestCase):
    def test_values_of_options(self) -> None:
        for options, hidden, shown in (
            ({"headers": {"Authorization": f"Bearer {SECRET}"}}, SECRET, "Bearer"),
            ({"headers": {"X-Api-Key": "abc"}}, "abc", "abcd"),
            ({"headers": {"X-Env": "prod"}}, None, "prod"),
            ({"parameters": {"llm_key": SECRET, "llm_type": "openai"}}, SECRET, "openai"),
            ({"parameters": {"a": [{"b": {"Access_TOKEN": SECRET}}]}}, SECRET, "Access"),
            ({"parameters": {"password": {"first": SECRET}}}, SECRET, "first"),
            ({"parameters": {"pin_secret": 123456}}, "123456", "12345"),
            ({"start_body": {"body": {"x": {"y_token": SECRET}}}}, SECRET, "y_"),
            ({"url": f"ws://h/ws?token={SECRET}", "mode": "direct"}, SECRET, "/ws"),
            ({"url": ["ws://a", "ws://b?key=abc"], "mode": "direct"}, "abc", "ws"),
            ({"url": "ws://h/ws?a=long%20%26", "mode": "direct"}, None, "long"),
            ({"url": "ws://h/ws?a=longer%20%26", "mode": "direct"}, "longer &", "long"),
        ):
            with self.subTest(options=options):
                redact = redaction_of(RunnerOptions(**options))  # type: ignore[arg-type]
                text = f"said {hidden or ''} and {shown}"
                self.assertEqual(redact(text), f"said {'***' if hidden else ''} and {shown}")

    def test_values_of_a_request(self) -> None:
        base = redaction_of(RunnerOptions(parameters={"llm_key": "first-secret"}))
        more = base.including({"tts_key": "second-secret"}, None, "x").hiding("third-secret")
        text = "first-secret second-secret third-secret"
        self.assertEqual(more(text), "*** *** ***")
        self.assertEqual(base(text), "*** second-secret third-secret")

    def test_short_ones_are_hidden_as_words_only(self) -> None:
        redact = Redaction(["ab1"])
        self.assertEqual(redact('ab1 xab1 ab1x (ab1) "ab1"'), '*** xab1 ab1x (***) "***"')

    def test_none(self) -> None:
        for secrets in ((), ("",), (" ",)):
            self.assertEqual(Redaction(secrets)("as it is"), "as it is")

    def test_one_within_another(self) -> None:
        self.assertEqual(Redaction(["abcdefgh", "abcdefghijkl"])("abcdefghijkl"), "***")

    @given(secret=st.text(st.characters(exclude_categories=("C", "Z")), min_size=8, max_size=30))
    @example(secret="a b \"c\\&<' d")
    @settings(deadline=None)
    def test_in_every_spelling(self, secret: str) -> None:
        redact = Redaction([secret])
        for spell in SPELLINGS:
            self.assertIn("***", redact.excerpt(spell(secret).encode()), spell)

    def test_those_of_the_runner_are_known_by_their_names(self) -> None:
        redact = Redaction()
        for text, expected in (
            ('{"token": "abc", "x": 1}', '{"token": ***, "x": 1}'),
            ('{"api_key":"a\\"b c","x":1}', '{"api_key":***,"x":1}'),
            ("{'Password': 'a b'}", "{'Password': ***}"),
            ("ws://h/x?token=abc&a=b", "ws://h/x?token=***&a=b"),
            ("client_secret: abc, done", "client_secret: ***, done"),
            ('{"token": "abc', '{"token": ***'),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("basic YTpi", "basic ***"),
            ("no such key", "no such key"),
        ):
            self.assertEqual(redact(text), expected)


class FloodTests(SynchronousTestCase):
    """A runner may answer with thousands of secrets: each has eight spellings to be searched."""

    def hides_all(self, said: Any) -> bool:
        redact = Redaction().including(said)
        return redact("plain") == redact.hiding("x").including({})("plain") == "***"

    def test_many(self) -> None:
        for number in range(2):
            tokens = [f"secret-{one:03}" for one in range(MAX_SECRETS + number)]
            self.assertEqual(self.hides_all({"token": tokens}), bool(number))
        redact = Redaction().including({"token": tokens[:-1]})
        self.assertEqual(redact(" ".join(tokens)), "*** " * MAX_SECRETS + tokens[-1])

    def test_one_that_comes_again_counts_once(self) -> None:
        self.assertFalse(self.hides_all({"token": ["the same"] * 1000}))

    def test_long_ones(self) -> None:
        self.assertFalse(self.hides_all({"a": {"token": "x" * MAX_LENGTH}}))
        self.assertTrue(self.hides_all({"a": {"token": ["x" * MAX_LENGTH, "y"]}}))
        self.assertFalse(self.hides_all({"a": "x" * (1 << 20)}))

    def test_many_values_of_which_one_may_be_a_secret(self) -> None:
        self.assertFalse(self.hides_all([0] * (MAX_VALUES - 10)))
        for many in ([0] * MAX_VALUES, [[0] * 200] * 200, {str(n): n for n in range(MAX_VALUES)}):
            self.assertTrue(self.hides_all({"list": many}))

    def test_one_within_another(self) -> None:
        redact = Redaction(["abc", "abcdef", "ab"])
        self.assertEqual(redact("abcdef abc ab abx"), "*** *** *** abx")


class ShapeTests(SynchronousTestCase):
    def test_on_a_line(self) -> None:
        body = b"  a\r\n\tb\x1b[2J\x00\xe2\x80\xae\xff "
        self.assertEqual(
            Redaction().excerpt(body), r"a b\x1b[2J\x00\u202e" + "\N{REPLACEMENT CHARACTER}"
        )
        self.assertEqual(Redaction()("a\nb\x7f"), r"a\nb\x7f")
        self.assertEqual(printable("caf\N{LATIN SMALL LETTER E WITH ACUTE}"), "caf\xe9")

    def test_nothing(self) -> None:
        for body in (b"", b" \n"):
            self.assertEqual(Redaction().excerpt(body), "no text")

    def test_a_long_one_is_cut(self) -> None:
        self.assertEqual(Redaction().excerpt(b"x" * 1000), "x" * 200)
        self.assertEqual(len(Redaction().excerpt(b"x" * 1000, 50)), 50)

    def test_no_part_of_a_secret_is_left_at_a_cut(self) -> None:
        for secret in (SECRET, "s3cret-" * 300):
            for shift in range(len(SECRET) + 1):
                text = "x" * shift + secret * (2 * MAX_READ // len(secret))
                said = Redaction([secret])(text)
                self.assertEqual(said.strip("x*"), "", said[-50:])

    def test_no_part_of_a_secret_is_left_where_the_white_space_is_read(self) -> None:
        for before in range(len(SECRET)):
            body = b" " * (4 * MAX_READ - before) + SECRET.encode()
            self.assertEqual(Redaction([SECRET]).excerpt(body), "no text")

    def test_only_what_is_shown_is_escaped(self) -> None:
        escaped: list[int] = []

        def noted(text: str) -> str:
            escaped.append(len(text))
            return printable(text)

        self.patch(redaction, "printable", noted)
        said = Redaction().excerpt(b"\x01" * (1 << 18)), Redaction()("\x01" * (1 << 18))
        self.assertEqual([len(each) for each in said], [200, MAX_SENTENCE])
        self.assertEqual(escaped, [200, MAX_SENTENCE])

    def test_a_long_text_costs_no_more_than_a_short_one(self) -> None:
        seen: list[int] = []

        class Text(str):
            def __getitem__(self, key: Any) -> str:
                seen.append(key.stop)
                return str(super().__getitem__(key))

        Redaction([SECRET])(Text("x" * (1 << 20)))
        self.assertEqual(seen[0], MAX_READ)
