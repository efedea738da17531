"""Where runners dial back: Autobahn's server, one URL for each call and direction, used once."""

from __future__ import annotations

import hmac
import secrets
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITransport
from twisted.logger import Logger

from pipecat_bridge.options import WebSocketOptions
from pipecat_bridge.runner.link import BotLink, Direction
from pipecat_bridge.transport import EagerTransport, set_buffers
from pipecat_bridge.wire.websocket import PING, ClientFrames, pong, server_header

ROUNDED_DOWN: Final = 1.0
"""Seconds by which Autobahn's timeouts may come too early: it cuts them off at whole seconds of the
clock, so that one of 1 s would be anything from 0 to 1 s."""

_DIRECTIONS: Final[dict[str, Direction]] = {"input": "input", "output": "output", "": "both"}


class BotSocketProtocol(WebSocketServerProtocol):
    """One WebSocket of a bot's: a thin skin between Autobahn and the link."""

    factory: BotSocketFactory
    _link: BotLink | None = None
    _direction: Direction = "both"
    _keepalive: IDelayedCall | None = None
    _pinged_at: float | None = None  # the first ping since anything was heard
    _heard = False
    _paused = False
    _frames: ClientFrames | None = None  # once Autobahn stands between two frames

    def makeConnection(self, transport: ITransport) -> None:
        options = self.factory.options
        set_buffers(transport, options.read_buffer, options.write_buffer, options.unsent_limit)
        self._eager = EagerTransport(transport, self._drained)
        super().makeConnection(self._eager)

    def dataReceived(self, data: bytes) -> None:
        """Audio and pongs are taken here, past Autobahn; it gets all else, in whole frames."""
        if self._frames is None:
            if self.state != self.STATE_OPEN or not self._between_messages():
                super().dataReceived(data)
                return
            self._frames = ClientFrames(self.factory.longest_plain)
        for message, piece in self._frames.feed(data):
            gone = self.state == self.STATE_CLOSED or self.failedByMe
            if message and not gone:
                self.onMessage(piece, True)  # after our close too: last words
            elif not gone and (payload := pong(piece)) is not None:
                self.onPong(payload)
            elif not message:
                super().dataReceived(piece)

    def _between_messages(self) -> bool:
        begun: list[Any] = [self.current_frame, self.inside_message, self.data]
        return not any(begun)

    # From Autobahn

    def onConnect(self, request: ConnectionRequest) -> None:
        self._link, self._direction = self.factory.admit(request.path, request.params)

    def onOpen(self) -> None:
        assert self._link is not None
        self._keepalive = self.factory.reactor.callLater(
            self.factory.options.ping_interval, self._keep_alive
        )
        self._link.attach(self, self._direction)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._heard = True
        assert self._link is not None
        if isBinary:
            self._link.received(payload)
        else:
            self._link.fault(f"a text message of {len(payload)} bytes, expected binary")

    def onPong(self, payload: bytes) -> None:
        self._heard = True
        assert self._link is not None
        self._link.pong(self, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._keepalive is not None and self._keepalive.active():
            self._keepalive.cancel()
        self._keepalive = None
        waiting: Any = self.closeHandshakeTimeoutCall  # Autobahn leaves it when the peer is lost
        if waiting is not None:
            waiting.cancel()
            self.closeHandshakeTimeoutCall = None
        self._eager.forget()
        self.is_closed.addCallback(lambda _: None)  # its result is this protocol
        link, self._link = self._link, None
        if link is None:
            return
        if self.failedByMe:  # then code and reason are of the answer to our close
            text: Any = self.localCloseReason
            fault = text.decode("utf-8", "replace") if text else ""
            link.lost(self, False, f"it broke the protocol: {fault} ({self.localCloseCode})")
            return
        clean = wasClean and code in (None, 1000, 1001, 1005)
        link.lost(self, clean, f"its WebSocket closed: {reason or 'no reason given'} ({code})")

    def _drained(self) -> None:
        if self._link is not None:
            self._link.drained()

    def _keep_alive(self) -> None:
        """Ping; drop a peer that has said nothing for `ping_timeout` seconds after a ping."""
        options, now = self.factory.options, self.factory.reactor.seconds()
        if self._heard or self._paused or self._pinged_at is None:
            self._heard, self._pinged_at = False, now
        left = self._pinged_at + options.ping_timeout - now
        if left <= 0:
            self.wasNotCleanReason = f"no answer to a ping within {options.ping_timeout:g} s"
            self.dropConnection(abort=True)
            return
        delay = min(options.ping_interval, left)
        self._keepalive = self.factory.reactor.callLater(delay, self._keep_alive)
        assert self._link is not None
        self.sendPing(self._link.progress)

    # From the link

    @property
    def congested(self) -> bool:
        """True while bytes wait for the kernel to take them."""
        return self._eager.congested

    def send(self, payload: bytes) -> None:
        """Send one binary message; dropped when the closing handshake has begun."""
        if self.state == self.STATE_OPEN:
            self._eager.write(server_header(len(payload)) + payload)

    def ping(self, payload: bytes) -> None:
        """Send a ping, of at most 125 bytes; dropped as a message is."""
        if self.state == self.STATE_OPEN:
            self._eager.write(server_header(len(payload), PING) + payload)

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        self._eager.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self.state != self.STATE_CLOSED:
            self._eager.resumeProducing()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; Autobahn drops a peer that does not answer it."""
        self.sendClose(code, reason)


class _Expected:
    """A call that waits for its bot."""

    __slots__ = ("link", "token", "used")

    def __init__(self, link: BotLink, token: str) -> None:
        self.link = link
        self.token = token
        self.used: set[str] = set()

    def claim(self, direction: Direction) -> bool:
        """Take a direction; false when it was taken before."""
        wanted = {"input", "output"} if direction == "both" else {direction}
        if self.used & wanted:
            return False
        self.used |= wanted
        return True


class BotSocketFactory(WebSocketServerFactory):
    """Admits the bots of calls that wait for them, at `/{call id}/ws[/{token}][?direction=..]`.

    No compression is accepted (Autobahn's default): it would cost more than the audio itself.
    """

    protocol = BotSocketProtocol  # type: ignore[assignment]  # Autobahn's factory is untyped
    noisy = False
    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, options: WebSocketOptions, require_token: bool = False
    ) -> None:
        super().__init__(reactor=reactor)
        self.options = options
        self.longest_plain = min(options.max_frame, options.max_message)
        self._require_token = require_token
        self._expected: dict[str, _Expected] = {}
        self.refused = 0
        self.setProtocolOptions(
            maxFramePayloadSize=options.max_frame,
            maxMessagePayloadSize=options.max_message,
            openHandshakeTimeout=options.handshake_timeout + ROUNDED_DOWN,
            closeHandshakeTimeout=options.close_timeout + ROUNDED_DOWN,
            failByDrop=False,  # a bot that breaks the protocol is told how
            webStatus=False,
            tcpNoDelay=True,
        )

    def expect(self, link: BotLink) -> str:
        """Admit the sockets of one call from now on; its token."""
        token = secrets.token_urlsafe(16)
        self._expected[link.call_id] = _Expected(link, token)
        return token

    def forget(self, call_id: str) -> None:
        """Admit none of this call any more."""
        self._expected.pop(call_id, None)

    def admit(self, path: str, query: dict[str, list[str]]) -> tuple[BotLink, Direction]:
        """The call and direction of a URL; raises Autobahn's `ConnectionDeny`."""
        try:
            return self._admit(path, query)
        except ConnectionDeny as denied:
            self.refused += 1
            self._log.warn(
                "- WebSocket {path} refused: {code} {reason}",
                path=path,
                code=denied.code,
                reason=denied.reason,
            )
            raise

    def _admit(self, path: str, query: dict[str, list[str]]) -> tuple[BotLink, Direction]:
        parts = path.strip("/").split("/")
        if len(parts) not in (2, 3) or parts[1] != "ws":
            raise ConnectionDeny(404, "expected /{call id}/ws")
        direction = _DIRECTIONS.get(query.get("direction", [""])[0])
        if direction is None:
            raise ConnectionDeny(400, "direction must be input or output, or be left out")
        expected = self._expected.get(parts[0].lower())
        if expected is None:
            raise ConnectionDeny(404, "no call with this id waits for a bot")
        token = parts[2] if len(parts) == 3 else query.get("token", [""])[0]
        self._check_token(token, expected)
        if not expected.claim(direction):
            raise ConnectionDeny(409, "this direction of the call is connected already")
        return expected.link, direction

    def _check_token(self, token: str, expected: _Expected) -> None:
        if token and not hmac.compare_digest(token.encode(), expected.token.encode()):
            raise ConnectionDeny(403, "wrong token")
        if not token and self._require_token:
            raise ConnectionDeny(403, "token missing: dial ws_url as it was given to /run")
