"""A dial-back runner on HTTP: `/run`, `/stop`, `/health`, and every way in which they go wrong."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IDelayedCall, IPullProducer
from twisted.protocols.policies import WrappingFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from tests.doubles.bot import BotDouble
from tests.doubles.watch import Watched

Answer = Literal[
    "ok",
    "slow",  # ok, after `slow` seconds
    "401",
    "500",
    "503",
    "429",
    "error",  # 200, but the status in the body is not ok
    "bad-json",
    "deep-json",
    "long-json",
    "endless",  # headers, a bit of body, and never the rest
    "flood",  # headers, and a body that goes on and on
    "hang",  # no headers ever
    "drop",  # the connection is closed without an answer
    "redirect",
]


class Received(NamedTuple):
    """One request; `body` is the parsed JSON, None when there is none."""

    method: str
    path: str
    args: dict[str, str]
    headers: dict[str, str]
    body: Any


class RunnerDouble(Resource, Watched):
    """The resource; `listen` puts it on a real port.

    `answers` are given to `/run` one after the other, the last of them for ever. After `ok` and
    `slow` a bot dials back: `sockets` "both" (one each way) or None (one), after `dial_delay`
    seconds, or never with None; `dial_first`: before `/run` is answered. Further options are
    BotDouble's. `/stop` knows the calls that run, and answers 404 for others; it takes `stop_after`
    seconds, and ends whatever bot the call has then. Each answer sets a cookie.

    `tls`: Twisted's CertificateOptions.

    `retry_after`: seconds that it asks for when it answers 503 or 429.

    `requests` are all that came, `connections` the number of TCP connections, `bots` by call id.
    `mode` is the bridge's.
    """

    isLeaf = True
    mode = "dialback"

    def __init__(
        self,
        reactor: Any,
        *,
        answers: Iterable[Answer] = ("ok",),
        sockets: Literal["both"] | None = "both",
        dial_delay: float | None = 0.0,
        dial_first: bool = False,
        slow: float = 1.0,
        retry_after: int | None = None,
        stop_status: int | None = None,
        stop_after: float = 0.0,
        health_status: int = 200,
        tls: Any = None,
        **bot_options: Any,
    ) -> None:
        super().__init__()
        self.clock = reactor
        self.answers = deque(answers)
        if unknown := set(self.answers) - set(get_args(Answer)):
            raise ValueError(f"unknown answers {unknown}, expected some of {get_args(Answer)}")
        self.sockets: Literal["both"] | None = sockets
        self.dial_delay = dial_delay
        self.dial_first = dial_first
        self.slow = slow
        self.retry_after = retry_after
        self.stop_status = stop_status
        self.stop_after = stop_after
        self.health_status = health_status
        self.tls = tls
        self.bot_options = bot_options
        self.requests: list[Received] = []
        self.connections = 0
        self.bots: dict[str, BotDouble] = {}
        self.faults: list[str] = []
        self.dial_failures: list[Exception] = []
        self.url = ""
        self._running: set[str] = set()
        self._dials: list[IDelayedCall] = []
        self._open: _Connections | None = None
        self._port: Any = None

    async def listen(self, interface: str = "127.0.0.1") -> str:
        """Listen on a free port; the answer is the URL, also in `url`."""
        self._open = _Connections(self, Site(self, reactor=self.clock))
        endpoint: Any = TCP4ServerEndpoint(self.clock, 0, interface=interface)
        if self.tls is not None:
            endpoint = SSL4ServerEndpoint(self.clock, 0, self.tls, interface=interface)
        self._port = await endpoint.listen(self._open)
        scheme = "http" if self.tls is None else "https"
        self.url = f"{scheme}://{interface}:{self._port.getHost().port}"
        return self.url

    async def shut(self) -> None:
        """Stop listening, kill the bots, and cut all connections, hanging ones too."""
        for timer in self._dials:
            if timer.active():
                timer.cancel()
        for bot in self.bots.values():
            bot.die()
        for bot in self.bots.values():
            await bot.until(lambda bot=bot: not bot.sockets)  # type: ignore[misc]
        if self._open is not None:
            await self._port.stopListening()
            for connection in list(self._open.protocols):
                connection.transport.abortConnection()
            await self.until(lambda: not self.open_connections)
            self._open = None

    @property
    def open_connections(self) -> int:
        """TCP connections that are open now."""
        return 0 if self._open is None else len(self._open.protocols)

    def close_connections(self) -> None:
        """Close them all, as a server does with those that were idle for too long."""
        assert self._open is not None
        for connection in list(self._open.protocols):
            connection.transport.loseConnection()

    def asked(self, path: str) -> list[Received]:
        """The requests for `path`, e.g. "/run"."""
        return [request for request in self.requests if request.path == path]

    def render(self, request: Request) -> bytes | int:
        received = _received(request)
        self.requests.append(received)
        request.setHeader("set-cookie", "backend=7")  # as a balancer that wants to be sticky
        route = self._routes().get((received.method, received.path))
        answer = route(request, received) if route else reply(request, 404, "not found")
        self.changed()
        return answer

    def _routes(self) -> dict[tuple[str, str], Any]:
        return {
            ("POST", "/run"): self._run,
            ("POST", "/stop"): self._stop,
            ("GET", "/health"): self._health,
        }

    def _run(self, request: Request, received: Received) -> bytes | int:
        if not isinstance(received.body, dict) or not {"id", "ws_url"} <= received.body.keys():
            self.faults.append(f"/run without id or ws_url: {received.body!r}")
            return reply(request, 400, "id and ws_url are needed")
        return self._answer(request, received)

    def _answer(self, request: Request, received: Received) -> bytes | int:
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if answer == "ok":
            return self._start(request, received.body)
        if answer == "slow":
            timer = self.clock.callLater(self.slow, self._start, request, received.body)
            request.notifyFinish().addErrback(lambda _: timer.active() and timer.cancel())
            return NOT_DONE_YET
        if answer in ("hang", "drop", "endless", "flood"):
            return self._break(request, answer)
        if answer in ("503", "429") and self.retry_after is not None:
            request.setHeader(b"retry-after", str(self.retry_after).encode())
        return _refuse(request, answer)

    def _break(self, request: Request, answer: Answer) -> int:
        request.notifyFinish().addErrback(lambda _: None)
        if answer == "drop":
            request.channel.loseConnection()
        elif answer == "endless":
            request.setHeader(b"content-type", b"application/json")
            request.write(b'{"status":')
        elif answer == "flood":
            request.registerProducer(_Flood(request), False)
        return NOT_DONE_YET

    def _start(self, request: Request, body: dict[str, Any]) -> int:
        call_id = body["id"]
        self._running.add(call_id)
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(_: object) -> None:
            if not gone:
                request.write(reply(request, 200, "ok", id=call_id))
                request.finish()

        if self.dial_first:
            self._dial(call_id, body["ws_url"]).addBoth(answer)
        else:
            answer(None)
            if self.dial_delay is not None:
                dial = (self._dial, call_id, body["ws_url"])
                self._dials.append(self.clock.callLater(self.dial_delay, *dial))
        return NOT_DONE_YET

    def _dial(self, call_id: str, ws_url: str) -> Deferred[None]:
        bot = self.bots[call_id] = BotDouble(self.clock, **self.bot_options)
        dialled = ensureDeferred(bot.dial(ws_url, self.sockets))
        # Without its traceback: that would keep whatever ran in the same turn of the reactor.
        dialled.addErrback(
            lambda failure: self.dial_failures.append(failure.value.with_traceback(None))
        )
        return dialled.addBoth(lambda _: self.changed())

    def _stop(self, request: Request, received: Received) -> bytes | int:
        call_id = received.args.get("id", "")
        if not self.stop_after:
            return self._stopped(request, call_id)

        def stopped() -> None:
            request.write(self._stopped(request, call_id))
            request.finish()

        timer = self.clock.callLater(self.stop_after, stopped)
        request.notifyFinish().addErrback(lambda _: timer.active() and timer.cancel())
        return NOT_DONE_YET

    def _stopped(self, request: Request, call_id: str) -> bytes:
        known = call_id in self._running
        self._running.discard(call_id)
        if known and call_id in self.bots:
            self.bots[call_id].close()
        status = self.stop_status or (200 if known else 404)
        return reply(request, status, "ok" if status == 200 else "not found")

    def _health(self, request: Request, _: Received) -> bytes:
        return reply(request, self.health_status, "ok" if self.health_status == 200 else "down")


@implementer(IPullProducer)
class _Flood:
    """Sends as much as is taken."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def resumeProducing(self) -> None:
        self._request.write(bytes(65536))

    def stopProducing(self) -> None:
        """Nothing: the connection is lost."""


