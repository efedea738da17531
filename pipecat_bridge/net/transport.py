"""A TCP transport that sends at once, and reports when the peer does not take the data.

Twisted's `transport.write` never sends at once: it adds the socket to epoll, waits for the next
turn of the loop, sends, and removes the socket again. For small frames at a fixed pace this costs
two system calls and one turn of the loop each time. So this transport sends directly while nothing
is queued, and gives Twisted only the data that the kernel did not take.
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
"""Error numbers of the kernel if it takes no more data now."""

_TCP_NOTSENT_LOWAT = 25  # Linux, tcp(7); Python 3.11 has no name for it.


def _nothing() -> None:
    """Does nothing: no callback is set."""


@implementer(ITCPTransport)
class EagerTransport:
    """Wraps a connected transport. Everything but writing and closing is passed through.

    `congested`: bytes wait in user space. `waiting`: how many were given since then. `on_drained`
    is called when the kernel has taken the last of them. `broken`: a send failed because the
    connection is over; Twisted notices that only when it reads. `error`: the error of that send,
    because the kernel reports it only once.

    Without a plain TCP socket (in memory, TLS) the data goes through Twisted's `write`. The
    transport is then congested from the time Twisted pauses a producer until Twisted resumes it.
    With TLS this class does not provide ISSLTransport, although the wrapped transport does:
    Autobahn would take it for Twisted's own TLS protocol, and fail.
    """

    def __init__(self, transport: Any, on_drained: Callable[[], None] = _nothing) -> None:
        self._transport: Any = transport
        self._on_drained = on_drained
        self._socket = plain_socket(self._transport)
        self._open = True
        self.congested = False
        self.waiting = 0
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
        """Send `data` now, as far as the kernel takes it, and queue the rest."""
        if not self._open:
            return
        if self._socket is None:
            self._transport.write(data)
            if self.congested:
                self.waiting += len(data)
        elif self.congested or not self._send(data):
            self._queue(data)

    def offer(self, data: bytes) -> bool:
        """Send `data` if it need not wait. False: no byte of it was sent or will be sent."""
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
                # Twisted will notice the closed connection when it reads. The traceback is dropped
                # because it would keep the objects of the senders in memory.
                self.error = error.with_traceback(None)
            return False
        if sent < len(data):
            self._queue(data[sent:])
        return True

    def _queue(self, data: bytes) -> None:
        self.congested = True
        self.waiting += len(data)
        self._transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send several pieces, as `write` does."""
        self.write(b"".join(data))

    def _filled(self) -> None:
        self.congested = True

    def _emptied(self) -> None:
        if self.congested:
            self.congested = False
            self.waiting = 0
            self._on_drained()

    def _gone(self) -> None:
        self._open = False

    def forget(self) -> None:
        """Drop the drain callback. It references its owner and would keep the owner alive."""
        self._on_drained = _nothing

    def loseConnection(self) -> None:
        """Close after everything was sent."""
        if self._open:
            # Twisted waits for a registered producer before it closes.
            self._open = False
            self._transport.unregisterProducer()
        self._transport.loseConnection()

    def abortConnection(self) -> None:
        """Close now. Queued data is lost."""
        self._open = False
        self._transport.abortConnection()


@implementer(IPullProducer, IPushProducer)
class _BufferSignals:
    """A producer that produces nothing, to be told about Twisted's write buffer.

    Twisted asks a pull producer for more when the buffer is empty. It tells a push producer when
    the buffer is full, and when the buffer is empty again.
    """

    def __init__(
        self, filled: Callable[[], None], emptied: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self.pauseProducing = filled
        self.resumeProducing = emptied
        self.stopProducing = gone


class ProxiedTransport:
    """A transport with the peer address `peer`, which a proxy has sent."""

    def __init__(self, transport: Any, peer: IAddress) -> None:
        self.beneath = transport
        self._peer = peer
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)

    def getPeer(self) -> IAddress:
        """The address of the client that connected to the proxy."""
        return self._peer


def plain_socket(transport: object) -> socket.socket | None:
    """The TCP socket of `transport`; None with TLS, with a UNIX socket, or in memory."""
    transport = _beneath_proxy(transport)
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        handle: socket.socket = transport.getHandle()
        return handle if handle.family in (socket.AF_INET, socket.AF_INET6) else None
    return None


def _beneath_proxy(transport: Any) -> Any:
    return transport.beneath if isinstance(transport, ProxiedTransport) else transport


def _beneath_tls(transport: Any) -> Any:
    transport = _beneath_proxy(transport)
    while isinstance(transport, ProtocolWrapper):  # TLS
        transport = transport.transport
    return transport


def bound_send_buffer(transport: Any, size: int) -> None:
    """Limit the kernel's send buffer to `size` bytes, and turn on TCP_NODELAY.

    The kernel reserves twice that size, for its own overhead. By default it buffers megabytes if
    the peer does not read: on loopback, 242 s of 8 kHz audio in frames of 20 ms were measured.
    """
    transport = _beneath_tls(transport)
    if isinstance(transport, tcp.Connection):
        handle: socket.socket = transport.getHandle()
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    if hasattr(transport, "setTcpNoDelay"):
        with suppress(OSError):  # a UNIX socket
            transport.setTcpNoDelay(True)


def bound_reads(transport: Any, size: int) -> None:
    """Read at most `size` bytes in each turn of the loop; with TLS, before they are decrypted.

    Twisted takes a transport for congested from so many bytes on as well.
    """
    _beneath_tls(transport).bufferSize = size


def set_buffers(transport: Any, read: int, write: int, unsent: int) -> None:
    """Limit the buffers of the kernel and of Twisted on a connection, in bytes.

    With `unsent`, the kernel takes no more data while that much waits to be sent. Without it, the
    sender notices only after megabytes that the peer has stopped reading: 2.7 MB, 85 s of 16 kHz
    audio, were measured.
    """
    bound_reads(transport, read)
    sock = plain_socket(transport)
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, write)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, unsent)
