"""Runners whose bots are dialled, over real sockets, from clients that are not the bridge's."""

from __future__ import annotations

from typing import Any

import pytest
import treq
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.web.client import Agent, ResponseFailed

from tests.certificates import Authority
from tests.doubles import protobuf
from tests.doubles.start_runner import StartRunner
from tests.doubles.watch import Watched

START = {"transport": "websocket", "body": {"id": "7"}}


class Client(WebSocketClientProtocol, Watched):
    """Dials a bot; keeps what came and how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[bytes] = []
        self.is_up = False
        self.end: tuple[bool, int | None, str | None] | None = None

    def onOpen(self) -> None:
        self.is_up = True
        self.changed()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.got.append(payload)
        self.changed()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.end = (wasClean, code, reason)
        self.changed()


async def dial(url: str, **options: Any) -> Client:
    """A client whose handshake has been answered."""
    factory = WebSocketClientFactory(url, reactor=reactor, **options)
    factory.setProtocolOptions(
        openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0
    )
    client = Client()
    client.factory = factory
    await connectProtocol(TCP4ClientEndpoint(reactor, factory.host, factory.port), client)
    await client.until(lambda: client.is_up or client.end)
    return client


async def start(runner: StartRunner, body: Any = START) -> tuple[int, Any]:
    url = f"{runner.url}{runner.start_path}"
    options: Any = {"json": body, "persistent": False, "allow_redirects": False}
    response = await treq.post(url, agent=Agent(reactor), **options)
    return response.code, await response.json()


async def closed(client: Client, runner: StartRunner) -> None:
    client.sendClose(1000)
    await client.until(lambda: client.end)
    await runner.shut()


@ensureDeferred
async def test_start_and_the_bot_behind_it() -> None:
    runner = StartRunner(reactor, token_in="header", echo=True)
    await runner.listen()
    status, answer = await start(runner)
    assert (status, answer["sessionId"]) == (200, "session-1")
    assert answer["wsUrl"] == runner.url.replace("http", "ws") + "/ws-client"
    assert runner.asked("/start")[0].body == START
    client = await dial(answer["wsUrl"], headers={"Authorization": f"Bearer {answer['token']}"})
    client.sendMessage(protobuf.encode_rtvi("client-ready"), True)
    metadata = {"t": "call-metadata", "d": {"id": "7", "metadata": {"from": "1"}}}
    client.sendMessage(protobuf.encode_rtvi("client-message", metadata), True)
    await runner.until(lambda: "7" in runner.bots)
    bot = runner.bots["7"]
    await bot.until(lambda: bot.ready_sent)
    assert bot.told["metadata"] == {"from": "1"}
    client.sendMessage(protobuf.encode_audio(bytes(640), 16000), True)
    await client.until(lambda: len(client.got) == 2)
    assert (bot.faults, runner.faults, runner.connections) == ([], [], 1)
    await closed(client, runner)
    assert [how.clean for how in bot.closes] == [True]


async def is_let_in(runner: StartRunner, token: str, place: str) -> bool:
    """Whether a bot can be dialled with a token in that place."""
    url = f"{runner.url.replace('http', 'ws')}{runner.path}"
    url += {"query": f"?token={token}", "path": f"/{token}"}.get(place, "")
    headers = {"Authorization": f"Bearer {token}"} if place == "header" else {}
    client = await dial(url, headers=headers)
    if client.end is not None:
        assert "[403]: Forbidden" in str(client.end[2])
        return False
    client.sendClose(1000)
    await client.until(lambda: client.end)
    return True


@pytest.mark.parametrize("place", ["header", "query", "path"])
@ensureDeferred
async def test_a_token_is_good_once_and_in_its_place(place: Any) -> None:
    runner = StartRunner(reactor, token_in=place)
    await runner.listen()
    token = (await start(runner))[1]["token"]
    for other in {"header", "query", "path"} - {place}:
        assert not await is_let_in(runner, token, other)
    for nonsense in ("nonsense", ""):
        assert not await is_let_in(runner, nonsense, place)
    assert await is_let_in(runner, token, place)
    assert not await is_let_in(runner, token, place)
    assert len(runner.sessions) == 1
    await runner.shut()


@ensureDeferred
async def test_tokens_that_are_refused_late() -> None:
    runner = StartRunner(reactor, mode="direct", token_in="header", refuses_late=True)
    await runner.listen()
    runner.tokens.append("good")
    client = await dial(runner.url, headers={"Authorization": "Bearer bad"})
    await client.until(lambda: client.end)
    assert client.end == (True, 4003, "not you")
    assert (runner.sessions, runner.tokens) == ([], ["good"])
    client = await dial(runner.url, headers={"Authorization": "Bearer good"})
    assert len(runner.sessions) == 1
    await closed(client, runner)


@ensureDeferred
async def test_origin_and_subprotocol() -> None:
    runner = StartRunner(reactor, mode="direct", origin="https://a.example", subprotocol="rtvi")
    await runner.listen()
    for options, reason in (
        ({"protocols": ["rtvi"]}, "[403]"),
        ({"protocols": ["rtvi"], "origin": "https://b.example"}, "[403]"),
        ({"origin": "https://a.example"}, "[400]"),
        ({"origin": "https://a.example", "protocols": ["soap"]}, "[400]"),
    ):
        client = await dial(runner.url, **options)
        assert client.end is not None
        assert reason in str(client.end[2])
    client = await dial(runner.url, origin="https://a.example", protocols=["soap", "rtvi"])
    assert client.websocket_protocol_in_use == "rtvi"
    assert [knock.protocols for knock in runner.knocks][-1] == ["soap", "rtvi"]
    await closed(client, runner)


@pytest.mark.parametrize(
    ("handshake", "expected"),
    [
        ("403", "[403]"),
        ("429", "[429]"),
        ("503", "[503]"),
        ("302", "[302]"),
        ("200", "[200]"),
        ("garbage", 'Unsupported HTTP version "220"'),
        ("drop", "peer dropped the TCP connection"),
        ("bad-accept", "Accept bogus value"),
        ("no-accept", "Accept header missing"),
        ("other-subprotocol", 'subprotocol selected by server "soap"'),
        ("extension", 'extension "x-telepathy"'),
    ],
)
@ensureDeferred
async def test_odd_answers(handshake: Any, expected: str) -> None:
    runner = StartRunner(reactor, mode="direct", handshakes=[handshake, "ok"])
    await runner.listen()
    client = await dial(runner.url)
    assert client.end is not None
    assert expected in str(client.end[2])
    await closed(await dial(runner.url), runner)


class Raw(Protocol, Watched):
    """A client that sends bytes, and keeps what comes."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.data = b""
        self.lost = False

    def connectionMade(self) -> None:
        self.transport.write(self.request)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.changed()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True
        self.changed()


