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

from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire.audiosocket import HANGUP, Kind, encode
from pipecat_bridge.wire.proxy import read_header

READ_BYTES: Final = 4096
"""As much as is read at once: as a rule the UUID is in it, after a PROXY header."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that Asterisk has to close after a hangup, as in `pipecat_bridge.asterisk`."""

_UUID_MESSAGE: Final = encode(Kind.UUID, bytes(16))


def call_id_in(data: bytes) -> str | None:
    """The UUID that an AudioSocket stream begins with; None when more must be read.

    Raises FormatError for what is no UUID message.
    """
    if data[:3] != _UUID_MESSAGE[: min(3, len(data))]:
        raise FormatError("no UUID message")
    if len(data) < len(_UUID_MESSAGE):
        return None
    return str(UUID(bytes=data[3 : len(_UUID_MESSAGE)]))


class ArrivalListener(Protocol):
    """Who wants to know of an arrival."""

    def allows(self, host: str) -> bool:
        """Whether a phone may connect from there."""
        ...

    def known(self, arrival: Arrival) -> None:
        """Its `call_id` is there, or will never be; told once."""

    def too_late(self, arrival: Arrival) -> None:
        """Its time is over, and it was not `taken`."""

    def gone(self, arrival: Arrival) -> None:
        """It is closed."""


@implementer(IReadDescriptor)
class Arrival:
    """A phone that has connected, and has `timeout` seconds to be taken.

    `data` is what was read of it, `call_id` the UUID in that. `proxied`: a PROXY header comes
    first, and tells who the peer is in place of `host` and `port`.
    """

    _log = Logger(namespace="pipecat_bridge.workers")

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
            start = self._after_header()
            if start is not None:
                self.call_id = call_id_in(self.data[start:]) or ""
        except FormatError:  # a worker closes it, logs and counts that
            self._tell()
            return
        if self.call_id:
            self._tell()

    def _after_header(self) -> int | None:
        """Where the AudioSocket stream begins; None when more must be read.

        Raises FormatError for a wrong header, and when its client is not allowed.
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
            self._listener.gone(self)

    def refuse(self, reason: str) -> None:
        """Tell the phone to hang up, so that its dialplan goes on."""
        self.taken()
        self._log.warn(
            "{call_id} connection from {peer} refused: {reason}",
            call_id=self.call_id or "-",
            peer=f"{self.host or '?'}:{self.port or '?'}",
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
