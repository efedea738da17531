"""Two protocols joined in memory on a turnable clock, with what TCP does to those who rely on it.

Delivery happens in a later turn and joins what was written meanwhile; a paused reader makes the
writer's buffer fill up and its producer pause; a close delivers what was written before it; an
abort does not, and looks like a reset to the peer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

Path = Callable[[float, int], float]


@implementer(ITCPTransport, IConsumer, IPushProducer)
class LinkTransport:
    """One end of a link. `window` bytes count as the kernel's; `bufferSize` more pause a producer.

    As in Twisted, `bufferSize` is also the most that is read at a time.

    `segment` is the most bytes that the peer gets in one `dataReceived`; None: all that waits.

    `path` tells for what is sent now, and how many bytes it has, when it arrives; None: at once. As
    with TCP, nothing overtakes what was sent before it.
    """

    bufferSize = 65536

    def __init__(self, clock: IReactorTime, port: int, window: int, segment: int | None) -> None:
        self._clock = clock
        self._address = IPv4Address("TCP", "127.0.0.1", port)
        self._window = window
        self._segment = segment
        self._queue = bytearray()
        self._scheduled = False
        self.peer: LinkTransport
        self.protocol: Any
        self.producer: Any = None
        self.streaming = False
        self.producer_paused = False
        self.paused = False
        self.no_delay = False
        self.disconnecting = False
        self.disconnected = False
        self.written = 0
        self.path: Path | None = None
        self._under_way = 0
        self._arrives = 0.0

    def write(self, data: bytes) -> None:
        if self.disconnecting or self.disconnected:
            return
        self.written += len(data)
        if self.path is not None:
            now = self._clock.seconds()
            self._arrives = max(self._arrives, self.path(now, len(data)), now)
            self._under_way += 1
            self._clock.callLater(self._arrives - now, self._arrive, data)
            return
        self._queue += data
        full = len(self._queue) > self._window + self.bufferSize
        if full and self.producer is not None and self.streaming and not self.producer_paused:
            self.producer_paused = True
            self.producer.pauseProducing()
        self._schedule()

    def _arrive(self, data: bytes) -> None:
        self._under_way -= 1
        self._queue += data
        self._schedule()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True
        self._schedule()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._queue.clear()
        self._clock.callLater(0, self._lost, ConnectionAborted())
        self._clock.callLater(0, self.peer._lost, ConnectionLost("Connection reset by peer"))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"{self.producer!r} is registered already")
        self.producer, self.streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        if self.disconnecting:
            self._schedule()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.peer._schedule()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return self.peer._address

    def getHost(self) -> IPv4Address:
        return self._address

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nothing to keep alive in memory."""

    def getTcpKeepAlive(self) -> bool:
        return False

    def loseWriteConnection(self) -> None:
        self.loseConnection()

    @property
    def waiting(self) -> int:
        """Bytes written and not yet delivered."""
        return len(self._queue)

    def _schedule(self) -> None:
        if not self._scheduled and not self.disconnected:
            self._scheduled = True
            self._clock.callLater(0, self._deliver)
        elif self.disconnected and not self.peer.disconnected:
            self._clock.callLater(0, self._deliver)  # data of the dead, held by the kernel

    def _deliver(self) -> None:
        self._scheduled = False
        while self._queue and not self.peer.paused and not self.peer.disconnected:
            size = min(self._segment or self.peer.bufferSize, self.peer.bufferSize)
            piece = bytes(self._queue[:size])
            del self._queue[:size]
            self.peer.protocol.dataReceived(piece)
        self._drained()
        if self._under_way:
            return
        if self.disconnecting and self.producer is None:
            if len(self._queue) <= self._window:
                self._lost(ConnectionDone())
            if not self._queue and not self.peer.paused:
                self.peer._lost(ConnectionDone())

    def _drained(self) -> None:
        if self.producer is None or self._queue or self.disconnected:
            return
        if self.producer_paused or not self.streaming:
            self.producer_paused = False
            self.producer.resumeProducing()

    def _lost(self, reason: Exception) -> None:
        if self.disconnected:
            return
        self.disconnected = True
        if self.producer is not None:
            producer, self.producer = self.producer, None
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


def join(
    clock: IReactorTime,
    client: Any,
    server: Any,
    *,
    window: int = 65536,
    segment: int | None = None,
) -> tuple[LinkTransport, LinkTransport]:
    """Connect two protocols; return the transports of the client and of the server."""
    near = LinkTransport(clock, 40000, window, segment)
    far = LinkTransport(clock, 9092, window, segment)
    near.peer, far.peer = far, near
    near.protocol, far.protocol = client, server
    server.makeConnection(far)
    client.makeConnection(near)
    return near, far


def turn(clock: Clock, seconds: float, step: float = 0.001) -> None:
    """Turn the clock in small steps: one great step would run all timers at its end."""
    start = clock.seconds()
    for number in range(1, round(seconds / step) + 1):
        clock.advance(start + number * step - clock.seconds())
