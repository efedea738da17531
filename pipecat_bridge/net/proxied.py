"""Connections from a proxy that sends a PROXY header: `haproxy:` endpoints.

Twisted's own wrapper makes the protocol before the header comes, so the protocol sees the address
of the proxy. It also loses a header that comes in two reads.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.errors import FormatError
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.rate_limit import BoundedLog
from pipecat_bridge.net.transport import ProxiedTransport, bound_reads
from pipecat_bridge.wire.proxy import ProxyHeader, read_header

PREFIX: Final = "haproxy:"
"""The beginning of the endpoint string for a port behind a proxy."""

HEADER_TIMEOUT: Final = 5.0
"""Seconds for the proxy to send its header. A proxy sends it as soon as it has connected."""

READ: Final = 1 << 11
"""Bytes that are read in one turn of the loop while the header is awaited. What comes with the
header goes on in one piece, before the protocol behind can set a limit of its own."""


class ProxiedFactory(ServerFactory):
    """Lets `factory` build its protocols with the address in the PROXY header."""

    noisy = False

    def __init__(self, reactor: Any, factory: IProtocolFactory) -> None:
        self.reactor = reactor
        self.inside: Any = factory
        self.waiting: ConnectionLimit[ProxiedConnection] = ConnectionLimit(
            reactor, "proxy", ProxiedConnection.close
        )
        self.refusals = BoundedLog(ProxiedConnection._log, reactor.seconds)

    def doStart(self) -> None:
        super().doStart()
        self.inside.doStart()

    def doStop(self) -> None:
        super().doStop()
        self.inside.doStop()

    def stopFactory(self) -> None:
        """Close the connections that have not sent their header: the port is closed."""
        for connection in self.waiting.waiting:
            connection.close()

    def buildProtocol(self, addr: IAddress | None) -> ProxiedConnection:
        return ProxiedConnection(self)


class ProxiedConnection(Protocol):
    """Reads the PROXY header. Then the protocol that is built for the client takes over."""

    _log = Logger()
    transport: Any

    def __init__(self, factory: ProxiedFactory) -> None:
        self._factory = factory
        self._data = b""
        self._inside: IProtocol | None = None
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        reactor = self._factory.reactor
        self._timer = reactor.callLater(HEADER_TIMEOUT, self._timed_out)
        self._usual_read = self.transport.bufferSize
        bound_reads(self.transport, READ)
        self._factory.waiting.wait(self)

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
        bound_reads(transport, self._usual_read)
        if header.host:
            kind = IPv6Address if ":" in header.host else IPv4Address
            transport = ProxiedTransport(transport, kind("TCP", header.host, header.port))
        inside = self._factory.inside.buildProtocol(transport.getPeer())
        if inside is None:
            self.close()
            return
        self._inside = inside
        self.dataReceived = inside.dataReceived  # type: ignore[method-assign]  # one call less
        inside.makeConnection(transport)
        if rest:
            inside.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._wait_no_more()
        if self._inside is not None:
            self._inside.connectionLost(reason)

    def close(self) -> None:
        """Close the connection now. Further data is not read."""
        self._wait_no_more()
        self.transport.abortConnection()

    def _timed_out(self) -> None:
        self._refuse(f"no PROXY header within {HEADER_TIMEOUT:g} s")

    def _refuse(self, fault: str) -> None:
        host = getattr(self.transport.getPeer(), "host", "?")
        self._factory.refusals.warn(
            "- connection from {host} closed: {fault}", host=host, fault=fault
        )
        self.close()

    def _wait_no_more(self) -> None:
        self._factory.waiting.leave(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
