"""The WebSocket server for bots that dial back: one URL for each call and direction, used once."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.errors import brief
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.rate_limit import BoundedLog
from pipecat_bridge.net.redaction import HIDDEN, Redaction
from pipecat_bridge.net.urls import MAX_SHOWN, may_be_rebound
from pipecat_bridge.options import WebSocketOptions
from pipecat_bridge.runner.link.interfaces import Direction
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.socket.protocol import BotSocketProtocol
from pipecat_bridge.runner.socket.settings import protocol_options
from pipecat_bridge.wire.websocket import server_frame

_NO_SECRETS: Final = Redaction()
_DIRECTIONS: Final[dict[str, Direction]] = {"input": "input", "output": "output", "": "both"}
_WAYS: Final[dict[Direction, set[str]]] = {
    "input": {"input"},
    "output": {"output"},
    "both": {"input", "output"},
}


class DialbackProtocol(BotSocketProtocol, WebSocketServerProtocol):  # type: ignore[misc]
    """A WebSocket that a runner dialled."""

    factory: DialbackServer
    peer_masks = True
    handshake = "a request"
    frame = staticmethod(server_frame)
    http_request_path: Any = ""  # "" until the request is read
    _place: _Expected | None = None  # the claimed place, until the handshake is done

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.unopened.wait(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.unopened.leave(self)
        super().connectionLost(reason)

    def failHandshake(
        self, reason: str, code: int = 400, responseHeaders: Sequence[tuple[str, str]] | None = None
    ) -> None:
        """Refuse the request. Autobahn's own method would log and send the reason as it is, and it
        may have the whole request line in it."""
        reason = brief(reason)
        self.wasNotCleanReason = reason
        self.factory.tell_refused(self.http_request_path, code, reason)
        self.sendHttpErrorResponse(code, reason, responseHeaders)
        self._drop(abort=False)

    def onOpenHandshakeTimeout(self) -> None:
        """Close a socket whose request has not come, or not whole."""
        self.openHandshakeTimeoutCall = None
        if self.state == self.STATE_CONNECTING:
            self.wasNotCleanReason = f"no request within {self.settings.handshake_timeout:g} s"
            self.factory.tell_refused("", 408, self.wasNotCleanReason)
            self._drop(abort=True)

    def _drop(self, abort: bool) -> None:
        self.wasClean = True  # while Autobahn decides whether to log this as well
        self.dropConnection(abort=abort)
        self.wasClean = False

    def onConnect(self, request: ConnectionRequest) -> None:
        if request.origin and not self._is_own_page(request.origin, request.headers.get("host")):
            raise ConnectionDeny(403, "a page of another site may not be a bot here")
        self._place, self._direction = self.factory.admit(request.path, request.params)

    def _is_own_page(self, origin: str, host: str | None) -> bool:
        """Whether `origin` is ours. Browsers always send one, and some libraries of bots do."""
        try:
            parts = urlsplit(origin)
            name = parts.hostname or ""
        except ValueError:
            return False
        return parts.netloc == host and not (may_be_rebound(name) and name != self.factory.own_name)

    def onOpen(self) -> None:
        self.factory.unopened.leave(self)
        place, self._place = self._place, None
        if place is not None:
            self._link = place.link
        super().onOpen()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        place, self._place = self._place, None
        if place is not None:  # the handshake failed, so the bot may try again
            place.release(self._direction)
        super().onClose(wasClean, code, reason)


def _drop(connection: DialbackProtocol) -> None:
    connection.dropConnection(abort=True)


class _Expected:
    """A call that waits for its bot."""

    __slots__ = ("link", "token", "used")

    def __init__(self, link: BotLink, token: str) -> None:
        self.link = link
        self.token = token
        self.used: set[str] = set()

    def claim(self, direction: Direction) -> bool:
        """Take a direction; False if it is taken already."""
        if self.used & _WAYS[direction]:
            return False
        self.used |= _WAYS[direction]
        return True

    def release(self, direction: Direction) -> None:
        """Give a direction back."""
        self.used -= _WAYS[direction]


_TOLD = re.compile(r"[A-Za-z0-9_.-]{0,7}|[0-9A-Fa-f-]{36}")
"""Parts of a path that may be logged: short words, and ids of calls. A token is neither."""


def _shown(path: str) -> str:
    """A path as it may be logged: without tokens."""
    words = [each if _TOLD.fullmatch(each) else HIDDEN for each in path.strip("/").split("/")]
    return f"/{'/'.join(words)}"[:MAX_SHOWN]


class DialbackServer(WebSocketServerFactory):
    """Admits bots at `/{call id}/ws[/{token}][?direction=..]`, if the call waits for its bot.

    `unopened` has the connections whose opening handshake is not done. `own_name`: the host of
    `[runner] dialback_url`.
    """

    protocol = DialbackProtocol  # type: ignore[assignment]  # Autobahn's factory is untyped
    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        options: WebSocketOptions,
        require_token: bool = False,
        redact: Redaction = _NO_SECRETS,
        own_name: str = "",
    ) -> None:
        super().__init__(reactor=reactor)
        self.own_name = own_name
        self.options = options
        self.redact = redact
        self._require_token = require_token
        self._refusals = BoundedLog(self._log, reactor.seconds)
        self._expected: dict[str, _Expected] = {}
        self.unopened: ConnectionLimit[DialbackProtocol] = ConnectionLimit(reactor, "bot", _drop)
        self.refused = 0
        self.setProtocolOptions(webStatus=False, **protocol_options(options))

    def expect(self, link: BotLink) -> str:
        """Admit the sockets of one link from now on; returns the token for its URL."""
        token = secrets.token_urlsafe(16)
        self._expected[link.call_id] = _Expected(link, token)
        return token

    def forget(self, link: BotLink) -> None:
        """Stop admitting sockets for this link."""
        expected = self._expected.get(link.call_id)
        if expected is not None and expected.link is link:
            del self._expected[link.call_id]

    def tell_refused(self, path: str, code: int, reason: str) -> None:
        """Count and log a socket that is refused."""
        self.refused += 1
        self._refusals.warn(
            "- WebSocket {path} refused: {code} {reason}",
            path=_shown(path),
            code=code,
            reason=reason,
        )

    def admit(self, path: str, query: dict[str, list[str]]) -> tuple[_Expected, Direction]:
        """The waiting call and the direction of a URL. Raises Autobahn's `ConnectionDeny`."""
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
        return expected, direction

    def _check_token(self, token: str, expected: _Expected) -> None:
        if token and not hmac.compare_digest(token.encode(), expected.token.encode()):
            raise ConnectionDeny(403, "wrong token")
        if not token and self._require_token:
            raise ConnectionDeny(403, "token missing: dial ws_url as it was given to /run")