UPGRADE = b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"


async def knock(runner: StartRunner, request: bytes) -> Raw:
    client = Raw(request)
    port: Any = runner._port.getHost().port
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
    return client


@ensureDeferred
async def test_answers_without_end_and_none_at_all() -> None:
    runner = StartRunner(reactor, handshakes=["endless", "hang"])
    await runner.listen()
    endless = await knock(runner, UPGRADE)
    await endless.until(lambda: len(endless.data) > 1 << 20)
    assert b"\r\n\r\n" not in endless.data
    hanging = await knock(runner, UPGRADE)
    await runner.until(lambda: len(runner.knocks) == 2)
    tls = await knock(runner, b"\x16\x03\x01\x00\x05hello")
    await runner.until(lambda: runner.open_connections == 3)
    assert (hanging.data, tls.data) == (b"", b"")
    await runner.shut()
    for client in (endless, hanging, tls):
        await client.until(lambda client=client: client.lost)


@ensureDeferred
async def test_a_server_without_tls_refuses_it() -> None:
    runner = StartRunner(reactor)
    await runner.listen()
    tls = await knock(runner, b"\x16\x03\x01\x00\x05hello")
    await tls.until(lambda: tls.lost)
    assert tls.data.startswith(b"HTTP/1.1 400 ")
    await runner.shut()


@pytest.mark.parametrize("answer", ["endless", "flood", "hang", "drop"])
@ensureDeferred
async def test_starts_that_break(answer: Any) -> None:
    runner = StartRunner(reactor, answers=[answer])
    await runner.listen()
    client = await knock(runner, b"POST /start HTTP/1.1\r\nContent-Length: 18\r\n\r\n")
    client.transport.write(b'{"transport": "x"}')
    await runner.until(lambda: runner.asked("/start"))
    least = {"flood": 2 << 20, "endless": 50}.get(answer, 0)
    await client.until(lambda: len(client.data) >= least)
    await runner.shut()
    await client.until(lambda: client.lost)
    assert (b"200 OK" in client.data) == (answer in ("endless", "flood"))


@ensureDeferred
async def test_other_starts() -> None:
    runner = StartRunner(
        reactor, answers=["503", "ok"], retry_after=9, ws_url=None, start_path="/v1/x/start"
    )
    await runner.listen()
    response = await treq.post(f"{runner.url}/v1/x/start", json=START, persistent=False)
    assert (response.code, response.headers.getRawHeaders("retry-after")) == (503, ["9"])
    await response.content()
    status, answer = await start(runner)
    assert (status, sorted(answer)) == (200, ["sessionId", "token"])
    assert (await start(runner, {"body": {}}))[0] == 400
    assert len(runner.faults) == 1
    response = await treq.get(f"{runner.url}/status", persistent=False)
    assert response.code == 200
    await response.content()
    await runner.shut()


@ensureDeferred
async def test_urls_that_are_made_up() -> None:
    for ws_url, expected in (
        ("wss://{host}:{port}/x", "wss://127.0.0.1:{port}/x"),
        ("ws://0.0.0.0:{port}/x", "ws://0.0.0.0:{port}/x"),
        ("nonsense", "nonsense"),
    ):
        runner = StartRunner(reactor, ws_url=ws_url)
        await runner.listen()
        port = runner._port.getHost().port
        assert (await start(runner))[1]["wsUrl"] == expected.format(port=port)
        await runner.shut()


def test_options_that_do_not_exist() -> None:
    for options in ({"handshakes": ["okay"]}, {"answers": ["okay"]}):
        with pytest.raises(ValueError, match="okay"):
            StartRunner(reactor, **options)


@ensureDeferred
async def test_tls_needs_a_client_that_trusts_it() -> None:
    runner = StartRunner(reactor, tls=Authority().issue("127.0.0.1"))
    assert isinstance(runner.tls, CertificateOptions)
    await runner.listen()
    assert runner.url.startswith("https://")
    with pytest.raises(ResponseFailed):
        await treq.get(f"{runner.url}/status", persistent=False)
    await runner.shut()
