"""Behind a proxy that sends a PROXY header, the address that it tells is the peer's."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any
from uuid import UUID, uuid4

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs, formatEvent

from tests.doubles.asterisk import StrictAsterisk
from tests.e2e.harness import Line, line, reactor, sleep
from tests.e2e.test_phone_side import Stranger, connect
from tests.e2e.workers_line import workers_line

PHONES = "audiosocket.listen=haproxy:tcp:0:interface=127.0.0.1"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


def v1(host: str, port: int) -> bytes:
    return f"PROXY TCP4 {host} 192.0.2.1 {port} 9092\r\n".encode()


def v2(host: str, port: int) -> bytes:
    body = ip_address(host).packed + ip_address("192.0.2.1").packed + struct.pack(">HH", port, 9092)
    return b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack(">H", len(body)) + body


def hello(call_id: UUID) -> bytes:
    return b"\x01\x00\x10" + call_id.bytes


async def talk(it: Line, header: bytes) -> tuple[StrictAsterisk, Any]:
    call_id = uuid4()
    return await it.talk(call_id=call_id, handshake=header + hello(call_id))


@pytest.mark.parametrize("header", [v1, v2])
@ensureDeferred
async def test_a_call_of_a_client_that_is_allowed(header: Any) -> None:
    async with line(PHONES, 'audiosocket.allow=["10.0.0.0/8"]') as it:
        phone, bot = await talk(it, header("10.0.0.5", 4711))
        phone.start_audio()
        await bot.until(lambda: len(bot.audio) > 5)
        await phone.until(lambda: len(phone.frames) > 5)
        record = it.record(phone)
        assert record["peer"] == "10.0.0.5:4711"
        [created] = it.events(phone, "call.created")
        assert created["data"] == {"peer": "10.0.0.5:4711", "direction": "in"}
        connection: Any = it.bridge.calls.running[0].phone._wire
        assert connection.transport.getPeer().host == "10.0.0.5"
        phone.hangup()
        assert (await it.ended(phone))["outcome"] == "caller-hangup"
        assert phone.faults == []
        await it.bridge.phones.open.idle()


@pytest.mark.parametrize("header", [v1, v2])
@ensureDeferred
async def test_a_client_that_is_not_allowed(header: Any) -> None:
    async with line(PHONES, 'audiosocket.allow=["127.0.0.0/8"]') as it:
        with capturedLogs() as captured:
            stranger = await connect(it, Stranger(header("10.0.0.5", 4711) + hello(uuid4())))
            await stranger.lost
        said = [formatEvent(event) for event in captured]
        assert "- connection from 10.0.0.5 closed: not in [audiosocket] allow" in said
        assert stranger.received == b""
        assert (it.bridge.phones.refused, it.bridge.calls.outcomes) == (1, {})


@ensureDeferred
async def test_where_the_proxy_tells_nobody_its_own_address_counts() -> None:
    for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
        async with line(PHONES, 'audiosocket.allow=["127.0.0.0/8"]') as it:
            phone, _ = await talk(it, header)
            assert it.record(phone)["peer"].startswith("127.0.0.1:")
            phone.hangup()
            await it.ended(phone)


@ensureDeferred
async def test_a_header_in_two_pieces() -> None:
    for header in (v1("10.0.0.5", 4711), v2("10.0.0.5", 4711)):
        for cut in (1, 14, len(header) - 1):
            async with line(PHONES) as it:
                call_id = uuid4()
                phone = await it.dial(call_id=call_id, handshake=header[:cut])
                await sleep(0.01)
                phone.send(header[cut:] + hello(call_id))
                await it.runner.until(lambda it=it, call_id=call_id: str(call_id) in it.runner.bots)
                assert it.record(phone)["peer"] == "10.0.0.5:4711"
                phone.hangup()
                await it.ended(phone)
                assert phone.faults == []


@ensureDeferred
async def test_a_phone_that_does_not_read_is_noticed_as_without_a_proxy() -> None:
    """The frames go to the same kernel buffers, and are bounded there."""
    async with line(PHONES, "audiosocket.stall_timeout=0.3") as it:
        phone, _ = await talk(it, v2("10.0.0.5", 4711))
        phone.stop_reading()
        connection: Any = it.bridge.calls.running[0].phone._wire
        for _ in range(3000):
            connection.line.tick()
        await it.bridge.calls.idle()
        assert it.record(phone)["outcome"] == "phone-lost"
        assert connection.line.stats.frames_out < 500


class Client(Protocol):
    """Sends a request behind a PROXY header, in pieces, and keeps the answer."""

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


@ensureDeferred
async def test_the_api_and_the_bots_port_take_a_header_in_pieces_too() -> None:
    settings = [
        f"{section}.listen=haproxy:tcp:0:interface=127.0.0.1" for section in ("api", "runner")
    ]
    async with line(*settings) as it:
        requests = {
            it.bridge.api: (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b" 200 "),
            it.bridge.runner.listener: (
                b"GET /x/ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                b" 404 ",
            ),
        }
        for listener, (request, answer) in requests.items():
            for header in (v1("10.0.0.5", 4711), v2("10.0.0.5", 4711)):
                port: Any = listener.port
                endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
                client = await connectProtocol(endpoint, Client())
                transport: Any = client.transport
                transport.write(header[:9])
                await sleep(0.01)
                transport.write(header[9:] + request)
                for _ in range(500):
                    if client.received:
                        break
                    await sleep(0.01)
                assert answer in client.received.splitlines()[0] + b" "
                transport.abortConnection()


@ensureDeferred
async def test_workers() -> None:
    async with workers_line(PHONES, 'audiosocket.allow=["10.0.0.0/8"]') as it:
        for header in (v1("10.0.0.5", 4711), v2("10.0.0.5", 4711)):
            call_id = uuid4()
            phone, _ = await it.talk(call_id=call_id, handshake=header + hello(call_id))
            _, record = await it.api("GET", f"/v1/calls/{call_id}")
            assert record["peer"] == "10.0.0.5:4711"
            # One with the same UUID that is not allowed is in no call, and disturbs none.
            far = await it.dial(call_id=call_id, handshake=v1("192.0.2.9", 5) + hello(call_id))
            await far.lost
            assert phone.ended is None
        await it.said("connection from 192.0.2.9 closed: not in [audiosocket] allow", 2)
        none = await it.dial(handshake=b"PROXY TCP4 10.0.0.5\r\n")
        await none.lost
        await it.said("closed: a wrong PROXY header: b'PROXY TCP4 10.0.0.5'")
        metrics = await it.metrics()
        assert metrics["pipecat_bridge_phones_refused_total"] == 2
        assert metrics["pipecat_bridge_calls"] == 2
