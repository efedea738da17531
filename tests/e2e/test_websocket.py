"""The WebSocket as it is on a live connection: buffers, compression, limits, masking, closing."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from autobahn.websocket import HAS_NVX, protocol
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from pipecat_bridge.runner.socket.dialback_server import DialbackProtocol
from tests.doubles.asterisk import HUNG_UP
from tests.doubles.watch import Watched
from tests.e2e.harness import Line, line, reactor

NOTSENT_LOWAT = 25  # <linux/tcp.h>


def bridge_ends(it: Line) -> list[Any]:
    """The bridge's ends of the one call's WebSockets."""
    [call] = it.bridge.calls.running
    link: Any = call.bot.link
    return [link.sockets.input, link.sockets.output]


def kernel_settings(end: Any) -> dict[str, int]:
    sock = end.transport.getHandle()
    return {
        "receive": sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        "send": sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
        "unsent": sock.getsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT),
        "no_delay": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
    }


@pytest.mark.parametrize(
    ("settings", "read", "write", "unsent"),
    [
        ((), 65536, 65536, 1280),
        (
            (
                "websocket.read_buffer=16384",
                "websocket.write_buffer=32768",
                "websocket.unsent_limit=4096",
            ),
            16384,
            32768,
            4096,
        ),
    ],
)
@ensureDeferred
async def test_buffers_of_both_sockets(settings: Any, read: int, write: int, unsent: int) -> None:
    async with line(*settings) as it:
        phone, bot = await it.talk()
        ends = bridge_ends(it)
        assert len(set(ends)) == 2
        for end in ends:
            # Linux doubles what is asked for, to have room for its own book-keeping.
            assert kernel_settings(end) == {
                "receive": 2 * read,
                "send": 2 * write,
                "unsent": unsent,
                "no_delay": 1,
            }
            assert end.transport.bufferSize == read
        phone.hangup()
        await it.ended(phone)
        assert bot.faults == []


class RawClient(Protocol, Watched):
    """Speaks HTTP by hand."""

    def __init__(self, request: str) -> None:
        self.request = request
        self.data = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.request.encode())

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.changed()


@ensureDeferred
async def test_compression_is_not_negotiated_though_it_is_offered() -> None:
    async with line(dial_delay=None) as it:
        phone = await it.dial()
        await it.runner.until(lambda: it.runner.asked("/run"))
        ws_url = it.runner.asked("/run")[0].body["ws_url"]
        place, path = ws_url.removeprefix("ws://").split("/", 1)
        client = RawClient(
            f"GET /{path} HTTP/1.1\r\nHost: {place}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        )
        host, port = place.split(":")
        await connectProtocol(TCP4ClientEndpoint(reactor, host, int(port)), client)
        await client.until(lambda: b"client-ready" in client.data)
        head, _, frames = client.data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in head.lower()
        assert frames[0] == 0x82  # FIN and binary; the bit of a compressed message is not set
        client.transport.abortConnection()
        await it.ended(phone)


@pytest.mark.parametrize(
    ("message", "fragment"),
    [
        (5000, None),  # a frame longer than max_frame
        (9000, 1000),  # frames that are short enough, of a message that is not
    ],
)
@ensureDeferred
async def test_limits_end_that_call_only(message: int, fragment: int | None) -> None:
    limits = ("websocket.max_frame=4096", "websocket.max_message=8192")
    async with line(*limits, sockets=None) as it:
        other_phone, other_bot = await it.talk()
        phone, bot = await it.talk()
        bot.sockets[None].sendMessage(bytes(message), True, fragmentSize=fragment)
        await phone.lost
        record = it.record(phone)
        assert record["outcome"] == "bot-hangup"
        assert record["reason"].startswith(
            "the bot broke the WebSocket protocol: received WebSocket "
        )
        assert record["reason"].endswith(" octets (1009)")
        assert phone.ended == HUNG_UP
        assert [how.code for how in bot.closes] == [1009]
        other_phone.start_audio()
        heard = len(other_bot.audio)
        await other_bot.until(lambda: len(other_bot.audio) > heard + 5)
        assert other_bot.closes == []
        other_phone.hangup()
        await it.ended(other_phone)


@ensureDeferred
async def test_messages_within_the_limits_pass() -> None:
    limits = ("websocket.max_frame=4096", "websocket.max_message=8192")
    async with line(*limits, sockets=None) as it:
        phone, bot = await it.talk()
        bot.send_audio(bytes(4000), 16000)
        bot.sockets[None].sendMessage(bytes(8000), True, fragmentSize=1000)
        await phone.until(lambda: it.record(phone)["quality"]["bot_frames_bad"] == 1)
        assert it.record(phone)["quality"]["bot_frames"] == 1
        phone.hangup()
        await it.ended(phone)
        assert bot.faults == []


def test_masks_are_taken_off_by_native_code_where_there_is_any() -> None:
    """In pure Python it would cost more than all the rest of a frame."""
    assert issubclass(DialbackProtocol, protocol.WebSocketProtocol)
    assert protocol.create_xor_masker.__module__.endswith("nvx._xormasker") == HAS_NVX
    masker = protocol.create_xor_masker(b"\1\2\3\4", 640)
    assert masker.process(bytes(640)) == b"\1\2\3\4" * 160


@ensureDeferred
async def test_a_close_that_is_not_answered_holds_up_nothing() -> None:
    async with line("websocket.close_timeout=0.2", answers_close=False) as it:
        phone, bot = await it.talk()
        phone.hangup()
        record = await it.ended(phone)
        assert record["outcome"] == "caller-hangup"
        await bot.until(lambda: not bot.sockets)
        assert {how.clean for how in bot.closes} == {False}


@ensureDeferred
async def test_a_handshake_that_is_not_finished_is_given_up() -> None:
    async with line("websocket.handshake_timeout=0.3") as it:
        client = RawClient("GET /x/ws HTTP/1.1\r\n")
        port = it.bridge.runner.listener.port.getHost().port
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
        gone = []
        client.connectionLost = lambda reason: (gone.append(reason), client.changed())
        await client.until(lambda: gone)
        assert client.data == b""


@ensureDeferred
async def test_a_peer_that_is_lost_within_our_close_leaves_no_timer() -> None:
    """Autobahn's would hold on to the protocol for as long as the handshake may take."""
    async with line("websocket.close_timeout=60", answers_close=False) as it:
        phone, bot = await it.talk()
        phone.hangup()
        await it.ended(phone)
        bot.die()
        await bot.until(lambda: not bot.sockets)
    # The fixture of all these tests looks for timers that are left.
