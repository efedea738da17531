"""One port for HTTP and WebSockets, and odd answers to the opening handshake."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs

from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

Handshake = Literal[
    "ok",
    "accept-4003",  # accepted, and closed at once with that code
    "hang",  # no answer ever, to TLS neither
    "drop",
    "403",
    "429",  # with Retry-After
    "503",  # with Retry-After
    "302",
    "200",
    "garbage",
    "alert",  # of TLS
    "echo",  # what was asked, in the place of a status
    "not-utf8",  # in the reason phrase
    "endless",  # a header that goes on and on
    "bad-accept",  # a wrong Sec-WebSocket-Accept
    "no-accept",
    "other-subprotocol",  # one that nobody asked for
    "extension",  # likewise
]
_STATUS = {
    "403": b"403 Forbidden\r\nConnection: close\r\nContent-Length: 0",
    "429": b"429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0",
    "503": b"503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0",
    "302": b"302 Found\r\nLocation: ws://127.0.0.1:1/elsewhere\r\nContent-Length: 0",
    "200": b"200 OK\r\nContent-Length: 2\r\n\r\nhi",
    "not-utf8": b"400 \xff\xfe\xfd\r\nContent-Length: 0",
}

_NO_HTTP = {
    "garbage": b"220 mail.example.com ESMTP\r\n\r\n",
    "alert": bytes.fromhex("15030300020246"),
}


class Knock(NamedTuple):
    """One opening handshake as it came; header names are in lower case."""

    path: str
    args: dict[str, list[str]]
    headers: dict[str, str]
    protocols: list[str]

    @property
    def origin(self) -> str | None:
        """The header."""
        return self.headers.get("origin")


class Forks(Factory):
    """Of a port for HTTP and WebSockets both.

    `http` gives the protocol for a request, `socket` that for an opening handshake; `deaf` says
    whether to answer nothing to TLS, which others refuse; `changed` is called when a connection has
    come or gone. `open` are those that are open.
    """

    noisy = False

    def __init__(
        self,
        http: Callable[[], Any],
        socket: Callable[[Knock], Any],
        deaf: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.http = http
        self.socket = socket
        self.deaf = deaf
        self.changed = changed
        self.open: set[_Fork] = set()

    def buildProtocol(self, addr: Any) -> _Fork:
        return _Fork(self)


class _Fork(Protocol):
    """Looks at the head of the first request, and gives the connection to whom it is for."""

    def __init__(self, forks: Forks) -> None:
        self._forks = forks
        self._head = b""
        self._inner: Any = None

    def connectionMade(self) -> None:
        self._forks.open.add(self)
        self._forks.changed()

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._head += data
        if self._head.startswith(b"\x16"):
            self._refuse_tls()
        elif b"\r\n\r\n" in self._head:
            self._inner = self._choose()
            self._inner.makeConnection(self.transport)
            self._inner.dataReceived(self._head)

    def _refuse_tls(self) -> None:
        """What a server without TLS says to who tries it."""
        if not self._forks.deaf():
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            self.transport.loseConnection()

    def _choose(self) -> Any:
        if re.search(rb"\r\nupgrade: *websocket\r\n", self._head.lower()):
            return self._forks.socket(knock(self._head))
        return self._forks.http()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._forks.open.discard(self)
        if self._inner is not None:
            self._inner.connectionLost(reason)
        self._forks.changed()


@implementer(IPullProducer)
class OddAnswer(Protocol):
    """Answers a handshake in an odd way, and leaves it to the bridge to close the connection."""

    def __init__(self, how: Handshake, knock: Knock) -> None:
        self._how = how
        self._key = knock.headers["sec-websocket-key"].encode()

    def dataReceived(self, data: bytes) -> None:
        how = self._how
        transport: Any = self.transport
        if how in _STATUS:
            transport.write(b"HTTP/1.1 " + _STATUS[how] + b"\r\n\r\n")
        elif how in _NO_HTTP:
            transport.write(_NO_HTTP[how])
        elif how == "echo":
            transport.write(b"HTTP/1.1 " + b" ".join(data.split()) + b"\r\n\r\n")
        elif how == "drop":
            transport.loseConnection()
        elif how == "endless":
            transport.write(b"HTTP/1.1 101 Switching Protocols\r\n")
            transport.registerProducer(self, False)
        elif how == "bad-accept":
            transport.write(_switching(self._key[::-1]))
        elif how == "no-accept":
            transport.write(re.sub(rb"Sec-.*?\r\n", b"", _switching(self._key)))
        elif how == "other-subprotocol":
            transport.write(_switching(self._key, b"Sec-WebSocket-Protocol: soap"))
        elif how == "extension":
            transport.write(_switching(self._key, b"Sec-WebSocket-Extensions: x-telepathy"))

    def resumeProducing(self) -> None:
        self.transport.write(b"X-More: " + b"x" * 4096 + b"\r\n")

    def stopProducing(self) -> None:
        """Nothing: the connection is lost."""


def _switching(key: bytes, *more: bytes) -> bytes:
    magic = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key + magic).digest())
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept,
        *more,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def knock(head: bytes) -> Knock:
    """What a request asks for."""
    first, *lines = head.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    path, _, query = first.split(" ")[1].partition("?")
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    protocols = headers.get("sec-websocket-protocol", "").split(",")
    return Knock(path, parse_qs(query), headers, [each.strip() for each in protocols if each])
