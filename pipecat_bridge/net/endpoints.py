"""Client endpoints for connections to peers, with or without TLS."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pipecat_bridge.errors import BridgeError
from pipecat_bridge.net.descriptors import NONE_LEFT, Descriptors
from pipecat_bridge.net.tls import ClientTLS

ATTEMPT_DELAY: Final = 0.1
"""Seconds from an attempt at one address of a host to the attempt at the next address (the least
that RFC 8305, section 5, recommends).

Twisted reports that the last address refused only after this delay, and the caller waits so long
for another runner. Twisted's default is 0.3 s. An IP address in the URL has no such delay.
"""


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Makes endpoints that have `timeout` seconds to connect.

    `trust_root`: the accepted certificate authorities, None for those of the system. If no file
    descriptor is left, the connection fails with BridgeError.
    """

    def __init__(
        self,
        reactor: Any,
        descriptors: Descriptors,
        trust_root: Any = None,
        timeout: float = 30.0,
    ) -> None:
        self._reactor = reactor
        self._descriptors = descriptors
        self._trust_root = trust_root
        self._timeout = timeout

    def connect(self, host: str, port: int, secure: bool) -> IStreamClientEndpoint:
        """An endpoint for a host name or IP address; with TLS if `secure`."""
        endpoint = _DescriptorAware(self._plain(host, port), self._descriptors)
        if not secure:
            return endpoint
        wrapped: IStreamClientEndpoint = wrapClientTLS(ClientTLS(host, self._trust_root), endpoint)
        return wrapped

    def _plain(self, host: str, port: int) -> IStreamClientEndpoint:
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, self._timeout)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, self._timeout)
        return HostnameEndpoint(
            self._reactor, host, port, self._timeout, attemptDelay=ATTEMPT_DELAY
        )

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """An endpoint for an http or https URI; Twisted's Agent calls this."""
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"{uri.scheme!r}, expected http or https")
        return self.connect(uri.host.decode("ascii"), uri.port, uri.scheme == b"https")


@implementer(IStreamClientEndpoint)
class _DescriptorAware:
    """An endpoint that fails with BridgeError if no file descriptor was left."""

    def __init__(self, endpoint: IStreamClientEndpoint, descriptors: Descriptors) -> None:
        self._endpoint = endpoint
        self._descriptors = descriptors

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addErrback(self._not_connected)

    def _not_connected(self, failure: Failure) -> Failure:
        if failure.value is not None and self._descriptors.is_cause(failure.value):
            return Failure(BridgeError(NONE_LEFT))
        return failure
