"""The bot's WebSocket, for every answer that a runner may give to `/start`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.errors import PeerError
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.runner.socket.target import Target
from pipecat_bridge.runner.start.target import TokenPlace, from_answer

BASE = "http://10.0.0.7:7860"


def target(
    ws_url: Any,
    base: str = BASE,
    allowed: tuple[str, ...] = (),
    token: Any = None,
    token_in: TokenPlace = "header",
) -> Target:
    answer = {"wsUrl": ws_url, "sessionId": "s-1"}
    if token is not None:
        answer["token"] = token
    return from_answer(answer, base, allowed, token_in)


class TargetCase(SynchronousTestCase):
    def refused(self, *args: Any, **options: Any) -> str:
        """The error text for an answer that is refused."""
        return str(self.assertRaises(PeerError, target, *args, **options))

    def check(self, expected: str, *args: Any, **options: Any) -> None:
        self.assertEqual(target(*args, **options), Target(expected, {}))


class URLTests(TargetCase):
    def test_as_it_stands(self) -> None:
        for url in (
            "ws://10.0.0.7:7860/ws-client",
            "ws://10.0.0.7:7861/ws-client?a=1&b=&c",
            "wss://10.0.0.7:8443/",
        ):
            self.check(url, url)

    def test_the_ports_of_the_schemes(self) -> None:
        self.check("ws://10.0.0.7:80/x", "ws://10.0.0.7/x")
        self.check("wss://10.0.0.7:443/x", "wss://10.0.0.7/x")
        self.check("wss://10.0.0.7:443", "WSS://10.0.0.7")

    def test_without_a_path_and_with_a_fragment(self) -> None:
        self.check("ws://10.0.0.7:7860", "ws://10.0.0.7:7860")
        self.check("ws://10.0.0.7:7860/x", "ws://10.0.0.7:7860/x#part")

    def test_names_in_any_case(self) -> None:
        self.check("ws://bots.example:7860/x", "ws://Bots.Example:7860/x", "http://bots.EXAMPLE")

    def test_user_info_is_left_out(self) -> None:
        self.check("ws://10.0.0.7:7860/x", "ws://user:pass@10.0.0.7:7860/x")

    def test_ipv6(self) -> None:
        self.check("ws://[::1]:7860/x", "ws://[::1]:7860/x", "http://[::1]:7860")
        self.check("ws://[::1]:80/x", "ws://[::1]/x", "http://[::1]:7860")

    def test_the_older_spelling_of_the_key(self) -> None:
        found = from_answer({"ws_url": "ws://10.0.0.7/x"}, BASE, (), "header")
        self.assertEqual(found.url, "ws://10.0.0.7:80/x")

    def test_answers_without_one(self) -> None:
        for answer, outline in (
            ({}, "it is empty"),
            ({"token": "tok-1", "sessionId": 1}, "it has 'sessionId, token'"),
            ({"wsUrl": ""}, "it has 'wsUrl'"),
            ({"wsUrl": None}, "it has 'wsUrl'"),
            ({"wsUrl": 7}, "it has 'wsUrl'"),
            ({"wsUrl": ["ws://10.0.0.7"]}, "it has 'wsUrl'"),
            ([], "it is a list"),
            (None, "it is a NoneType"),
            ("ws://10.0.0.7", "it is a str"),
            ({"\N{SNOWMAN}\n" * 500: 1}, "it has '" + "\\u2603\\n" * 100 + "'"),
        ):
            with self.subTest(answer=answer):
                error = self.assertRaises(PeerError, from_answer, answer, BASE, (), "header")
                self.assertEqual(str(error), f'an answer without "wsUrl": {outline}')

    def test_what_is_no_websocket_url(self) -> None:
        for url in (
            "10.0.0.7:7860/ws",
            "/ws-client",
            "http://10.0.0.7:7860/ws",
            "ws:/10.0.0.7/x",
            "ws://",
            "ws:///x",
            "ws://:7860/x",
            "ws://10.0.0.7:0/x",
            "ws://10.0.0.7:65536/x",
            "ws://10.0.0.7:port/x",
            "ws://unix:80/x",
            "ws://a..b/x",
            "ws://[::1/x",
            "ws://10.0.0.7/a b",
            "ws://10.0.0.7/x\r\nX-Header: 1",
            "ws://10.0.0.7/\x7f",
            "ws://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/x",
            " ws://10.0.0.7/x",
        ):
            with self.subTest(url=url):
                self.assertEqual(
                    self.refused(url),
                    f"wsUrl {ascii(url)[1:-1]}: expected a URL such as ws://127.0.0.1:7860/ws-client",
                )

    def test_what_is_wrong_with_it_tells_no_secrets(self) -> None:
        for url in ("ws://me:s3cret@10.0.0.7:0/x", "ws://10.0.0.7:0/x?token=s3cret"):
            refused = self.refused(url)
            self.assertNotIn("s3cret", refused)
            self.assertIn("10.0.0.7:0/x", refused)

    def test_a_long_one_is_cut(self) -> None:
        self.assertLess(len(self.refused("x" * 100_000)), 300)


class SeenFromHereTests(TargetCase):
    """The answers of Pipecat's development runner."""

    def test_the_address_it_listens_on(self) -> None:
        self.check("ws://10.0.0.7:7860/ws-client", "ws://0.0.0.0:7860/ws-client")
        self.check("ws://10.0.0.7:7860/ws-client", "ws://[::]:7860/ws-client")
        self.check("ws://10.0.0.7:7861/x", "ws://0.0.0.0:7861/x")
        self.check("ws://[fd00::7]:7860/x", "ws://0.0.0.0:7860/x", "http://[fd00::7]:7860")

    def test_wss_of_a_server_that_is_known_to_be_plain(self) -> None:
        self.check("ws://10.0.0.7:7860/ws-client", "wss://10.0.0.7:7860/ws-client")
        self.check("ws://10.0.0.7:7860/ws-client", "wss://0.0.0.0:7860/ws-client")
        self.check("ws://10.0.0.7:80/x", "ws://10.0.0.7/x", "http://10.0.0.7")

    def test_ws_of_a_server_that_is_known_to_have_tls(self) -> None:
        base = "https://bots.example"
        self.check("wss://bots.example:443/x", "ws://bots.example:443/x", base)
        self.check("wss://bots.example:443/x", "wss://bots.example/x", base)

    def test_another_port_is_another_server(self) -> None:
        self.check("wss://10.0.0.7:7861/x", "wss://10.0.0.7:7861/x")
        self.check("ws://bots.example:80/x", "ws://bots.example/x", "https://bots.example")

    def test_another_host_keeps_its_scheme(self) -> None:
        for scheme in ("ws", "wss"):
            url = f"{scheme}://other.example:7860/x"
            self.check(url, url, allowed=("other.example",))


