"""HTTP connections of the API, with limits of time and bytes that Twisted's own do not have."""

from __future__ import annotations

from collections import deque
from io import BytesIO
from typing import Any, Final

import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.transport import bound_reads

MAX_BODY: Final = 1 << 16
"""Upper limit of a request's body, in bytes. The data of a call has some hundred."""

READ: Final = 1 << 11
"""Bytes that are read at once. They may be hundreds of tiny chunks, and two milliseconds' work."""

PATIENCE: Final = 10.0
"""Seconds for a client to send a whole request, to read an answer, or to begin the next request."""

LINGER: Final = 1.0
"""Seconds for a client to read the refusal of a request that it is still sending. If the bridge
closed at once, the kernel would reset the connection, and the refusal could be lost."""


class ApiRequest(Request):
    """A request whose body is kept in memory, within MAX_BODY.

    Twisted would write the body to a temporary file, and parse it if it is a form. So the body is
    not in `content` until the request is answered.
    """

    channel: ApiChannel
    _refused = False
    _gone = False  # the client

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()
        self._pieces: list[bytes] = []
        self._size = 0
        if length is not None and length > MAX_BODY:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        self._size += len(data)
        self._pieces.append(data)
        if self._size > MAX_BODY:
            self._refuse_body()

    def _refuse_body(self) -> None:
        self._refused = True
        self._pieces.clear()
        self.requestHeaders.removeHeader(b"expect")  # Twisted would answer "100 Continue" as well
        self.channel.refuse(413, f"the body has more than {MAX_BODY} bytes")

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._refused:
            self.channel.loseConnection()  # nothing more comes
        else:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        """The request is complete: it is answered when its channel says so."""
        self.content = BytesIO(b"".join(self._pieces))
        self._pieces.clear()
        self.channel.received(self)

    def answer(self) -> bool:
        """Answer now. False: the client has gone."""
        if not self._gone:
            super().process()
        return not self._gone

    def connectionLost(self, reason: Failure) -> None:
        self._gone = True
        super().connectionLost(reason)


class ApiChannel(HTTPChannel):
    """One connection to the API."""

    site: LimitedSite
    transport: Any
    _begun = False  # a byte of the next request has come
    _answering = False
    _full = False  # the client does not read what was sent
    _next: ApiRequest | None = None  # a request that waits until the client reads
    _over = False  # nothing more is read
    _aborted = False

    def connectionMade(self) -> None:
        bound_reads(self.transport, READ)
        self._count()
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.leave(self)
        self._next = None
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        if not self._over:
            super().dataReceived(data)

    def _count(self) -> None:
        """Tell the limit whether this connection waits for its client, to speak or to read."""
        if self._aborted:
            return  # a request may still be answered, but the limit has closed it
        if self._answering and not self._full:
            self.site.connections.serve(self)
        else:
            self.site.connections.wait(self)

    # Requests

    def received(self, request: ApiRequest) -> None:
        """A request is complete."""
        self._begun, self._answering = False, True
        self._count()
        if self._full:
            self._next = request
            self.setTimeout(PATIENCE)
        else:
            self.site.answer_soon(request)

    def requestDone(self, request: Request) -> None:
        self._answering = False
        self._count()
        super().requestDone(request)

    def pauseProducing(self) -> None:
        """The client does not read. So its next request waits, and nothing is read from it."""
        self._full = True
        self._count()
        super().pauseProducing()
        self.transport.pauseProducing()  # Twisted does not while a request is being answered

    def resumeProducing(self) -> None:
        self._full = False
        self._count()
        super().resumeProducing()
        self.transport.resumeProducing()  # nor that: an answer may be without end
        request, self._next = self._next, None
        if request is not None:
            self.setTimeout(None)
            self.site.answer_soon(request)

    # Ends

    def resetTimeout(self) -> None:
        """Data has come. Only the first byte of a request sets a new deadline."""
        if not self._begun and not self._answering:
            self._begun = True
            self.setTimeout(PATIENCE)

    def timeoutConnection(self) -> None:
        """The client was too slow."""
        if self._begun and not self._over and not self._full:
            self.refuse(408, f"the request was not complete within {PATIENCE:g} s")
        else:
            self.abort()

    def refuse(self, status: int, text: str) -> None:
        """Answer with an error before the request is complete. The rest of it is not used."""
        body = msgspec.json.encode({"error": text}) + b"\n"
        headers = Headers({"connection": ["close"], "content-type": ["application/json"]})
        headers.setRawHeaders("content-length", [str(len(body))])
        self.writeHeaders(b"HTTP/1.1", b"%d" % status, RESPONSES[status], headers)
        self.write(body)
        self._over = True
        self.setTimeout(LINGER)

    def loseConnection(self) -> None:
        """Close as soon as the client has read everything, but within PATIENCE."""
        self._over = True
        super().loseConnection()
        self.setTimeout(PATIENCE)

    def abort(self) -> None:
        """Close the connection now."""
        self._aborted = True
        self.transport.abortConnection()


class LimitedSite(Site):
    """A site on ApiChannel. It answers one request in each turn of the loop.

    `connections` has its open connections, within their limit.
    """

    noisy = False
    protocol = ApiChannel  # type: ignore[assignment]  # Twisted's is a function
    requestFactory = ApiRequest

    def __init__(self, reactor: IReactorTime, root: Resource) -> None:
        super().__init__(root, reactor=reactor, timeout=PATIENCE)
        self.connections: ConnectionLimit[ApiChannel] = ConnectionLimit(
            reactor, "api", ApiChannel.abort
        )
        self._waiting: deque[ApiRequest] = deque()
        self._turn: IDelayedCall | None = None

    def answer_soon(self, request: ApiRequest) -> None:
        """Answer a request in the next turn, or later if others wait already."""
        self._waiting.append(request)
        self._set_turn()

    def _set_turn(self) -> None:
        if self._waiting and self._turn is None:
            self._turn = self.reactor.callLater(0, self._answer)

    def _answer(self) -> None:
        self._turn = None
        try:
            while self._waiting and not self._waiting.popleft().answer():
                pass
        finally:
            self._set_turn()

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/2 would have a channel of its own, without these limits."""
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """Log nothing for a request."""
