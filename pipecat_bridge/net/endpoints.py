"""How peers are connected to, plainly or with TLS."""

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
"""Seconds from a try at one address of a host to one at its next (the least that RFC 8305,
section 5, recommends).

Twisted notices no earlier that the last address has refused, and the caller waits for another
runner then; its own delay is 0.3 s. An address that is given as such refuses at once.
"""


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Makes endpoints that have `timeout` seconds to connect.

    `trust_root` is who may vouch for a host's name, None for the system's certificates. Where it is
    for want of a descriptor that a connection fails, it does so with BridgeError.
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
        """From a name or an address, and whether TLS is wanted."""
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
        """For Twisted's Agent."""
        if uri.scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"{uri.scheme!r}, expected http or https")
        return self.connect(uri.host.decode("ascii"), uri.port, uri.scheme == b"https")


@implementer(IStreamClientEndpoint)
class _DescriptorAware:
    """An endpoint whose error is BridgeError when this process had no descriptor left."""

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
