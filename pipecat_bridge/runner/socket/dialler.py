"""WebSockets that the bridge dials: Autobahn's client, plain or with TLS."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.client import responses
from typing import Any, Final
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from pipecat_bridge import __version__
from pipecat_bridge.errors import BlameError, PeerBusyError, PeerError
from pipecat_bridge.net.failures import closed, describe, given_up
from pipecat_bridge.net.http import BUSY_STATUSES, redirect_to, seconds_of
from pipecat_bridge.options import WebSocketOptions
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.socket.protocol import BotSocketProtocol
from pipecat_bridge.runner.socket.settings import protocol_options
from pipecat_bridge.runner.socket.target import Target
from pipecat_bridge.wire.websocket import ClientMask

TLS_ALERT: Final = b"\x15\x03"
"""The first bytes that a server with TLS sends to a client that speaks no TLS."""

_STATUS_LINE = re.compile(r"HTTP/1\.1 (\d{3})\b")
_SWITCHING_PROTOCOLS = 101

Connect = Callable[[str, int, bool], IStreamClientEndpoint]
"""Makes an endpoint from host, port, and whether TLS is wanted."""


class DialledProtocol(BotSocketProtocol, WebSocketClientProtocol):  # type: ignore[misc]
    """A WebSocket that the bridge dials, to a bot."""

    factory: _DialFactory
    peer_masks = False
    handshake = "an answer"
    http_headers: Any = None  # headers of the answer, or None before it has come
    http_status_line: Any = ""  # first line of the answer, or "" before it has come
    _leaving: IDelayedCall | None = None

    def makeConnection(self, transport: Any) -> None:
        self.frame = ClientMask().frame
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Take data, and check the answer to the opening handshake."""
        try:
            super().dataReceived(data)
        except UnicodeDecodeError:  # Autobahn decodes the answer for its log
            self.failHandshake("the answer to the opening handshake is not in UTF-8")
        if self.state == self.STATE_CONNECTING and self.data.startswith(TLS_ALERT):
            self.failHandshake("the server speaks TLS, expected a URL with wss://")

    def failHandshake(self, reason: str) -> None:
        """Close with `reason`. Autobahn's own method would log it twice, without the call's id."""
        self.wasNotCleanReason = reason
        self.give_up()

    def give_up(self) -> None:
        """Close an unfinished connection."""
        transport: Any = self.transport
        transport.abortConnection()

    def onOpen(self) -> None:
        factory = self.factory
        wanted = factory.protocols
        if wanted and self.websocket_protocol_in_use not in wanted:
            # `sendClose` does not accept the code 1002.
            self.sendCloseFrame(1002, f"expected the subprotocol {wanted[0]}".encode())
            factory.failed(f"the bot does not speak the subprotocol {wanted[0]!a}")
            return
        link = factory.opened()
        if link is None:
            self.close(1000, "not needed any more")
            return
        self._link = link
        super().onOpen()

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        """Drop TCP after `close_timeout` seconds. The server should close TCP after both close
        frames, but some servers do it late or never."""
        failed: bool | None = super().onCloseFrame(code, reasonRaw)
        if self.state == self.STATE_CLOSING and not self.closedByMe:
            wait = self.settings.close_timeout
            self._leaving = self.clock.callLater(wait, self.dropConnection, abort=True)
        return failed

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        self._leaving = None
        why = str(self.wasNotCleanReason or "closed before it was open")
        found = _STATUS_LINE.match(self.http_status_line)
        status = int(found[1]) if found else _SWITCHING_PROTOCOLS
        if status == _SWITCHING_PROTOCOLS:
            self.factory.failed(why)
        else:
            self.factory.refused(status, self.http_headers or {})
        super().onClose(wasClean, code, reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.state == self.STATE_CONNECTING and reason.value is not None:
            self.wasNotCleanReason = self.wasNotCleanReason or self._why(reason.value)
        super().connectionLost(reason)

    def _why(self, error: BaseException) -> str:
        """Why the connection ended before its WebSocket was open."""
        if not closed(error):
            return describe(error)
        silent = not self.data and not self.factory.isSecure
        return "closed before it was open" + (" (does the port expect wss://?)" if silent else "")


class _DialFactory(WebSocketClientFactory):
    """Makes one socket. `result` fires when it is open, or fails with PeerError.

    `at`: host, port, and whether TLS is wanted.
    """

    protocol = DialledProtocol  # type: ignore[assignment]  # Autobahn's factory is untyped
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        options: WebSocketOptions,
        link: BotLink,
        target: Target,
        origin: str,
        subprotocol: str,
    ) -> None:
        super().__init__(
            target.url,
            reactor=reactor,
            headers=target.headers,
            origin=origin or None,
            protocols=[subprotocol] if subprotocol else [],
            useragent=f"pipecat-bridge/{__version__}",
        )
        self.options = options
        self.redact = target.redact
        self.at: tuple[str, int, bool] = (self.host, self.port, self.isSecure)
        parts = urlsplit(target.url)
        # Autobahn leaves out what follows a ";".
        self.resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if ":" in self.host:
            self.host = f"[{self.host}]"  # for the Host header
        self._link: BotLink | None = link  # while somebody waits for `result`
        self.setProtocolOptions(**protocol_options(options))
        self.result: Deferred[None] = Deferred()

    def opened(self) -> BotLink | None:
        """Fire `result`, and return the socket's link; None if nobody waits for `result`."""
        link = self._link
        if link is not None:
            self.forget()
            self.result.callback(None)
        return link

    def forget(self) -> None:
        """Nobody waits for `result` any more. The factory is in a reference cycle with Twisted's
        connector, and would keep the link in memory."""
        self._link = None

    def failed(self, reason: str) -> None:
        """The handshake has failed. May be called more than once; the first call counts."""
        self._fail(PeerError(reason))

    def refused(self, status: int, headers: dict[str, str]) -> None:
        """The handshake was answered with an HTTP status other than 101.

        The peer's own words are not repeated: they may hold what it was sent.
        """
        reason = f"the opening handshake was answered with {_named(status)}"
        reason += redirect_to(headers.get("location", ""), self.redact)
        if status in BUSY_STATUSES:
            self._fail(PeerBusyError(reason, seconds_of(headers.get("retry-after", ""))))
        else:
            self._fail(PeerError(reason))

    def _fail(self, error: PeerError) -> None:
        if not self.result.called:
            self.result.errback(error)


def _named(status: int) -> str:
    return f"{status} {responses.get(status, '')}".rstrip()


class Dialler:
    """Dials the WebSockets of bots and attaches them to their links."""

    def __init__(
        self,
        reactor: IReactorTime,
        options: WebSocketOptions,
        connect: Connect,
        origin: str = "",
        subprotocol: str = "",
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._connect = connect
        self._origin = origin
        self._subprotocol = subprotocol

    async def dial(self, target: Target, link: BotLink) -> None:
        """Open the WebSocket at `target` for both directions. Raises PeerError.

        If this is cancelled, an unfinished connection is closed.
        """
        factory = _DialFactory(
            self._reactor, self._options, link, target, self._origin, self._subprotocol
        )
        endpoint = self._connect(*factory.at)
        protocol: Any = None
        try:
            protocol = await endpoint.connect(factory)
            await factory.result
        except BlameError:
            raise
        except Exception as error:
            if not given_up(error):
                raise PeerError(describe(error)) from error
            if protocol is not None:
                protocol.give_up()
            raise CancelledError from None
        finally:
            factory.forget()
