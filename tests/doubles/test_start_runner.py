"""Runners whose bots are dialled, over real sockets, from clients that are not the bridge's."""

from __future__ import annotations

from typing import Any

import pytest
import treq
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.web.client import Agent

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
