"""Every URL that passes the checks at the start works with the libraries in a call."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.ssl import trustRootFromCertificates
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from pipecat_bridge.config import checks
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.endpoints import Endpoints
from pipecat_bridge.net.urls import is_path, shown_url
from pipecat_bridge.options import Options, RunnerOptions, WebSocketOptions
from pipecat_bridge.runner.pool.health_check import status_url
from pipecat_bridge.runner.side import http_client
from pipecat_bridge.runner.socket.dialler import Dialler
from pipecat_bridge.runner.start.dial import Dial
from pipecat_bridge.runner.start.mode import Means
from tests.unit.runner_side import Connection

HOSTS = st.one_of(
    st.sampled_from(["h", "a.example", "10.0.0.7", "[::1]", "[::1%25x]", "xn--bcher-kva", "unix"]),
    st.text("ab1-._", max_size=8),
    st.text("aB1-._ :@[]%\N{LATIN SMALL LETTER E WITH ACUTE}\0", max_size=8),
    st.builds("a".__mul__, st.integers(0, 70)),
)
PORTS = st.one_of(
    st.just(""), st.integers(-1, 70000).map(":{}".format), st.text(":1x+_", max_size=3)
)
TEXTS = st.one_of(
    st.text("ab/?#%=&.;:@[]-", max_size=10),
    st.text('a/?#\\^`{}|<>" \r\n\t\0\x7f\x85\N{LATIN SMALL LETTER E WITH ACUTE}%20', max_size=6),
)


def urls(schemes: list[str]) -> st.SearchStrategy[str]:
    """URLs, most of them wrong in one way or another."""
    slashes = st.sampled_from(["://", "://", "://", ":/", ":"])
    paths = st.one_of(st.just(""), TEXTS.map("/".__add__), TEXTS)
    return st.builds(
        lambda *parts: "".join(parts), st.sampled_from(schemes), slashes, HOSTS, PORTS, paths
    )


def faults(**runner: Any) -> list[str]:
    """The faults that the checks find in options of `[runner]`."""
    return [
        f"[{section}] {key}{fault}"
        for section, key, fault in checks.faults(Options(runner=RunnerOptions(**runner)))
    ]


def bare(path: str) -> str:
    """The path without separators that nothing follows. Twisted leaves them out."""
    return path.replace(";?", "?").rstrip(";?")


class TakenTests(SynchronousTestCase):
    """Every URL that passes the checks leads to a connection and to a correct request."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        trusted = trustRootFromCertificates([])
        self.endpoints = Endpoints(self.reactor, Descriptors(self.reactor), trusted)

    def connected(self, secure: bool) -> bytes:
        """What is sent on the requested connection. With TLS it cannot be read."""
        # Names are resolved in the reactor's next turn.
        self.reactor.advance(0.1)
        [(_, _, factory, _, _)] = self.reactor.tcpClients
        return b"" if secure else Connection(factory).transport.value()

    def check_http(self, url: str, path: str) -> None:
        agent = Agent.usingEndpointFactory(self.reactor, self.endpoints)
        client = http_client(self.reactor, agent, RunnerOptions())
        asking = Deferred.fromCoroutine(client.request("POST", url))
        asking.addErrback(lambda _: None)
        secure = url.lower().startswith("https")
        sent = self.connected(secure)
        if not secure:
            method, asked, _ = sent.split(b" ", 2)
            self.assertEqual((method, bare(asked.decode())), (b"POST", bare(path or "/")))
        asking.cancel()

    @given(url=urls(["http", "https", "HTTP", "ws"]), path=st.one_of(TEXTS.map("/".__add__), TEXTS))
    @example(url="http://127.0.0.1:8000", path="/start")
    @example(url="https://[::1]", path="/start?a=b")
    @example(url="https://bots.example:8443/a/", path="/start")
    @settings(max_examples=600, deadline=None)
    def test_urls_of_http(self, url: str, path: str) -> None:
        options = RunnerOptions(mode="dial", url=url, start_path=path, health_path=path)
        if list(checks.faults(Options(runner=options))):
            return
        parts = urlsplit(url)
        whole = parts.path.rstrip("/") + path
        self.setUp()
        self.check_http(url.rstrip("/") + path, whole)
        self.setUp()
        self.check_http(status_url(url, path, "/status"), whole if path else f"{whole}/status")

    @given(url=urls(["ws", "wss", "WS", "http"]))
    @example(url="ws://127.0.0.1:7860/ws")
    @example(url="wss://[::1]:7860")
    @example(url="wss://bots.example/ws?token=a%20b&c")
    @settings(max_examples=600, deadline=None)
    def test_urls_of_bots(self, url: str) -> None:
        options = RunnerOptions(
            mode="direct", url=url, origin="https://a.example", subprotocol="rtvi"
        )
        if list(checks.faults(Options(runner=options))):
            return
        self.setUp()
        dialler = Dialler(
            self.reactor,
            WebSocketOptions(),
            self.endpoints.connect,
            options.origin,
            options.subprotocol,
        )
        link: Any = None
        nothing: Any = None
        means = Means(Options(runner=options), nothing, nothing, dialler, nothing)
        target = Dial(means, "websocket").fixed(url)
        dialling = Deferred.fromCoroutine(dialler.dial(target, link))
        dialling.addErrback(lambda _: None)
        secure = url.lower().startswith("wss")
        sent = self.connected(secure)
        if not secure:
            parts = urlsplit(url)
            query = f"?{parts.query}" if parts.query else ""
            asked = sent.split(b" ")[1].decode()
            self.assertEqual(bare(asked), bare(f"{parts.path or '/'}{query}"))
        dialling.cancel()

    @given(url=urls(["ws", "wss"]))
    @settings(max_examples=300, deadline=None)
    def test_urls_that_runners_dial(self, url: str) -> None:
        """A runner gives this URL to its own library, with a path appended."""
        if not faults(mode="dialback", dialback_url=url):
            self.assertEqual(faults(mode="direct", url=f"{url.rstrip('/')}/id/ws/token"), [])


