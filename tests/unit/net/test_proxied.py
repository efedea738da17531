"""Connections behind a proxy: the protocol is built with the address in the PROXY header."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net.listener import Listener
from pipecat_bridge.net.proxied import HEADER_TIMEOUT, READ, ProxiedFactory
from tests.doubles.link import LinkTransport, join, turn

V1 = b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 9092\r\n"
V2 = bytes.fromhex("0d0a0d0a000d0a515549540a 2111 000c 0a000007 0a000001 1267 2384")


class Inside(Protocol):
    """The protocol that is built behind the wrapper."""

    def __init__(self, address: Any) -> None:
        self.address = address
        self.received = b""
        self.first = 0  # bytes of the first piece
        self.losses = 0

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.peer: Any = self.transport.getPeer()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.first = self.first or len(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.losses += 1


class InsideFactory(ServerFactory):
    noisy = False

    def __init__(self) -> None:
        self.built: list[Inside] = []
        self.refuses = False

    def buildProtocol(self, addr: IAddress | None) -> Inside | None:
        self.built.append(Inside(addr))
        return None if self.refuses else self.built[-1]


class Proxy(Protocol):
    def connectionMade(self) -> None:
        self.lost = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class ProxiedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.inside = InsideFactory()
        self.factory = ProxiedFactory(self.clock, self.inside)
        self.proxy, self.near = self.connect()

    def connect(self) -> tuple[Proxy, LinkTransport]:
        proxy = Proxy()
        near, _ = join(self.clock, proxy, self.factory.buildProtocol(None))
        return proxy, near

    def say(self, data: bytes, seconds: float = 0.002) -> None:
        self.near.write(data)
        turn(self.clock, seconds)

    def test_a_header_byte_by_byte(self) -> None:
        for header in (V1, V2):
            with self.subTest(header=header):
                self.setUp()
                for byte in header[:-1]:
                    self.say(bytes((byte,)))
                self.assertEqual(self.inside.built, [])
                self.say(header[-1:])
                [inside] = self.inside.built
                self.assertEqual((inside.address.host, inside.address.port), ("10.0.0.7", 4711))
                self.assertEqual(inside.peer, inside.address)
                self.assertEqual(inside.received, b"")
                self.say(b"a call")
                self.assertEqual(inside.received, b"a call")
                self.near.loseConnection()
                turn(self.clock, 0.002)
                self.assertEqual(inside.losses, 1)
                self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_comes_with_the_header(self) -> None:
        self.say(V1 + b"a call")
        self.assertEqual(self.inside.built[0].received, b"a call")

    def test_a_lot_that_comes_with_the_header(self) -> None:
        self.say(V1 + bytes(1 << 16))
        [inside] = self.inside.built
        self.assertEqual(inside.first, READ - len(V1))
        self.assertEqual(len(inside.received), 1 << 16)
        assert inside.transport is not None
        self.assertEqual(inside.transport.bufferSize, LinkTransport.bufferSize, "as it was")

    def test_the_proxys_own_address_where_it_tells_none(self) -> None:
        self.say(b"PROXY UNKNOWN\r\n")
        [inside] = self.inside.built
        self.assertEqual(inside.address, self.near.getHost())

    def test_who_is_refused_is_closed(self) -> None:
        self.inside.refuses = True
        self.say(V1 + b"a call")
        self.assertTrue(self.proxy.lost)
        self.assertEqual((self.inside.built[0].received, self.inside.built[0].losses), (b"", 0))

    def test_no_header(self) -> None:
        with capturedLogs() as captured:
            self.say(b"\x01\x00\x10" + bytes(16))
        [event] = captured
        self.assertEqual(
            formatEvent(event),
            "- connection from 127.0.0.1 closed: 0x01 where a PROXY header is expected",
        )
        self.check_closed()

    def test_none_in_time(self) -> None:
        self.say(V1[:10], HEADER_TIMEOUT - 0.1)
        self.assertFalse(self.proxy.lost)
        with capturedLogs() as captured:
            turn(self.clock, 0.2)
        [event] = captured
        self.assertIn("closed: no PROXY header within 5 s", formatEvent(event))
        self.check_closed()

    def check_closed(self) -> None:
        self.assertTrue(self.proxy.lost)
        self.assertEqual(self.inside.built, [])
        self.assertEqual((self.clock.getDelayedCalls(), len(self.factory.waiting)), ([], 0))

    def test_one_that_closes_before_is_no_news(self) -> None:
        with capturedLogs() as captured:
            self.near.loseConnection()
            turn(self.clock, 0.002)
        self.assertEqual(captured, [])
        self.check_closed()

    def test_none_waits_when_nothing_listens_any_more(self) -> None:
        self.factory.doStart()
        self.factory.doStop()
        turn(self.clock, 0.002)
        self.check_closed()

    def test_which_listeners_are_behind_one(self) -> None:
        for description, proxied in (("tcp:0", False), ("haproxy:tcp:0", True)):
            listener = Listener(self.clock, description, self.inside)
            self.assertEqual(isinstance(listener.factory, ProxiedFactory), proxied)
