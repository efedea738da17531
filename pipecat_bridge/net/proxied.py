"""Connections behind a proxy that sends a PROXY header: `haproxy:` endpoints.

Twisted's own wrapper makes the protocol before the header has come, so that it sees the proxy's
address, and loses a header that is split over two reads.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.errors import FormatError
from pipecat_bridge.net.transport import ProxiedTransport
from pipecat_bridge.wire.proxy import ProxyHeader, read_header

PREFIX: Final = "haproxy:"
"""What the endpoint string of such a listener begins with."""

HEADER_TIMEOUT: Final = 5.0
"""Seconds that a proxy has to send its header, which it does as soon as it has connected."""


class ProxiedFactory(ServerFactory):
    """Lets `factory` build its protocols with the address that the PROXY header tells."""

    noisy = False

    def __init__(self, reactor: Any, factory: IProtocolFactory) -> None:
        self.reactor = reactor
        self.inside: Any = factory
        self.waiting: set[ProxiedConnection] = set()

    def doStart(self) -> None:
        super().doStart()
        self.inside.doStart()

    def doStop(self) -> None:
        super().doStop()
        self.inside.doStop()

    def stopFactory(self) -> None:
        """Nothing listens any more: close what has not sent its header."""
        for connection in list(self.waiting):
            connection.close()

    def buildProtocol(self, addr: IAddress | None) -> ProxiedConnection:
        return ProxiedConnection(self)


class ProxiedConnection(Protocol):
    """Reads the header, then hands over to the protocol that is built for the client."""

    _log = Logger()
    transport: Any

    def __init__(self, factory: ProxiedFactory) -> None:
        self._factory = factory
        self._data = b""
        self._inside: IProtocol | None = None
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._factory.waiting.add(self)
        reactor = self._factory.reactor
        self._timer = reactor.callLater(HEADER_TIMEOUT, self._timed_out)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            header = read_header(self._data)
        except FormatError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._begin(header)

    def _begin(self, header: ProxyHeader) -> None:
        self._wait_no_more()
        rest, self._data = self._data[header.size :], b""
        transport = self.transport
        if header.host:
            kind = IPv6Address if ":" in header.host else IPv4Address
            transport = ProxiedTransport(transport, kind("TCP", header.host, header.port))
        inside = self._factory.inside.buildProtocol(transport.getPeer())
        if inside is None:
            self.close()
            return
        self._inside = inside
        self.dataReceived = inside.dataReceived  # type: ignore[method-assign]  # no hop for frames
        inside.makeConnection(transport)
        if rest:
            inside.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._wait_no_more()
        if self._inside is not None:
            self._inside.connectionLost(reason)

    def close(self) -> None:
        """End it; what comes is not read."""
        self._wait_no_more()
        self.transport.abortConnection()

    def _timed_out(self) -> None:
        self._refuse(f"no PROXY header within {HEADER_TIMEOUT:g} s")

    def _refuse(self, fault: str) -> None:
        host = getattr(self.transport.getPeer(), "host", "?")
        self._log.warn("- connection from {host} closed: {fault}", host=host, fault=fault)
        self.close()

    def _wait_no_more(self) -> None:
        self._factory.waiting.discard(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
