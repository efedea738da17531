"""What is known about a connection before a worker gets it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any
from uuid import UUID

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.wire.audiosocket import Kind, encode
from pipecat_bridge.workers.acceptor import PAUSE, Acceptor
from pipecat_bridge.workers.arrival import Arrival, call_id_in

CALL_ID = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
MESSAGE = encode(Kind.UUID, UUID(CALL_ID).bytes)
AUDIO = encode(0x10, bytes(320))
V1 = b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 9092\r\n"
V2 = bytes.fromhex("0d0a0d0a000d0a515549540a 2111 000c 0a000007 0a000001 1267 2384")


class CallIdTests(SynchronousTestCase):
    def test_a_message_byte_by_byte(self) -> None:
        for end in range(len(MESSAGE)):
            self.assertIsNone(call_id_in(MESSAGE[:end]), MESSAGE[:end])
        for rest in (b"", b"\x10", AUDIO):
            self.assertEqual(call_id_in(MESSAGE + rest), CALL_ID)

    def test_what_is_none(self) -> None:
        for data in (
            AUDIO,
            encode(Kind.HANGUP),
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/1.1\r\n",
            b"\x01\x00\x11" + bytes(17),
            b"\x01\x01",
            V1 + MESSAGE,
        ):
            with self.assertRaises(ValueError, msg=data):
                call_id_in(data)


class Full:
    """A listening socket, while the process has no descriptors left."""

    def __init__(self, error: int) -> None:
        self.error = error
        self.accepts = 0

    def accept(self) -> None:
        self.accepts += 1
        if self.accepts > 3:
            raise BlockingIOError
        raise OSError(self.error, os.strerror(self.error))

    def fileno(self) -> int:
        return -1


class AcceptorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.accepted: list[socket.socket] = []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.addCleanup(self.listening.close)
        descriptor = os.dup(self.listening.fileno())
        self.descriptors = Descriptors(self.reactor)
        self.acceptor: Any = Acceptor(self.reactor, descriptor, self.descriptors, self.accept)
        self.acceptor.start()

    def accept(self, sock: socket.socket, address: Any) -> None:
        self.accepted.append(sock)
        self.addCleanup(sock.close)

    def test_all_that_wait(self) -> None:
        for _ in range(3):
            self.addCleanup(socket.create_connection(self.listening.getsockname()).close)
        self.acceptor.doRead()
        self.assertEqual(len(self.accepted), 3)
        self.assertEqual({sock.getblocking() for sock in self.accepted}, {False})

    def test_it_pauses_when_descriptors_have_run_out(self) -> None:
        self.acceptor._socket, real = Full(errno.EMFILE), self.acceptor._socket
        with capturedLogs() as captured:
            self.acceptor.doRead()
        [event] = captured
        self.assertIn("no file descriptors are left of ", formatEvent(event))
        self.assertEqual(self.descriptors.exhausted, 1)
        self.assertEqual(self.reactor.getReaders(), [])
        self.acceptor._socket = real
        self.reactor.advance(PAUSE)
        self.assertEqual(self.reactor.getReaders(), [self.acceptor])

    def test_connections_that_have_gone_are_passed_over(self) -> None:
        self.acceptor._socket, real = Full(errno.ECONNABORTED), self.acceptor._socket
        self.acceptor.doRead()
        self.assertEqual(self.reactor.getReaders(), [self.acceptor])
        self.acceptor._socket = real

    def tearDown(self) -> None:
        self.acceptor.stop()
        self.acceptor.stop()
        self.assertEqual((self.reactor.getReaders(), self.reactor.getDelayedCalls()), ([], []))


class ArrivalCase(SynchronousTestCase):
    proxied = False

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.heard: list[str] = []
        self.allowed = {"192.0.2.1"}
        self.phone, ours = socket.socketpair()
        self.addCleanup(self.phone.close)
        ours.setblocking(False)
        self.arrival = Arrival(self.reactor, ours, "192.0.2.1", 4711, 5.0, self.proxied, self)
        self.arrival.read()

    def allows(self, host: str) -> bool:
        return host in self.allowed

    def known(self, arrival: Arrival) -> None:
        self.heard.append(f"known {arrival.call_id}".strip())

    def too_late(self, arrival: Arrival) -> None:
        self.heard.append("too late")

    def gone(self, arrival: Arrival) -> None:
        self.heard.append("gone")

    def say(self, data: bytes) -> None:
        self.phone.send(data)
        self.arrival.doRead()


class ArrivalTests(ArrivalCase):
    def test_it_is_read_until_it_is_known(self) -> None:
        self.arrival.doRead()
        self.say(MESSAGE[:10])
        self.assertEqual((self.heard, self.reactor.getReaders()), ([], [self.arrival]))
        self.say(MESSAGE[10:] + AUDIO)
        self.assertEqual(self.heard, [f"known {CALL_ID}"])
        self.assertEqual(self.arrival.data, MESSAGE + AUDIO)
        self.assertEqual(self.reactor.getReaders(), [])
        self.arrival.close()
        self.arrival.close()
        self.assertEqual(self.heard[1:], ["gone"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_what_says_no_uuid_is_known_as_that(self) -> None:
        self.say(AUDIO)
        self.assertEqual(self.heard, ["known"])
        self.arrival.close()

    def test_it_is_too_late_after_its_time(self) -> None:
        self.say(MESSAGE[:10])
        self.reactor.advance(5.0)
        self.assertEqual((self.heard, self.reactor.getReaders()), (["too late"], []))
        self.arrival.close()

    def test_one_that_is_taken_is_not(self) -> None:
        self.say(MESSAGE)
        self.arrival.taken()
        self.reactor.advance(5.0)
        self.assertEqual(self.heard, [f"known {CALL_ID}"])
        self.arrival.close()

    def test_one_that_goes_by_itself(self) -> None:
        self.phone.close()
        self.arrival.doRead()
        self.assertEqual((self.heard, self.arrival.open), (["gone"], False))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_that_the_reactor_has_lost(self) -> None:
        self.arrival.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((self.heard, self.arrival.open), (["gone"], False))


class ProxiedArrivalTests(ArrivalCase):
    proxied = True

    def test_the_address_that_the_proxy_tells_counts(self) -> None:
        self.allowed = {"10.0.0.7"}
        for header in (V1, V2):
            with self.subTest(header=header):
                self.setUp()
                self.allowed = {"10.0.0.7"}
                for byte in header + MESSAGE:
                    self.assertEqual(self.heard, [])
                    self.say(bytes((byte,)))
                self.assertEqual(self.heard, [f"known {CALL_ID}"])
                self.assertEqual((self.arrival.host, self.arrival.port), ("10.0.0.7", 4711))
                self.assertEqual(self.arrival.data, header + MESSAGE)
                self.arrival.close()

    def test_its_own_address_counts_where_it_tells_none(self) -> None:
        self.say(b"PROXY UNKNOWN\r\n" + MESSAGE)
        self.assertEqual(self.heard, [f"known {CALL_ID}"])
        self.assertEqual(self.arrival.host, "192.0.2.1")
        self.arrival.close()

    def test_a_client_that_is_not_allowed_is_known_at_once_and_by_no_uuid(self) -> None:
        for header in (V1, V2):
            with self.subTest(header=header):
                self.setUp()
                self.say(header)
                self.assertEqual((self.heard, self.reactor.getReaders()), (["known"], []))
                self.arrival.close()
        self.setUp()
        self.say(V1 + MESSAGE)
        self.assertEqual(self.heard, ["known"])
        self.arrival.close()

    def test_what_is_no_header_is_known_as_that(self) -> None:
        for data in (MESSAGE, AUDIO, b"\r\n\r\nX", b"PROXY " + b"x" * 200):
            with self.subTest(data=data):
                self.setUp()
                self.say(data)
                self.assertEqual(self.heard, ["known"])
                self.arrival.close()

    def test_what_is_no_uuid_after_it(self) -> None:
        self.allowed = {"10.0.0.7"}
        self.say(V1 + AUDIO)
        self.assertEqual(self.heard, ["known"])
        self.arrival.close()
