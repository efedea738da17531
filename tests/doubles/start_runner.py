"""Runners whose bots are dialled: `/start` and the bots' WebSockets, on one port as Pipecat's."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal, get_args

from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET, Site

from tests.doubles.bot import BotDouble
from tests.doubles.bot_socket import ServedBotSocket, WebSocketBot
from tests.doubles.fork import Forks, Handshake, Knock, OddAnswer
from tests.doubles.runner import Received, RunnerDouble, reply
from tests.doubles.twilio_bot import TwilioBot

Place = Literal["header", "query", "path"]


class StartRunner(RunnerDouble):
    """A runner for the modes `dial`, `direct` and `twilio`. `url` is what the bridge is given.

    In mode `dial`, and `twilio` with `starts`, it is of HTTP: `/start` is answered as by `answers`
    (RunnerDouble's), with a new token and `ws_url`, in which `{host}` and `{port}` are the runner's
    own; None leaves it out. Else it is the URL of the bot's WebSocket.

    `handshakes` are given one after the other, the last for ever. After "ok" there is a fresh bot
    for each connection: TwilioBot in mode `twilio`, else BotDouble. `token_in` is the one place
    where a token must be, once for each; wrong or missing ones are answered with 403, or where
    `refuses_late` accepted and closed with 4003. None: none is looked for. Tokens are in `tokens`,
    and further ones may be put there. `origin`: the only one that is let in. `subprotocol`: the one
    that it speaks, without which nobody is let in; `ignores_subprotocol`: it answers none.
    `host`: what it is called in its URLs, else by its address.
    `start_path`: where `/start` is.

    `knocks` are all handshakes, `sessions` all bots, `bots` those that know their call, by its id.
    `connections` counts those for HTTP, `open_connections` all.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        mode: Literal["dial", "direct", "twilio"] = "dial",
        starts: bool | None = None,
        handshakes: Iterable[Handshake] = ("ok",),
        ws_url: str | None = "",
        token_in: Place | None = None,
        refuses_late: bool = False,
        origin: str | None = None,
        subprotocol: str = "",
        ignores_subprotocol: bool = False,
        host: str = "",
        start_path: str = "/start",
        **options: Any,
    ) -> None:
        super().__init__(reactor, **options)
        self.mode = mode
        self.starts = mode == "dial" if starts is None else starts
        self.handshakes = deque(handshakes)
        if unknown := set(self.handshakes) - set(get_args(Handshake)):
            raise ValueError(f"unknown handshakes {unknown}")
        self.path = "/ws" if mode == "twilio" else "/ws-client"
        secure = "s" if self.tls is not None else ""
        self.ws_url = f"ws{secure}://{{host}}:{{port}}{self.path}" if ws_url == "" else ws_url
        self.token_in: Place | None = token_in
        self.refuses_late = refuses_late
        self.origin = origin
        self.subprotocol = subprotocol
        self.ignores_subprotocol = ignores_subprotocol
        self.start_path = start_path
        self.tokens: list[str] = []
        self.knocks: list[Knock] = []
        self.sessions: list[Any] = []
        self._host, self._port_number = host, 0
        self._site = Site(self, reactor=reactor)
        self._forks = Forks(
            self._http,
            self._take,
            lambda: self.handshakes[0] == "hang",
            self.changed,
        )
        self._sockets = _SocketFactory(self)

    async def listen(self, interface: str = "127.0.0.1") -> str:
        """Listen on a free port; the answer is the URL, also in `url`."""
        endpoint: Any = TCP4ServerEndpoint(self.clock, 0, interface=interface)
        if self.tls is not None:
            endpoint = SSL4ServerEndpoint(self.clock, 0, self.tls, interface=interface)
        self._port = await endpoint.listen(self._forks)
        self._host = self._host or interface
        self._port_number = self._port.getHost().port
        scheme = ("http" if self.starts else "ws") + ("s" if self.tls is not None else "")
        path = "" if self.starts else self.path
        self.url = f"{scheme}://{self._host}:{self._port_number}{path}"
        return self.url

    async def shut(self) -> None:
        """Stop listening, kill the bots, and cut all connections, hanging ones too."""
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        for fork in list(self._forks.open):
            fork.transport.abortConnection()
        await self.until(lambda: not self._forks.open)

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now."""
        return len(self._forks.open)

    def _routes(self) -> dict[tuple[str, str], Any]:
        return {
            ("POST", self.start_path): self._asked,
            ("GET", "/status"): self._health,
            ("GET", "/health"): self._health,
        }

    def _asked(self, request: Request, received: Received) -> bytes | int:
        if not isinstance(received.body, dict) or "transport" not in received.body:
            self.faults.append(f"{self.start_path} without a transport: {received.body!r}")
            return reply(request, 400, "transport is needed")
        return self._answer(request, received)

    def new_token(self) -> str:
        """A token that was not given before."""
        return f"token-{len(self.requests)}-{id(self):x}"

    def _start(self, request: Request, body: dict[str, Any]) -> int:
        token = self.new_token()
        self.tokens.append(token)
        answer = {"sessionId": f"session-{len(self.tokens)}", "token": token}
        if self.ws_url is not None:
            answer["wsUrl"] = self.ws_url.format(host=self._host, port=self._port_number)
        request.setHeader(b"content-type", b"application/json")
        request.write(json.dumps(answer).encode())
        request.finish()
        return NOT_DONE_YET

    # The WebSockets

    def fresh_bot(self) -> WebSocketBot:
        """A bot for one connection."""
        kind = TwilioBot if self.mode == "twilio" else BotDouble
        return kind(self.clock, **self.bot_options)

    def admit(self, knock: Knock) -> str | None:
        """Take a connection, and name the subprotocol; raises Autobahn's ConnectionDeny."""
        if self.origin is not None and knock.origin != self.origin:
            raise ConnectionDeny(403, "Forbidden")
        if self.token_in is not None and not self.refuses_late and not self.use_token(knock):
            raise ConnectionDeny(403, "Forbidden")
        if self.subprotocol and self.subprotocol not in knock.protocols:
            raise ConnectionDeny(400, f"expected the subprotocol {self.subprotocol}")
        return None if self.ignores_subprotocol else self.subprotocol or None

    def use_token(self, knock: Knock) -> bool:
        """Whether the token is where it should be, and unused until now."""
        found = {
            "header": knock.headers.get("authorization", "").removeprefix("Bearer "),
            "query": knock.args.get("token", [""])[0],
            "path": knock.path.removeprefix(self.path).removeprefix("/"),
        }
        token = found.pop(str(self.token_in))
        if token not in self.tokens or any(other in self.tokens for other in found.values()):
            return False
        self.tokens.remove(token)
        return True

    def opened(self, bot: Any) -> None:
        """A bot's WebSocket is open."""
        self.sessions.append(bot)
        bot.until(lambda: bot.call_id).addCallbacks(lambda _: self._known(bot), lambda _: None)
        self.changed()

    def _known(self, bot: Any) -> None:
        self.bots[bot.call_id] = bot
        self.changed()

    def _http(self) -> Any:
        self.connections += 1
        return self._site.buildProtocol(None)

    def _take(self, knock: Knock) -> Any:
        """The protocol for an opening handshake."""
        self.knocks.append(knock)
        how = self.handshakes.popleft() if len(self.handshakes) > 1 else self.handshakes[0]
        self.changed()
        if how in ("ok", "accept-4003"):
            return self._sockets.socket(knock, 4003 if how == "accept-4003" else 0)
        return OddAnswer(how, knock)


