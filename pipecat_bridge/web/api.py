"""The HTTP API: shows calls as JSON, and controls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import State
from pipecat_bridge.call.preparations import NoRoomError
from pipecat_bridge.call.record import listed, record
from pipecat_bridge.call.registry import (
    CallIdError,
    CallRunningError,
    Calls,
    UnknownCallError,
)
from pipecat_bridge.errors import brief
from pipecat_bridge.net.descriptors import NONE_LEFT, Descriptors
from pipecat_bridge.net.rate_limit import BoundedLog
from pipecat_bridge.web.channel import LimitedSite
from pipecat_bridge.web.headers import header
from pipecat_bridge.web.metrics import encoder
from pipecat_bridge.web.origin import fault_of
from pipecat_bridge.web.preparation import read_preparation
from pipecat_bridge.web.problem import ProblemError

OUTCOME = ("id", "state", "outcome", "reason", "transfer", "variables")
"""The members of a record that the dialplan needs. A variable in Asterisk holds 4095 bytes."""

Reply = tuple[int, Any]
Handler = Callable[[Request], Reply | Deferred[Reply]]


class TextBody(Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/calls/{id}/messages`."""

    text: str
    run_immediately: bool = True
    audio_response: bool = True


class JSONResource(Resource):
    """Answers requests with JSON. `handlers` maps a method to its handler."""

    isLeaf = True
    _faults = BoundedLog(Logger(), monotonic)  # of all resources: a client can cause any number

    def __init__(self, **handlers: Handler) -> None:
        super().__init__()
        self._handlers = handlers

    def render(self, request: Request) -> bytes | int:
        method = (request.method or b"").decode("ascii", "replace")
        handler = self._handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = ", ".join(sorted(self._handlers))
            request.setHeader("allow", allowed)
            return write(request, 405, {"error": f"{method} is not allowed here: use {allowed}"})
        try:
            answer = handler(request)
        except Exception:  # noqa: BLE001 - the client gets JSON whatever goes wrong
            answer = self._failed(Failure())
        if isinstance(answer, tuple):
            body = write(request, *answer)
            if method != "HEAD":
                return body
            # If a body were returned, Twisted would log a warning.
            request.setHeader("content-length", str(len(body)))
            return b""
        answer.addErrback(self._failed).addCallback(_finish, request, request.notifyFinish())
        return NOT_DONE_YET

    def _failed(self, failure: Failure) -> Reply:
        if isinstance(failure.value, ProblemError):
            return failure.value.status, {"error": str(failure.value)}
        self._faults.failure("a request failed", failure)
        return 500, {"error": "this should not happen: the daemon's log tells more"}


def write(request: Request, status: int, answer: Any) -> bytes:
    """Set status and content type; return the body. `answer` becomes JSON; bytes stay as is."""
    request.setResponseCode(status)
    if isinstance(answer, bytes):
        return answer
    request.setHeader("content-type", "application/json")
    return bytes(msgspec.json.encode(answer)) + b"\n"


def _finish(answer: Reply, request: Request, finished: Deferred[None]) -> None:
    gone: list[Failure] = []
    finished.addErrback(gone.append)
    if not gone:
        request.write(write(request, *answer))
        request.finish()


class NotFound(Resource):
    """A node of the tree of paths. Its children are found; any other path is 404."""

    def __init__(self, leaf: bool = False) -> None:
        super().__init__()
        self.isLeaf = leaf

    def getChild(self, path: bytes, request: Request) -> Resource:
        return NotFound(leaf=True)  # the path may have thousands of further parts

    def render(self, request: Request) -> bytes:
        text = "nothing is here: see /v1/calls, /healthz, /readyz and /metrics"
        return write(request, 404, {"error": text})


class Refused(Resource):
    """Answers any request with 403."""

    isLeaf = True

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def render(self, request: Request) -> bytes:
        return write(request, 403, {"error": self._fault})


