"""HTTP connections that are kept, and may have been closed by the runner when they are used."""

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
"""Errors of requests to which not a byte of an answer came."""


class KeptConnections(HTTPConnectionPool):
    """A pool that asks once more, on a new connection, when a kept one turns out to be closed.

    A server closes idle connections when it likes, and a request may be under way to it then; that
    it was acted on is unlikely, so a POST is repeated as well. On a connection that was not used
    before nothing is: the server has just accepted it, and may have acted.
    """

    retryAutomatically = False  # Twisted would repeat a GET only

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
        """A connection that was not used before.

        The kept ones are closed: what made the server close one of them is true of all.
        """
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
    """An endpoint; `connected` tells whether it was used."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self.connected = False

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect, without a line in the log for each connection's start and end."""
        self.connected = True
        made_for_this: Any = factory  # Twisted's pool makes one for each connection
        made_for_this.noisy = False
        return self._endpoint.connect(factory)

    def __repr__(self) -> str:
        return repr(self._endpoint)


class _Kept:
    """A connection that was used before; `renew` gives one that was not."""

    def __init__(self, connection: Any, renew: Callable[[], Deferred[Any]]) -> None:
        self._connection = connection
        self._renew = renew

    def request(self, request: Any) -> Deferred[Any]:
        """Send a request, as the connection does."""

        def failed(failure: Failure) -> Any:
            error: Any = failure.value
            if not isinstance(error, _NOT_A_BYTE) or given_up(error):
                return failure
            return self._renew().addCallback(lambda new: new.request(request))

        asking: Deferred[Any] = self._connection.request(request)
        return asking.addErrback(failed)