class HostTests(TargetCase):
    def test_another_host_is_refused(self) -> None:
        self.assertEqual(
            self.refused("wss://evil.example/x", token="tok-1"),
            "wsUrl leads to evil.example, which is neither the runner's host nor in"
            " [runner] allowed_hosts",
        )

    def test_names_that_only_look_like_it(self) -> None:
        for host in (
            "10.0.0.70",
            "10.0.0.7.evil.example",
            "10.0.0.7@evil.example",
            "xbots.example",
            "localhost",
            "127.0.0.1",
        ):
            self.assertIn("wsUrl leads to ", self.refused(f"ws://{host}:7860/x"))

    def test_hosts_that_are_allowed(self) -> None:
        allowed = ("Cloud.example", "*.pods.example", "::1")
        for host in ("cloud.example", "CLOUD.EXAMPLE", "a.pods.example", "a.b.Pods.Example"):
            self.check(f"wss://{host.lower()}:443/x", f"wss://{host}/x", allowed=allowed)
        self.check("ws://[::1]:80/x", "ws://[::1]/x", allowed=allowed)

    def test_a_pattern_is_of_hosts_below(self) -> None:
        for host in ("pods.example", "xpods.example", "a.cloud.example", ".pods.example.evil"):
            refused = self.refused(f"wss://{host}/x", allowed=("cloud.example", "*.pods.example"))
            self.assertIn(host, refused)

    def test_an_allowed_host_does_not_shut_out_the_runner(self) -> None:
        self.check("ws://10.0.0.7:1/x", "ws://10.0.0.7:1/x", allowed=("other.example",))


