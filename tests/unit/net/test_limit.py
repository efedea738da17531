"""Connections that wait for their peer: over the limit, the one that waited longest is closed."""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net import limit as limits
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.limit import LEAST, MOST, TOLD_EVERY, ConnectionLimit, share
from pipecat_bridge.net.proxied import ProxiedFactory
from pipecat_bridge.options import AudioSocketOptions, Options, WebSocketOptions
from pipecat_bridge.runner.socket.dialback_server import DialbackServer
from pipecat_bridge.wire.audiosocket import Kind, encode
from pipecat_bridge.workers.phones import PhonePort
from pipecat_bridge.workers.switchboard import Switchboard
from tests.doubles.link import join
from tests.unit.asterisk.test_audiosocket import Place

FEW = 3


def few() -> int:
    return FEW


class ShareTests(SynchronousTestCase):
    def test_a_share_of_what_the_process_may_have(self) -> None:
        for descriptors, expected in (
            (64, LEAST),
            (256, LEAST),
            (1024, 128),
            (1 << 20, MOST),
        ):
            with patch.object(limits, "limit", return_value=descriptors):
                self.assertEqual(share(), expected)


class LimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.closed: list[str] = []
        self.limit: ConnectionLimit[str] = ConnectionLimit(
            self.clock, "phone", self.closed.append, few
        )

    def test_the_one_that_waited_longest_is_closed(self) -> None:
        for name in "abcde":
            self.limit.wait(name)
        self.assertEqual((self.closed, self.limit.waiting), (["a", "b"], ["c", "d", "e"]))
        self.assertEqual((len(self.limit), self.limit.dropped), (3, 2))

    def test_who_waits_again_waits_shorter(self) -> None:
        for name in "abcad":
            self.limit.wait(name)
        self.assertEqual(self.closed, ["b"])

    def serve(self, names: str) -> None:
        for name in names:
            self.limit.wait(name)
            self.limit.serve(name)

    def test_the_served_count_and_the_waiting_go_first(self) -> None:
        self.serve("a")
        for name in "bcd":
            self.limit.wait(name)
        self.assertEqual((self.closed, len(self.limit)), (["b"], 3))
        self.limit.leave("a")
        self.limit.wait("e")
        self.assertEqual(self.closed, ["b"])

    def test_one_that_comes_is_never_the_one(self) -> None:
        self.serve("abc")
        self.limit.serve("a")  # once more
        for name, closed in (("d", "b"), ("e", "bd"), ("f", "bde")):
            self.limit.wait(name)
            self.assertEqual("".join(self.closed), closed)

    def test_the_served_leave_half_of_the_places_to_those_that_wait(self) -> None:
        self.limit = ConnectionLimit(self.clock, "phone", self.closed.append, lambda: 8)
        self.serve("abcdefgh")
        for name in "ABCDE":
            self.limit.wait(name)
        self.assertEqual((self.closed, self.limit.waiting), (list("abcdA"), list("BCDE")))

    def test_one_that_closes_at_once_is_gone_by_then(self) -> None:
        limit: ConnectionLimit[str] = ConnectionLimit(
            self.clock, "phone", lambda name: limit.leave(name), few
        )
        for name in "abcde":
            limit.wait(name)
        self.assertEqual((len(limit), limit.dropped), (3, 2))

    def test_the_log_has_a_line_in_a_second_with_the_count_since_the_last(self) -> None:
        with capturedLogs() as events:
            for number in range(FEW + 30):
                self.limit.wait(str(number))
            self.clock.advance(TOLD_EVERY)
            self.limit.wait("last")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "- 1 phones without a UUID closed: more than 3 at the same time",
                "- 30 phones without a UUID closed: more than 3 at the same time",
            ],
        )


class Peer(Protocol):
    lost = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class FloodCase(SynchronousTestCase):
    """Connections of peers that say nothing, to a port of the bridge, and then an honest one."""

    def flood(self, clock: Clock, factory: Any) -> list[tuple[Peer, Any]]:
        """Twice as many as may wait; the newer half is left."""
        self.patch(limits, "limit", lambda: 0)
        self.patch(limits, "LEAST", FEW)
        peers = [Peer() for _ in range(2 * FEW)]
        ends = [(peer, join(clock, peer, factory.buildProtocol(None))[0]) for peer in peers]
        clock.advance(0.1)
        self.assertEqual([peer.lost for peer in peers], [True] * FEW + [False] * FEW)
        return ends[FEW:]


class PhoneTests(FloodCase):
    def test_phones_that_tell_no_uuid(self) -> None:
        place = Place()
        silent = self.flood(place.clock, place.factory)
        for _ in range(2 * FEW):  # calls that go on
            peer = Peer()
            near, _ = join(place.clock, peer, place.factory.buildProtocol(None))
            near.write(encode(Kind.UUID, uuid4().bytes))
            place.clock.advance(0.01)
            self.assertFalse(peer.lost)
        self.assertEqual([peer.lost for peer, _ in silent], [True, False, False])
        self.assertEqual(len(place.factory.unknown), FEW - 1)
        self.assertEqual(place.factory.unknown.dropped, FEW + 1)
        self.assertEqual(place.factory.open.count, FEW - 1 + 2 * FEW)


class BotTests(FloodCase):
    def test_sockets_that_do_not_finish_the_handshake(self) -> None:
        clock = Clock()
        server = DialbackServer(clock, WebSocketOptions())
        server.setProtocolOptions(openHandshakeTimeout=0)
        ends = self.flood(clock, server)
        self.assertEqual((len(server.unopened), server.unopened.dropped), (FEW, FEW))
        for peer, near in ends:
            near.write(b"GET /x HTTP/1.1\r\n\r\n")
            near.loseConnection()
            clock.advance(0.1)
            self.assertTrue(peer.lost)
        self.assertEqual(len(server.unopened), 0)


class ProxyTests(FloodCase):
    def test_proxies_that_send_no_header(self) -> None:
        clock = Clock()
        factory = ProxiedFactory(clock, ServerFactory.forProtocol(Peer))
        ends = self.flood(clock, factory)
        ends[0][1].write(b"PROXY UNKNOWN\r\n")
        clock.advance(0.1)
        self.assertEqual(len(factory.waiting), FEW - 1)


class WorkersPhoneTests(SynchronousTestCase):
    def test_phones_that_tell_no_uuid(self) -> None:
        self.patch(limits, "limit", lambda: 0)
        self.patch(limits, "LEAST", FEW)
        reactor = MemoryReactorClock()
        board = Switchboard(reactor, Options(), lambda *_: None)  # type: ignore[arg-type]
        port = PhonePort(reactor, AudioSocketOptions(), board, Descriptors(reactor))
        phones = []
        for _ in range(2 * FEW):
            phone, ours = socket.socketpair()
            self.addCleanup(phone.close)
            ours.setblocking(False)
            port._accepted(ours, ("127.0.0.1", 1))
            phones.append(phone)
        self.assertEqual((len(port.unknown), port.unknown.dropped), (FEW, FEW))
        self.assertEqual(phones[0].recv(1), b"", "closed")
        phones[-1].send(encode(Kind.UUID, UUID(int=1).bytes))
        port.unknown.waiting[-1].doRead()
        self.assertEqual(len(port.unknown), FEW - 1)
        for arrival in list(port._arrivals):
            arrival.close()
        self.assertEqual((len(port.unknown), reactor.getDelayedCalls()), (0, []))
