"""Phones' connections until their UUID is known, which decides what worker gets them.

They are read here and not by Twisted, whose transports shut a connection down when they let it go.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final, Protocol
from uuid import UUID

from twisted.internet import protocol
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pipecat_bridge.wire.audiosocket import HANGUP, Kind, encode

READ_BYTES: Final = 4096
"""More than a PROXY header (536 bytes at the most) and the message with the UUID."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that Asterisk has to close after a hangup, as in `pipecat_bridge.asterisk`."""

_UUID_MESSAGE: Final = encode(Kind.UUID, bytes(16))
_PROXY_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"


def call_id_in(data: bytes, proxied: bool) -> str | None:
    """The UUID that a connection begins with; None when more must be read.

    `proxied`: after a PROXY header. Raises ValueError for what is no UUID message.
    """
    start = _after_proxy_header(data) if proxied else 0
    if start is None:
        return None
    said = data[start:]
    if said[:3] != _UUID_MESSAGE[: min(3, len(said))]:
        raise ValueError("no UUID message")
    if len(said) < len(_UUID_MESSAGE):
        return None
    return str(UUID(bytes=said[3 : len(_UUID_MESSAGE)]))


def _after_proxy_header(data: bytes) -> int | None:
    """Where the header ends, by HAProxy's proxy-protocol.txt; judged by who reads it after us."""
    if data[:1] == b"P":
        end = data.find(b"\r\n")
        return end + 2 if end >= 0 else None
    if data[:12] != _PROXY_V2[: len(data)]:
        raise ValueError("no PROXY header")
    if len(data) < 16:
        return None
    end = 16 + int.from_bytes(data[14:16], "big")
    return end if len(data) >= end else None


class Desk(Protocol):
    """Who wants to know of an arrival."""

    def known(self, arrival: Arrival) -> None:
        """Its `call_id` is there, or will never be; told once."""

    def too_late(self, arrival: Arrival) -> None:
        """Its time is over, and it was not `taken`."""

    def gone(self, arrival: Arrival) -> None:
        """It is closed."""


@implementer(IReadDescriptor)
class Arrival:
    """A phone that has connected, and has `timeout` seconds to be taken.

    `data` is what was read of it, `call_id` the UUID in that.
    """

    _log = Logger(namespace="pipecat_bridge.workers")

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        peer: str,
        timeout: float,
        proxied: bool,
        desk: Desk,
    ) -> None:
        self.socket = sock
        self.peer = peer
        self.data = b""
        self.call_id = ""
        self._reactor = reactor
        self._proxied = proxied
        self._desk = desk
        self._timer: IDelayedCall | None = reactor.callLater(timeout, self._timed_out)

    def read(self) -> None:
        """Read until the UUID is known."""
        self._reactor.addReader(self)

    @property
    def open(self) -> bool:
        """Whether it has not been let go."""
        return self.socket.fileno() >= 0

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "phone"

    def doRead(self) -> None:
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self.data += data
        try:
            self.call_id = call_id_in(self.data, self._proxied) or ""
        except ValueError:
            self._tell()
            return
        if self.call_id or len(self.data) >= READ_BYTES:
            self._tell()

    def _tell(self) -> None:
        self._reactor.removeReader(self)
        self._desk.known(self)

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def _timed_out(self) -> None:
        self._timer = None
        self._reactor.removeReader(self)
        self._desk.too_late(self)

    def taken(self) -> None:
        """Somebody takes care of it now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Let the connection go; who has got it as well keeps it."""
        self.taken()
        if self.open:
            self._reactor.removeReader(self)
            self.socket.close()
            self._desk.gone(self)

    def refuse(self, reason: str) -> None:
        """Tell the phone to hang up, so that its dialplan goes on."""
        self.taken()
        self._log.warn(
            "{call_id} connection from {peer} refused: {reason}",
            call_id=self.call_id or "-",
            peer=self.peer,
            reason=reason,
        )
        factory = protocol.ServerFactory.forProtocol(lambda: _Refusal(self._reactor))
        with suppress(OSError):  # it has gone by itself
            self._reactor.adoptStreamConnection(self.fileno(), self.socket.family, factory)
        self.close()


class _Refusal(protocol.Protocol):
    """Says hangup; the phone closes, for a close of ours could overtake it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(HANGUP)
        self._timer = self._reactor.callLater(CLOSE_TIMEOUT, transport.abortConnection)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if self._timer.active():
            self._timer.cancel()