class TokenTests(TargetCase):
    URL = "ws://10.0.0.7:7860/ws-client"

    def test_in_a_header(self) -> None:
        found = target(self.URL, token="tok-1")
        self.assertEqual(found, Target(self.URL, {"Authorization": "Bearer tok-1"}))

    def test_in_the_query(self) -> None:
        for url, expected in (
            (self.URL, self.URL + "?token=a%2Bb%2F%3D"),
            (self.URL + "?x=1&y=a%20b&z", self.URL + "?x=1&y=a%20b&z&token=a%2Bb%2F%3D"),
            (self.URL + "#part", self.URL + "?token=a%2Bb%2F%3D"),
        ):
            self.check(expected, url, token="a+b/=", token_in="query")

    def test_in_the_path(self) -> None:
        for url, expected in (
            (self.URL, self.URL + "/a%2Bb%2F%3D"),
            (self.URL + "/", self.URL + "/a%2Bb%2F%3D"),
            (self.URL + "?x=1", self.URL + "/a%2Bb%2F%3D?x=1"),
            ("ws://10.0.0.7:7860", "ws://10.0.0.7:7860/a%2Bb%2F%3D"),
        ):
            self.check(expected, url, token="a+b/=", token_in="path")

    def test_a_body_that_is_handed_back_is_brought_along(self) -> None:
        answer = {"wsUrl": "wss://10.0.0.7/ws/generic/bot?a=1", "body": "eyJhIjoxfQ=="}
        expected = "wss://10.0.0.7:443/ws/generic/bot?a=1&body=eyJhIjoxfQ%3D%3D"
        self.assertEqual(from_answer(answer, BASE, (), "header"), Target(expected, {}))
        for none in ("", None, {"a": 1}):
            answer = {"wsUrl": "wss://10.0.0.7/ws/generic/bot?a=1", "body": none}  # type: ignore[dict-item]
            self.assertEqual(from_answer(answer, BASE, (), "header").url.partition("&")[1], "")

    def test_without_one(self) -> None:
        places: tuple[TokenPlace, ...] = ("header", "query", "path")
        for place in places:
            for token in (None, ""):
                self.check(self.URL, self.URL, token=token, token_in=place)

    def test_what_is_no_token(self) -> None:
        for token in (7, ["tok"], {"a": 1}, "a b", "a\r\nX-Header: 1", "t\N{SNOWMAN}k", "\x00"):
            self.assertEqual(
                self.refused(self.URL, token=token),
                "a token that is not a string of visible ASCII characters",
            )


class SurrogateTests(TargetCase):
    """JSON may hold half of a surrogate pair, which has no spelling in UTF-8."""

    def test_in_a_token_and_in_a_body(self) -> None:
        for key in ("token", "body"):
            answer = {"wsUrl": "ws://10.0.0.7:1/", key: "\ud800"}
            with self.assertRaisesRegex(PeerError, f"a {key} that is not"):
                from_answer(answer, BASE, (), "query")

    def test_redaction_takes_them(self) -> None:
        redact = Redaction().including({"token": "\ud800abcdefgh"})
        self.assertEqual(redact("x \ud800abcdefgh"), "x ***")
