"""Persistent HTTP connections. The server may have closed one before it is used again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.client import (  # type: ignore[attr-defined]  # Twisted lists less in __all__
    HTTP11ClientProtocol,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseNeverReceived,
)
from zope.interface import implementer

from pipecat_bridge.errors import PeerError
from pipecat_bridge.net.failures import given_up
from pipecat_bridge.net.transport import bound_reads

_NOT_A_BYTE: Final = (RequestTransmissionFailed, ResponseNeverReceived)
"""Errors of requests that got no byte of an answer."""


MAX_HEADERS: Final = 1 << 14
"""Most bytes of an answer's headers, with those of interim answers (1xx). Twisted limits the length
of each header, and not their number."""

READ: Final = 1 << 11
"""Bytes of an answer that are read in one turn of the loop. They may be hundreds of tiny chunks or
headers, and two milliseconds' work."""


class _Connection(HTTP11ClientProtocol):
    """A connection that is closed if the headers of an answer have more than `MAX_HEADERS` bytes.

    The request then fails with PeerError. What is more is not even parsed.
    """

    transport: Any
    _heading = False  # the headers of an answer are still to come
    _size = 0  # bytes of the answer until then

    def connectionMade(self) -> None:
        bound_reads(self.transport, READ)
        super().connectionMade()

    def request(self, request: Any) -> Deferred[Any]:
        """Send a request. Fires with the answer when its headers have come."""
        self._heading, self._size = True, 0
        asking: Deferred[Any] = super().request(request)
        return asking.addBoth(self._headed)

    def _headed(self, answer: Any) -> Any:
        self._heading = False
        if isinstance(answer, Failure) and self._size > MAX_HEADERS:
            raise PeerError(f"an answer whose headers have more than {MAX_HEADERS} bytes")
        return answer

    def dataReceived(self, data: bytes) -> None:
        """Take a part of the answer."""
        room = len(data)
        if self._heading:
            room = max(MAX_HEADERS - self._size, 0)
            self._size += len(data)
        super().dataReceived(data[:room])
        rest = data[room:]
        if rest and self._heading:
            self.transport.abortConnection()
        elif rest:
            super().dataReceived(rest)


class _Connections(Factory):
    """Makes a connection. Its start and its end are not logged."""

    noisy = False

    def __init__(self, quiescent: Callable[[Any], None], _: str) -> None:
        self._quiescent = quiescent

    def buildProtocol(self, addr: IAddress | None) -> HTTP11ClientProtocol:
        return _Connection(self._quiescent)


class KeptConnections(HTTPConnectionPool):
    """A pool that repeats a request on a new connection if a kept connection was closed.

    A server may close an idle connection at any time, also while a request is on its way. The
    server then has hardly acted on the request, so a POST is repeated as well. A request on a new
    connection is not repeated: the server has just accepted that connection, and may have acted.
    """

    _factory = _Connections  # type: ignore[assignment]
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
        """Connect."""
        self.connected = True
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
