"""Connections of phones until their UUID is known. The UUID decides which worker gets the phone.

This module reads the socket without a transport of Twisted: such a transport shuts the connection
down when it is closed, also for the worker that has got it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final, Protocol
from uuid import UUID

from twisted.internet import protocol
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire.audiosocket import HANGUP, Kind, encode
from pipecat_bridge.wire.proxy import read_header

READ_BYTES: Final = 4096
"""Bytes that are read at once. The first read usually has the UUID, also after a PROXY header."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for Asterisk to close after a hangup, as in `pipecat_bridge.asterisk`."""

_UUID_MESSAGE: Final = encode(Kind.UUID, bytes(16))


def call_id_in(data: bytes) -> str | None:
    """The UUID at the beginning of an AudioSocket stream; None if more must be read.

    Raises FormatError if the stream does not begin with a UUID message.
    """
    if data[:3] != _UUID_MESSAGE[: min(3, len(data))]:
        raise FormatError("no UUID message")
    if len(data) < len(_UUID_MESSAGE):
        return None
    return str(UUID(bytes=data[3 : len(_UUID_MESSAGE)]))


class ArrivalListener(Protocol):
    """Is told what becomes of an arrival."""

    def allows(self, host: str) -> bool:
        """Whether a phone may connect from `host`, an IP address."""
        ...

    def known(self, arrival: Arrival) -> None:
        """The `call_id` of the arrival is known, or will never be. Called once."""

    def too_late(self, arrival: Arrival) -> None:
        """The timeout is over, and nobody called `taken`."""

    def gone(self, arrival: Arrival) -> None:
        """The arrival is closed."""


@implementer(IReadDescriptor)
class Arrival:
    """A phone that has connected. A worker must take it within `timeout` seconds.

    `data`: the bytes that were read. `call_id`: the UUID in them, or "". `proxied`: the connection
    begins with a PROXY header, whose address replaces `host` and `port`.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        host: str,
        port: int,
        timeout: float,
        proxied: bool,
        listener: ArrivalListener,
    ) -> None:
        self.socket = sock
        self.host, self.port = host, port
        self.data = b""
        self.call_id = ""
        self._reactor = reactor
        self._proxied = proxied
        self._listener = listener
        self._timer: IDelayedCall | None = reactor.callLater(timeout, self._timed_out)

    def read(self) -> None:
        """Start reading, until the UUID is known."""
        self._reactor.addReader(self)

    @property
    def open(self) -> bool:
        """Whether the socket is still open in this process."""
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
            start = self._after_header()
            if start is not None:
                self.call_id = call_id_in(self.data[start:]) or ""
        except FormatError:  # a worker gets the phone, closes it, logs that and counts it
            self._tell()
            return
        if self.call_id:
            self._tell()

    def _after_header(self) -> int | None:
        """The offset in `data` where the AudioSocket stream begins; None if more must be read.

        Raises FormatError if the PROXY header is wrong, or if its client is not allowed.
        """
        if not self._proxied:
            return 0
        header = read_header(self.data)
        if header is None:
            return None
        if header.host:
            self.host, self.port = header.host, header.port
        if not self._listener.allows(self.host):
            raise FormatError(f"{self.host} is not allowed")
        return header.size

    def _tell(self) -> None:
        self._reactor.removeReader(self)
        self._listener.known(self)

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def _timed_out(self) -> None:
        self._timer = None
        self._reactor.removeReader(self)
        self._listener.too_late(self)

    def taken(self) -> None:
        """Cancel the timeout: a worker gets this phone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Close the socket in this process. A worker that has got it keeps the connection."""
        self.taken()
        if self.open:
            self._reactor.removeReader(self)
            self.socket.close()
            self._listener.gone(self)

    @property
    def peer(self) -> str:
        """The phone's address, for the log."""
        return f"{self.host or '?'}:{self.port or '?'}"

    def refuse(self) -> None:
        """Tell the phone to hang up, so that its dialplan goes on."""
        self.taken()
        factory = protocol.ServerFactory.forProtocol(lambda: _Refusal(self._reactor))
        with suppress(OSError):  # the phone has closed the connection
            self._reactor.adoptStreamConnection(self.fileno(), self.socket.family, factory)
        self.close()


class _Refusal(protocol.Protocol):
    """Sends a hangup message and waits for the phone to close. A close from the bridge could arrive
    before the phone has read the message."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(HANGUP)
        self._timer = self._reactor.callLater(CLOSE_TIMEOUT, transport.abortConnection)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        if self._timer.active():
            self._timer.cancel()