class _Connections(WrappingFactory):
    """Counts the connections, and knows the open ones."""

    def __init__(self, runner: RunnerDouble, site: Site) -> None:
        super().__init__(site)
        self._runner = runner

    def buildProtocol(self, addr: Any) -> Any:
        self._runner.connections += 1
        return super().buildProtocol(addr)

    def unregisterProtocol(self, p: Any) -> None:
        super().unregisterProtocol(p)
        self._runner.changed()


def _received(request: Request) -> Received:
    raw = request.content.read()
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = raw
    return Received(
        request.method.decode(),
        request.path.decode(),
        {name.decode(): values[0].decode() for name, values in request.args.items()},
        {
            name.decode().lower(): values[0].decode()
            for name, values in request.requestHeaders.getAllRawHeaders()
        },
        body,
    )


def reply(request: Request, code: int, status: str, **more: Any) -> bytes:
    """A JSON answer."""
    request.setResponseCode(code)
    request.setHeader(b"content-type", b"application/json")
    return json.dumps({"status": status, **more}).encode()


def _refuse(request: Request, answer: Answer) -> bytes:
    if answer == "redirect":
        request.setHeader(b"location", b"/elsewhere")
        return reply(request, 307, "moved")
    if answer == "bad-json":
        return reply(request, 200, "ok")[:-1]
    if answer == "deep-json":
        return b"[" * 50_000
    if answer == "long-json":
        return json.dumps({"status": "ok", "token": [str(n) for n in range(100_000)]}).encode()
    if answer == "error":
        return reply(request, 200, "error", error="no worker is free")
    return reply(request, int(answer), "error", error="told to fail")