class RefusedTests(SynchronousTestCase):
    def test_urls(self) -> None:
        for mode, url, why in (
            ("direct", "ws://h//ws", "its path begins with two slashes"),
            ("direct", "ws://h/ws#x", "it has a fragment"),
            ("direct", "ws://h/ws#", "it has a fragment"),
            ("direct", "ws://h/a b", "' ' in it has to be percent-encoded"),
            ("direct", "ws://h/a\r\nX: y", r"'\r' in it has to be percent-encoded"),
            ("direct", "\tws://h/a", r"'\t' in it has to be percent-encoded"),
            ("direct", "ws://h/\N{SNOWMAN}", r"'\u2603' in it has to be percent-encoded"),
            ("direct", "ws://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher/", r"'\xfc' in it has"),
            ("direct", "ws://h/{a}", "'{' in it has to be percent-encoded"),
            ("direct", "ws://me:s3cret@h/", "it has a user name, which [runner] headers can carry"),
            ("direct", "ws://h:0/", "the port is no number from 1 to 65535"),
            ("direct", "ws://h:65536/", "host or port is wrong"),
            ("direct", "ws://h:/", "the port is no number from 1 to 65535"),
            ("direct", "ws://[::1];]/", "host or port is wrong"),
            ("direct", "ws://[::1]:/", "the port is no number from 1 to 65535"),
            ("direct", "ws://[fe80::1%25eth0]/", "'fe80::1%25eth0' can be no host"),
            ("direct", "ws://unix:80/x", "unix is no host"),
            ("direct", "ws://my_bot/", "'my_bot' can be no host"),
            ("direct", "ws://-a/", "'-a' can be no host"),
            ("direct", "ws://a..b/", "'a..b' can be no host"),
            ("direct", "wss://12345/", "'12345' can be no host"),
            ("direct", "ws:///x", "it has no host"),
            ("direct", "//h/x", "it has no scheme"),
            ("direct", "http://h/x", "the scheme is wrong"),
            ("dial", "http://h/?key=s3cret", "it has a query"),
            ("dial", "http://h?", "it has a query"),
        ):
            with self.subTest(url=url):
                [fault] = faults(mode=mode, url=url)
                self.assertIn(f'": {why}', fault)
                self.assertTrue(fault.startswith(f'[runner] url = "{shown_url(url)}": '), fault)
                self.assertIn("expected a URL such as ", fault)
                self.assertTrue(fault.isprintable())
                self.assertNotIn("s3cret", fault)

    def test_a_pool_is_looked_at_one_by_one(self) -> None:
        [fault] = faults(mode="direct", url=["ws://a/", "ws://b/#x", "ws://c/"])
        self.assertIn("ws://b/#x", fault)

    def test_where_runners_dial(self) -> None:
        for url, why in (
            ("http://h", "the scheme is wrong"),
            ("ws://h/{prot}", "'{' in it has to be percent-encoded"),
            ("ws://h/#x", "it has a fragment"),
            ("ws://h/?a=b", "it has a query"),
        ):
            [fault] = faults(mode="dialback", dialback_url=url)
            self.assertTrue(fault.startswith(f'[runner] dialback_url = "{shown_url(url)}": {why}'))
        self.assertEqual(faults(mode="dialback", dialback_url="ws://h:{port}/{worker}"), [])

    def test_paths(self) -> None:
        for path in (
            "start",
            "/a b",
            "/a#b",
            "/\N{SNOWMAN}",
            "/a\r\nX: y",
            "http://h/x",
            "?x",
            "//x",
        ):
            for key in ("start_path", "health_path"):
                [fault] = faults(mode="dial", **{key: path})
                self.assertTrue(fault.startswith(f'[runner] {key} = "{shown_url(path)}": expected'))
                self.assertTrue(fault.isprintable())
            self.assertFalse(is_path(path))
        for path in ("/", "/start", "/v1/x.y?a=b%20c&d", "/a//x"):
            self.assertEqual(faults(mode="dial", start_path=path, health_path=path), [])

    def test_what_a_handshake_tells(self) -> None:
        for key, good, bad in (
            (
                "origin",
                ("https://a.example", "http://localhost:3000", "capacitor://app", "null"),
                (
                    "a.example",
                    "https://a/",
                    "https://a b",
                    "https://a\r\nX: y",
                    "https://\N{SNOWMAN}",
                ),
            ),
            ("subprotocol", ("rtvi", "a.b-1"), ("a b", "a,b", "a\r\nX: y", "\N{SNOWMAN}")),
            (
                "allowed_hosts",
                (["a.example"], ["*.A.example", "::1", "10.0.0.7"]),
                (["https://a"], ["a:443"], ["*"], ["[::1]"], [""], ["a/b"]),
            ),
            (
                "headers",
                ({"Authorization": "Bearer x"}, {"Host": "a", "X-A": ""}),
                (
                    {"A B": "x"},
                    {"A": "x\r\nB: y"},
                    {"A": "\N{SNOWMAN}"},
                    {"": "x"},
                    {"Content-Length": "1"},
                    {"transfer-encoding": "chunked"},
                    {"Upgrade": "x"},
                    {"Sec-WebSocket-Key": "x"},
                ),
            ),
        ):
            for value in good:
                self.assertEqual(faults(**{key: value}), [])
            for value in bad:
                with self.subTest(key=key, value=value):
                    [fault] = faults(**{key: value})
                    self.assertTrue(fault.startswith(f"[runner] {key} = "), fault)
                    self.assertTrue(fault.isprintable(), fault)


class ShownTests(SynchronousTestCase):
    def test_without_what_may_be_secret(self) -> None:
        for url, shown in (
            ("ws://h/x", "ws://h/x"),
            ("ws://me:s3cret@h/x", "ws://***@h/x"),
            ("ws://h/x?token=s3cret#a", "ws://h/x?***"),
            ("\x1b[2J\N{SNOWMAN}", r"\x1b[2J\u2603"),
        ):
            self.assertEqual(shown_url(url), shown)
        self.assertLess(len(shown_url("x" * 10_000)), 300)
