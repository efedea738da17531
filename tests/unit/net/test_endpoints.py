"""Connections to runners and bots: a refusal is known at once."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import ConnectBindError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported

from pipecat_bridge.errors import BridgeError
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.endpoints import ATTEMPT_DELAY, Endpoints


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.descriptors = Descriptors(self.reactor)
        self.endpoints = Endpoints(self.reactor, self.descriptors, timeout=7.0)

    def refuse(self, address: str, port: int) -> None:
        [(host, to, factory, timeout, _)] = self.reactor.tcpClients
        self.assertEqual((host, to, timeout), (address, port, 7.0))
        connector: Any = None
        factory.clientConnectionFailed(connector, Failure(Refused()))

    def test_an_address_that_refuses_does_so_at_once(self) -> None:
        for address in ("192.0.2.7", "2001:db8::7"):
            with self.subTest(address=address):
                self.reactor.tcpClients.clear()
                connecting = self.endpoints.connect(address, 80, False).connect(Factory())
                self.refuse(address, 80)
                self.failureResultOf(connecting, Refused)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_name_that_refuses_does_so_within_the_delay(self) -> None:
        connecting = self.endpoints.connect("localhost", 80, False).connect(Factory())
        [(address, *_)] = self.reactor.tcpClients
        self.refuse(address, 80)
        self.reactor.advance(ATTEMPT_DELAY)
        self.failureResultOf(connecting, Refused)

    def test_want_of_descriptors_is_not_the_hosts_fault(self) -> None:
        connecting = self.endpoints.connect("192.0.2.7", 80, False).connect(Factory())
        [(_, _, factory, _, _)] = self.reactor.tcpClients
        factory.clientConnectionFailed(None, Failure(ConnectBindError(errno.EMFILE, "")))
        failure = self.failureResultOf(connecting, BridgeError)
        self.assertEqual(str(failure.value), "no file descriptors are left")
        self.assertEqual(self.descriptors.exhausted, 1)

    def test_with_tls(self) -> None:
        for host in ("bots.example", "192.0.2.7", "2001:db8::7"):
            with self.subTest(host=host):
                plain = self.endpoints.connect(host, 443, False)
                self.assertNotIsInstance(self.endpoints.connect(host, 443, True), type(plain))

    def test_urls(self) -> None:
        for url, address, port in (
            (b"http://192.0.2.7/run", "192.0.2.7", 80),
            (b"http://192.0.2.7:8000/run", "192.0.2.7", 8000),
            (b"http://[2001:db8::7]:8000/run", "2001:db8::7", 8000),
            (b"https://192.0.2.7/run", "192.0.2.7", 443),
        ):
            with self.subTest(url=url):
                self.reactor.tcpClients.clear()
                connecting = self.endpoints.endpointForURI(URI.fromBytes(url)).connect(Factory())
                self.refuse(address, port)
                self.failureResultOf(connecting, Refused)

    def test_no_other_scheme(self) -> None:
        with self.assertRaises(SchemeNotSupported):
            self.endpoints.endpointForURI(URI.fromBytes(b"ftp://192.0.2.7/run"))
