"""A WebSocket of the bot double."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from autobahn.twisted.websocket import WebSocketClientProtocol
from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from tests.doubles.bot import BotDouble

Direction = Literal["input", "output"] | None


class BotClose(NamedTuple):
    """How a socket ended."""

    direction: Direction
    clean: bool
    code: int | None
    reason: str | None


class DialError(Exception):
    """The bridge did not take the WebSocket; `status` is HTTP's, None without an answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        found = re.search(r"upgrade failed \[(\d{3})\]", reason)
        self.status = int(found[1]) if found else None


class BotSocket(WebSocketClientProtocol):
    """One of the bot's WebSockets."""

    def __init__(self, bot: BotDouble, direction: Direction) -> None:
        super().__init__()
        self.bot = bot
        self.direction = direction
        self.opened: Deferred[BotSocket] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.opened_at = 0.0
        self.stalled = False

    def connectionMade(self) -> None:
        if self.bot.receive_buffer and hasattr(self._tcp(), "getHandle"):
            handle = self._tcp().getHandle()
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.bot.receive_buffer)
        if self.bot.read_rate:
            self._tcp().bufferSize = max(512, self.bot.read_rate // 50)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
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

    def _tcp(self) -> Any:
        return self.transport

    def onOpen(self) -> None:
        self.opened_at = self.bot.clock.seconds()
        self.bot.socket_opened(self)
        self.opened.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.bot.received(self, payload, isBinary)

    def onPing(self, payload: bytes) -> None:
        if self.bot.answers_pings:
            super().onPing(payload)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        if self.bot.answers_close:
            answer: bool | None = super().onCloseFrame(code, reasonRaw)
            return answer
        return None

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.opened.called:
            self.opened.errback(DialError(str(reason)))
        self.bot.socket_closed(self, BotClose(self.direction, wasClean, code, reason))
        self.gone.callback(None)