class _Socket(ServedBotSocket):
    """A WebSocket that may be refused."""

    def __init__(self, runner: StartRunner, knock: Knock, close_code: int) -> None:
        super().__init__(runner.fresh_bot())
        self._runner = runner
        self._knock = knock
        self._close_code = close_code

    def onConnect(self, request: ConnectionRequest) -> str | None:
        return self._runner.admit(self._knock)

    def onOpen(self) -> None:
        runner = self._runner
        if runner.token_in and runner.refuses_late and not runner.use_token(self._knock):
            self._close_code = 4003
        if self._close_code:
            self.opened.callback(self)
            self.sendClose(self._close_code, "not you")
            return
        super().onOpen()
        runner.opened(self.bot)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.opened.addErrback(lambda _: None)
        super().onClose(wasClean, code, reason)


class _SocketFactory(WebSocketServerFactory):
    """Autobahn's options and no more."""

    def __init__(self, runner: StartRunner) -> None:
        super().__init__(reactor=runner.clock)
        self._runner = runner
        # Autobahn's timers would run on the global reactor; the double needs none of them.
        self.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, webStatus=False, maxConnections=0
        )

    def socket(self, knock: Knock, close_code: int) -> _Socket:
        """For one handshake; closed at once with `close_code`, unless that is 0."""
        socket = _Socket(self._runner, knock, close_code)
        socket.factory = self
        return socket