class CallsResource(Resource):
    """`/v1/calls` and the paths below it."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self._calls = calls

    def getChild(self, path: bytes, request: Request) -> Resource:
        call_id = path.decode("ascii", "replace")
        rest = [part for part in request.postpath or [] if part]
        request.postpath = []
        if not call_id:
            return JSONResource(GET=self._list)
        if not rest:
            return JSONResource(
                GET=lambda request: self._show(call_id),
                PUT=lambda request: self._prepare(call_id, request),
                POST=lambda request: self._prepare(call_id, request),
            )
        if rest == [b"outcome"]:
            return JSONResource(GET=lambda request: self._outcome(call_id))
        if rest == [b"transfer"]:
            return JSONResource(GET=lambda request: self._transfer(call_id, request))
        if rest[0] == b"variables" and len(rest) <= 2:
            name = b"".join(rest[1:]).decode("ascii", "replace")
            return JSONResource(GET=lambda request: self._variable(call_id, name, request))
        if rest == [b"stop"]:
            return JSONResource(POST=lambda request: self._stop(call_id))
        if rest == [b"messages"]:
            return JSONResource(POST=lambda request: self._message(call_id, request))
        return NotFound()

    def render(self, request: Request) -> bytes | int:
        return JSONResource(GET=self._list).render(request)

    def _list(self, request: Request) -> Reply:
        running = [listed(call) for call in self._calls.running]
        return 200, {"running": running, "ended": self._calls.ended}

    def _show(self, call_id: str) -> Reply:
        prepared = self._calls.prepared(call_id)
        if prepared is not None:
            metadata = prepared.metadata
            return 200, {"id": prepared.call_id, "state": "prepared", "metadata": metadata}
        try:
            return 200, self._calls.record(call_id)
        except UnknownCallError:
            text = f"no call {brief(call_id)} runs, is prepared, or has ended lately: see /v1/calls"
            raise ProblemError(404, text) from None

    def _outcome(self, call_id: str) -> Reply:
        """The few members of the record that the dialplan needs."""
        status, shown = self._show(call_id)
        return status, {key: shown.get(key) for key in OUTCOME}

    def _transfer(self, call_id: str, request: Request) -> Reply:
        return self._value(request, call_id, lambda shown: shown["transfer"])

    def _variable(self, call_id: str, name: str, request: Request) -> Reply:
        return self._value(request, call_id, lambda shown: shown["variables"].get(name))

    def _value(
        self, request: Request, call_id: str, read: Callable[[dict[str, Any]], str | None]
    ) -> Reply:
        """One value as plain text, for the dialplan.

        CURL() in Asterisk returns the body and not the status. Without a value, or without such a
        call, the body is therefore empty: the dialplan would use an error text as the value.
        """
        request.setHeader("content-type", "text/plain; charset=utf-8")
        try:
            value = read(self._calls.record(call_id))
        except UnknownCallError:
            value = None
        return (404, b"") if value is None else (200, value.encode())

    def _prepare(self, call_id: str, request: Request) -> Reply:
        preparation = read_preparation(_body(request))
        try:
            ttl = self._calls.prepare(call_id, *preparation)
        except NoRoomError as error:
            raise ProblemError(503, str(error)) from None
        except CallRunningError as error:
            raise ProblemError(409, str(error)) from None
        except CallIdError as error:
            raise ProblemError(400, str(error)) from None
        return 201, {"id": call_id.lower(), "state": "prepared", "expires_in": ttl}

    def _running(self, call_id: str) -> Call:
        try:
            return self._calls.get(call_id)
        except UnknownCallError:
            text = f"no call {brief(call_id)} is running: see /v1/calls"
            raise ProblemError(404, text) from None

    def _stop(self, call_id: str) -> Reply:
        call = self._running(call_id)
        call.stop(reason="stopped over the API")
        return 200, record(call)

    def _message(self, call_id: str, request: Request) -> Reply:
        try:
            message = msgspec.json.decode(_body(request), type=TextBody)
        except (ValueError, RecursionError) as error:
            raise ProblemError(
                400, f'expected {{"text": "...", "run_immediately": true, ...}}: {error}'
            ) from None
        call = self._running(call_id)
        if call.state is State.FINISHING:
            raise ProblemError(409, f"the bot of call {call_id} has ended")
        fate = call.bot.send_text(message.text, message.run_immediately, message.audio_response)
        if fate == "no-texts":
            raise ProblemError(
                409, f"the bot of call {call_id} takes no text: Twilio's protocol cannot carry it"
            )
        if fate == "full":
            text = f"the bot of call {call_id} does not read, and too much waits for it already"
            raise ProblemError(503, text)
        return 202, {"id": call.call_id, "sent": True}


def _body(request: Request) -> bytes:
    if request.content is None:
        return b""
    body: bytes = request.content.read()
    return body


def readiness(
    calls: Calls, reachable: Callable[[], Deferred[bool]], descriptors: Descriptors
) -> JSONResource:
    """`/readyz`: 200 if a call that comes now would get a bot, else 503 and the reasons."""

    def answer(reached: bool) -> Reply:
        checks = {
            "the runner does not answer": not reached,
            NONE_LEFT: descriptors.none_left,
            "the limit of [calls] max_calls is reached": calls.full,
            "the daemon is being stopped": calls.draining,
        }
        reasons = [reason for reason, true in checks.items() if true]
        return 503 if reasons else 200, {"ready": not reasons, "reasons": reasons}

    return JSONResource(GET=lambda request: reachable().addCallback(answer))


def metrics_page(metrics: CollectorRegistry) -> JSONResource:
    """`/metrics`. It runs in the reactor's thread: a call must not end while it is counted."""

    def page(request: Request) -> Reply:
        encode, content_type = encoder(header(request, "accept") or "")
        request.setHeader("content-type", content_type)
        return 200, encode(metrics)

    return JSONResource(GET=page)


class ApiSite(LimitedSite):
    """The site of the API. Requests are not logged; what they do to a call is logged there.

    `hosts`: names of this API, as `fault_of` takes them.
    """

    def __init__(self, reactor: IReactorTime, root: Resource, hosts: Iterable[str] = ()) -> None:
        super().__init__(reactor, root)
        self._hosts = frozenset(host.lower() for host in hosts)

    def getResourceFor(self, request: Request) -> Resource:
        fault = fault_of(request, self._hosts)
        if fault:
            return Refused(fault)
        resource: Resource = super().getResourceFor(request)
        return resource


def api_site(
    reactor: IReactorTime,
    calls: Calls,
    reachable: Callable[[], Deferred[bool]],
    descriptors: Descriptors,
    metrics: CollectorRegistry,
    hosts: Iterable[str] = (),
) -> ApiSite:
    """The site that serves the API, `/healthz`, `/readyz` and `/metrics`."""
    root, v1 = NotFound(), NotFound()
    root.putChild(b"healthz", JSONResource(GET=lambda request: (200, {"status": "ok"})))
    root.putChild(b"readyz", readiness(calls, reachable, descriptors))
    root.putChild(b"metrics", metrics_page(metrics))
    root.putChild(b"v1", v1)
    v1.putChild(b"calls", CallsResource(calls))
    return ApiSite(reactor, root, hosts)
