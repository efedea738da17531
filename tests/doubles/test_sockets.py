"""The doubles over real sockets: what memory cannot show."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol

from tests.doubles import protobuf
from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.doubles.bot import BotDouble
from tests.doubles.watch import Watched

FRAME = b"\x10\x01\x40" + bytes(320)


class Server(Protocol, Watched):
    """An AudioSocket server that does what the test says."""

    def __init__(self) -> None:
        self.data = b""
        self.reason: Exception | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.changed()

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason.value
        self.over(str(reason.value))


class Bridge(WebSocketServerProtocol, Watched):
    """A WebSocket server that keeps what came."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[protobuf.Decoded] = []
        self.clean: bool | None = None

    def onOpen(self) -> None:
        self.factory.bridges.append(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.frames.append(protobuf.decode(payload))
        self.changed()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.clean = wasClean
        self.changed()


async def listen(factory: Factory) -> Any:
    return await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)


async def asterisk_and_server(**options: Any) -> tuple[StrictAsterisk, Server, Any]:
    server = Server()
    factory = Factory.forProtocol(lambda: server)
    port = await listen(factory)
    asterisk = await connect_asterisk(reactor, port.getHost().port, **options)
    if options.get("handshake") is None:
        await server.until(lambda: len(server.data) >= 19)
    return asterisk, server, port


@pytest_twisted.ensureDeferred
async def test_frames_both_ways_and_a_clean_end() -> None:
    asterisk, server, port = await asterisk_and_server(driver="application")
    asterisk.start_audio([bytes(320)] * 5)
    await server.until(lambda: len(server.data) == 19 + 5 * 323)
    server.transport.write(FRAME * 3)
    server.transport.write(b"\x00\x00\x00")
    server.transport.loseConnection()
    await asterisk.lost
    assert (asterisk.faults, asterisk.ended) == ([], "hangup received")
    assert asterisk.pcm() == bytes(960)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_missing_rest_ends_the_call_by_the_real_clock() -> None:
    asterisk, server, port = await asterisk_and_server()
    server.transport.setTcpNoDelay(True)
    server.transport.write(FRAME[:200])
    await asterisk.lost
    await server.until(lambda: server.reason)
    assert asterisk.faults == ["a gap of more than 5 ms inside a message"]
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_rest_that_waits_in_the_kernel_was_not_late() -> None:
    asterisk, server, port = await asterisk_and_server()
    server.transport.write(FRAME[:200])
    await asterisk.until(lambda: asterisk._buffer)
    # The rest is in the kernel before the double's timer is asked: only this process was slow.
    server.transport.getHandle().send(FRAME[200:])
    asterisk._rest_is_late()
    await asterisk.until(lambda: asterisk.frames)
    assert asterisk.faults == []
    asterisk.hangup()
    await server.until(lambda: server.reason)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_hangup_is_fin_and_reset_is_rst() -> None:
    for end, error in (("hangup", ConnectionDone), ("reset", ConnectionLost)):
        asterisk, server, port = await asterisk_and_server()
        getattr(asterisk, end)()
        await server.until(lambda server=server: server.reason)
        await asterisk.lost
        assert isinstance(server.reason, error)
        assert asterisk.faults == []
        await port.stopListening()


async def bridge_port() -> tuple[Any, WebSocketServerFactory, str]:
    factory = WebSocketServerFactory("ws://127.0.0.1", reactor=reactor)
    factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
    factory.protocol, factory.bridges = Bridge, []
    port = await listen(factory)
    return port, factory, f"ws://127.0.0.1:{port.getHost().port}"


@pytest_twisted.ensureDeferred
async def test_bot_on_two_sockets() -> None:
    port, factory, url = await bridge_port()
    bot = BotDouble(reactor, echo=True)
    await bot.dial(f"{url}/7/ws", "both")
    into, out = factory.bridges
    into.sendMessage(protobuf.encode_rtvi("client-ready"), True)
    await out.until(lambda: out.frames)
    into.sendMessage(protobuf.encode_audio(bytes(640), 16000), True)
    await out.until(lambda: len(out.frames) == 2)
    assert bot.faults == []
    bot.close()
    await into.until(lambda: into.clean is not None)
    await out.until(lambda: out.clean is not None)
    assert (into.clean, out.clean) == (True, True)
    await bot.until(lambda: not bot.sockets)
    await port.stopListening()
