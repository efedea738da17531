"""A TCP transport that sends at once, and says when the peer does not take it.

Twisted's `transport.write` never sends in the turn it is called: it asks epoll for the socket to be
writable, waits for the next turn, sends, and takes the request back. For frames of some hundred
bytes on a clock that is two system calls and a turn of the loop too many; so this one sends
directly while nothing is queued, and leaves to Twisted only what the kernel did not take.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IAddress, IPullProducer, IPushProducer, ITCPTransport
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import directlyProvides, implementer, providedBy

_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)
"""What the kernel says when it takes no more for now."""

_TCP_NOTSENT_LOWAT = 25  # Linux, tcp(7); Python 3.11 has no name for it.


def _nothing() -> None:
    """Nobody waits for it."""


@implementer(ITCPTransport)
class EagerTransport:
    """Wraps a connected transport; everything but writing and closing is passed through.

    `congested` is true while bytes wait in user space; `on_drained` is called when the last of them
    went to the kernel. `broken` is true once a send has met a connection that is over, which
    Twisted has yet to read; `error` is what the kernel said then, and says only once. A transport
    without a plain TCP socket (in memory, TLS) is written to in Twisted's way, and is congested
    from where Twisted pauses a producer until it
    resumes it. Under TLS it does not provide ISSLTransport, though what it wraps does: Autobahn
    would take it for Twisted's own TLS protocol, and fail.
    """

    def __init__(self, transport: Any, on_drained: Callable[[], None] = _nothing) -> None:
        self._transport: Any = transport
        self._on_drained = on_drained
        self._socket = plain_socket(self._transport)
        self._open = True
        self.congested = False
        self.error: OSError | None = None
        signals = _BufferSignals(self._filled, self._emptied, self._gone)
        self._transport.registerProducer(signals, self._socket is None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def broken(self) -> bool:
        """Whether a send has failed for good."""
        return self.error is not None

    def write(self, data: bytes) -> None:
        """Send `data` now as far as the kernel takes it; queue the rest."""
        if not self._open:
            return
        if self._socket is None:
            self._transport.write(data)
        elif self.congested or not self._send(data):
            self._queue(data)

    def offer(self, data: bytes) -> bool:
        """Send `data` unless it would have to wait; False means that no byte of it will be sent."""
        if self.congested or not self._open:
            return False
        if self._socket is None:
            self._transport.write(data)
            return True
        return self._send(data)

    def _send(self, data: bytes) -> bool:
        assert self._socket is not None
        try:
            sent = self._socket.send(data)
        except OSError as error:
            if error.errno not in _FULL and self.error is None:
                # Twisted will find the connection closed when it reads. Without its traceback:
                # that would keep all who were sending.
                self.error = error.with_traceback(None)
            return False
        if sent < len(data):
            self._queue(data[sent:])
        return True

    def _queue(self, data: bytes) -> None:
        self.congested = True
        self._transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """As `write`, for several pieces."""
        self.write(b"".join(data))

    def _filled(self) -> None:
        self.congested = True

    def _emptied(self) -> None:
        if self.congested:
            self.congested = False
            self._on_drained()

    def _gone(self) -> None:
        self._open = False

    def forget(self) -> None:
        """Tell nobody any more; who was told has this transport, and would be kept by it."""
        self._on_drained = _nothing

    def loseConnection(self) -> None:
        """Close when everything is sent."""
        if self._open:
            # Twisted waits for a registered producer before it closes.
            self._open = False
            self._transport.unregisterProducer()
        self._transport.loseConnection()

    def abortConnection(self) -> None:
        """Close now; what waits is lost."""
        self._open = False
        self._transport.abortConnection()


@implementer(IPullProducer, IPushProducer)
class _BufferSignals:
    """Produces nothing, but hears what Twisted tells those who do.

    A pull producer is asked for more when Twisted's buffer has run empty; a push producer is told
    when the buffer is full, and then when it is empty again.
    """

    def __init__(
        self, filled: Callable[[], None], emptied: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self.pauseProducing = filled
        self.resumeProducing = emptied
        self.stopProducing = gone


class ProxiedTransport:
    """A transport whose peer is the one that a proxy has told of, at `peer`."""

    def __init__(self, transport: Any, peer: IAddress) -> None:
        self.beneath = transport
        self._peer = peer
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)

    def getPeer(self) -> IAddress:
        """Who has connected to the proxy."""
        return self._peer


def plain_socket(transport: object) -> socket.socket | None:
    """The TCP socket under `transport`, unless TLS or something else stands between."""
    transport = _beneath_proxy(transport)
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        handle: socket.socket = transport.getHandle()
        return handle if handle.family in (socket.AF_INET, socket.AF_INET6) else None
    return None


def _beneath_proxy(transport: Any) -> Any:
    return transport.beneath if isinstance(transport, ProxiedTransport) else transport


def bound_send_buffer(transport: Any, size: int) -> None:
    """Let the kernel take `size` bytes (it keeps twice that, with its own overhead), and no delay.

    By default it takes megabytes from a sender whose peer does not read: on loopback, 242 s of
    8 kHz audio in frames of 20 ms were measured.
    """
    transport = _beneath_proxy(transport)
    while isinstance(transport, ProtocolWrapper):  # TLS
        transport = transport.transport
    if isinstance(transport, tcp.Connection):
        handle: socket.socket = transport.getHandle()
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    if hasattr(transport, "setTcpNoDelay"):
        with suppress(OSError):  # a UNIX socket
            transport.setTcpNoDelay(True)


def set_buffers(transport: Any, read: int, write: int, unsent: int) -> None:
    """Bound what the kernel and Twisted buffer on a connection, in bytes.

    `unsent` makes the kernel refuse more once that much waits to be sent. Without it a reader that
    has stopped is noticed only after megabytes: 2.7 MB, 85 s of 16 kHz audio, were measured.
    """
    _beneath_proxy(transport).bufferSize = read
    sock = plain_socket(transport)
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, write)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, unsent)
