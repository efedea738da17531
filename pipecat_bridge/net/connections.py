"""Persistent HTTP connections. The server may have closed one before it is used again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import (
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseNeverReceived,
)
from zope.interface import implementer

from pipecat_bridge.net.failures import given_up

_NOT_A_BYTE: Final = (RequestTransmissionFailed, ResponseNeverReceived)
"""Errors of requests that got no byte of an answer."""


class KeptConnections(HTTPConnectionPool):
    """A pool that repeats a request on a new connection if a kept connection was closed.

    A server may close an idle connection at any time, also while a request is on its way. The
    server then has hardly acted on the request, so a POST is repeated as well. A request on a new
    connection is not repeated: the server has just accepted that connection, and may have acted.
    """

    retryAutomatically = False  # Twisted would not repeat a POST

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, persistent=True)

    def getConnection(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        """A connection, kept or new."""
        watched = _Watched(endpoint)
        getting: Deferred[Any] = super().getConnection(key, watched)

        def known(connection: Any) -> Any:
            if watched.connected:
                return connection
            return _Kept(connection, lambda: self._get_new(key, endpoint))

        return getting.addCallback(known)

    def _get_new(self, key: Hashable, endpoint: IStreamClientEndpoint) -> Deferred[Any]:
        """A new connection. The kept ones to this server are closed: if the server closed one of
        them, it has probably closed the others too."""
        watched = _Watched(endpoint)
        getting: Deferred[Any] = super().getConnection(key, watched)

        def known(connection: Any) -> Any:
            if watched.connected:
                return connection
            connection.abort()
            return self._get_new(key, endpoint)

        return getting.addCallback(known)


@implementer(IStreamClientEndpoint)
class _Watched:
    """An endpoint. `connected`: it was used to connect."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self.connected = False

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect. The start and the end of the connection are not logged."""
        self.connected = True
        made_for_this: Any = factory  # Twisted's pool makes a factory for each connection
        made_for_this.noisy = False
        return self._endpoint.connect(factory)

    def __repr__(self) -> str:
        return repr(self._endpoint)


class _Kept:
    """A connection that was used before. `renew` makes a new connection."""

    def __init__(self, connection: Any, renew: Callable[[], Deferred[Any]]) -> None:
        self._connection = connection
        self._renew = renew

    def request(self, request: Any) -> Deferred[Any]:
        """Send a request; once more on a new connection if this one was closed."""

        def failed(failure: Failure) -> Any:
            error: Any = failure.value
            if not isinstance(error, _NOT_A_BYTE) or given_up(error):
                return failure
            return self._renew().addCallback(lambda new: new.request(request))

        asking: Deferred[Any] = self._connection.request(request)
        return asking.addErrback(failed)
