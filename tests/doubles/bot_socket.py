"""The WebSockets of the bot doubles, and what bots of every dialect do with them."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from autobahn.twisted.websocket import WebSocketClientProtocol, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from tests.doubles.watch import Watched

Direction = Literal["input", "output"] | None


class BotClose(NamedTuple):
    """How a socket ended."""

    direction: Direction
    clean: bool
    code: int | None
    reason: str | None


class BotAudio(NamedTuple):
    """An audio frame as it came: when, samples per second, channels, bytes."""

    at: float
    rate: int
    channels: int
    pcm: bytes


class DialError(Exception):
    """The bridge did not take the WebSocket; `status` is HTTP's, None without an answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        found = re.search(r"upgrade failed \[(\d{3})\]", reason)
        self.status = int(found[1]) if found else None


class BotSocketRole:
    """What a bot's WebSocket does in either role; to be mixed with one of Autobahn's."""

    def __init__(self, bot: WebSocketBot, direction: Direction = None) -> None:
        super().__init__()
        self.bot = bot
        self.direction = direction
        self.opened: Deferred[Any] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.opened_at = 0.0
        self.stalled = False

    def connectionMade(self) -> None:
        if self.bot.receive_buffer and hasattr(self._tcp(), "getHandle"):
            handle = self._tcp().getHandle()
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.bot.receive_buffer)
        if self.bot.read_rate:
            self._tcp().bufferSize = max(512, self.bot.read_rate // 50)
        super().connectionMade()  # type: ignore[misc]

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)  # type: ignore[misc]
        if self.bot.read_rate and not self.stalled:
            self._tcp().pauseProducing()
            self.bot.later(len(data) / self.bot.read_rate, self.read_on)

    def read_on(self) -> None:
        if not self.stalled:
            self._tcp().resumeProducing()

    def stall(self, stalled: bool) -> None:
        """Read nothing, or read again."""
        self.stalled = stalled
        (self._tcp().pauseProducing if stalled else self._tcp().resumeProducing)()

    def die(self) -> None:
        """End the connection with RST."""
        self._tcp().abortConnection()

    def dropConnection(self, abort: bool = False) -> None:
        """Close the TCP connection, unless the bot leaves that to the bridge."""
        if self.bot.drops_tcp or not self.opened.called:
            super().dropConnection(abort)  # type: ignore[misc]

    def _tcp(self) -> Any:
        return self.transport  # type: ignore[attr-defined]

    def onOpen(self) -> None:
        self.opened_at = self.bot.clock.seconds()
        self.bot.socket_opened(self)
        self.opened.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.bot.received(self, payload, isBinary)

    def onPing(self, payload: bytes) -> None:
        if self.bot.answers_pings:
            super().onPing(payload)  # type: ignore[misc]

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        if self.bot.answers_close:
            answer: bool | None = super().onCloseFrame(code, reasonRaw)  # type: ignore[misc]
            return answer
        return None

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.opened.called:
            self.opened.errback(DialError(str(reason)))
        self.bot.socket_closed(self, BotClose(self.direction, wasClean, code, reason))
        self.gone.callback(None)


class BotSocket(BotSocketRole, WebSocketClientProtocol):  # type: ignore[misc]
    """A WebSocket that the bot dials."""


class ServedBotSocket(BotSocketRole, WebSocketServerProtocol):  # type: ignore[misc]
    """A WebSocket that the bridge dials; Autobahn's `onConnect` is where it may be refused."""


class WebSocketBot(Watched):
    """A bot of any dialect: its sockets, and what they do wrong.

    `read_rate`: bytes a second that it reads at most. `receive_buffer`: of its socket, in bytes.
    `leaves_after`: seconds from being asked to end until it closes by itself; None: it does not.
    `drops_tcp`: where the bridge dialled, it closes the TCP connection after the closing handshake,
    as servers do. `on_open` is called with the bot once its first socket is open.

    What it had to complain about is in `faults`; how its sockets ended in `closes`.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        echo: bool = False,
        answers_close: bool = True,
        answers_pings: bool = True,
        read_rate: int = 0,
        receive_buffer: int = 0,
        leaves_after: float | None = None,
        drops_tcp: bool = True,
        on_open: Callable[[Any], object] | None = None,
    ) -> None:
        self.clock = reactor
        self.echo = echo
        self.answers_close = answers_close
        self.answers_pings = answers_pings
        self.read_rate = read_rate
        self.receive_buffer = receive_buffer
        self.leaves_after = leaves_after
        self.drops_tcp = drops_tcp
        self.on_open = on_open
        self.sockets: dict[Direction, Any] = {}
        self.faults: list[str] = []
        self.audio: list[BotAudio] = []
        self.closes: list[BotClose] = []
        self._timers: set[IDelayedCall] = set()

    def received(self, source: Any, payload: bytes, binary: bool) -> None:
        """Called by the socket for every message."""
        raise NotImplementedError

    def send(self, payload: bytes, binary: bool = True) -> None:
        """Send one WebSocket message to the bridge; nothing when that socket is closed."""
        out = self.sockets.get("output") or self.sockets.get(None)
        if out is not None and out.state == out.STATE_OPEN:
            out.sendMessage(payload, binary)

    def stall(self) -> None:
        """Read nothing and answer nothing, pings included, until `unstall`."""
        for one in self.sockets.values():
            one.stall(True)

    def unstall(self) -> None:
        """Read again."""
        for one in self.sockets.values():
            one.stall(False)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close all sockets with the closing handshake, with any code."""
        for one in list(self.sockets.values()):
            one.sendCloseFrame(code=code, reasonUtf8=reason.encode())

    def die(self) -> None:
        """The process is gone: connections end with RST."""
        for one in list(self.sockets.values()):
            one.die()

    def asked_to_end(self) -> None:
        """The bridge has asked for the end, in its dialect."""
        if self.leaves_after is not None:
            self.later(self.leaves_after, self.close)

    def pcm(self) -> bytes:
        """All audio received."""
        return b"".join(frame.pcm for frame in self.audio)

    def spacing(self) -> list[float]:
        """Seconds between audio frames: the stream must not pause, for VAD counts samples."""
        pairs = zip(self.audio, self.audio[1:], strict=False)
        return [after.at - before.at for before, after in pairs]

    def later(self, delay: float, call: Callable[[], object]) -> None:
        """Call after `delay` seconds, unless all sockets are closed by then."""
        self._timers = {timer for timer in self._timers if timer.active()}
        self._timers.add(self.clock.callLater(delay, call))

    def socket_opened(self, opened: Any) -> None:
        """Called by the socket."""
        self.sockets[opened.direction] = opened
        act, self.on_open = self.on_open, None
        if act is not None:
            self.later(0.0, lambda: act(self))
        self.changed()

    def socket_closed(self, closed: Any, how: BotClose) -> None:
        """Called by the socket."""
        self.closes.append(how)
        if self.sockets.get(closed.direction) is closed:
            del self.sockets[closed.direction]
        if self.sockets:
            self.changed()
            return
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self.over(f"the sockets are closed: {how}")
