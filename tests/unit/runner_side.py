"""A runner in memory: Twisted's real agent and pool, and a test that answers by hand."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from pipecat_bridge.errors import PeerError
from pipecat_bridge.net.http import Answer
from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.side import http_client, http_pool

URL = "http://127.0.0.1:8000"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + b'{"status": "ok"}'
ENDLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n{"


class Connection:
    """A runner's end of a TCP connection."""

    def __init__(self, factory: Any) -> None:
        self.transport = StringTransport()
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def requests(self) -> list[bytes]:
        """The request lines that came."""
        return re.findall(rb"(?:GET|POST) \S+ HTTP/1\.1", self.transport.value())

    def answer(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def closed(self) -> bool:
        return self.transport.disconnecting or self.transport.disconnected


class ClientCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self, hosts: int = 1, **options: Any) -> None:
        self.reactor = MemoryReactorClock()
        runner = RunnerOptions(**options)
        self.pool = http_pool(self.reactor, runner, hosts)
        agent = Agent(self.reactor, connectTimeout=1e6, pool=self.pool)
        self.client = http_client(self.reactor, agent, runner)
        self.taken = 0

    def ask(self, method: str = "POST", path: str = "/run", **options: Any) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self.client.request(method, URL + path, **options))

    @property
    def dials(self) -> int:
        """Connections that were asked for."""
        return len(self.reactor.tcpClients)

    def accept(self) -> Connection:
        """Accept the next connection."""
        factory = self.reactor.tcpClients[self.taken][2]
        self.taken += 1
        return Connection(factory)

    def why(self, asking: Deferred[Answer]) -> str:
        return str(self.failureResultOf(asking, PeerError).value)
