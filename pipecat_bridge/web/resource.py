"""Resources that answer with JSON."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from pipecat_bridge.net.rate_limit import BoundedLog
from pipecat_bridge.web.problem import ProblemError

T = TypeVar("T")

Reply = tuple[int, Any]
Handler = Callable[[Request], Reply | Deferred[Reply]]


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
            answer = self.failed(Failure())
        if isinstance(answer, tuple):
            body = write(request, *answer)
            if method != "HEAD":
                return body
            # If a body were returned, Twisted would log a warning.
            request.setHeader("content-length", str(len(body)))
            return b""
        answer.addErrback(self.failed).addCallback(_finish, request, request.notifyFinish())
        return NOT_DONE_YET

    def failed(self, failure: Failure) -> Reply:
        """The answer to a request that has failed."""
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


def body_of(request: Request) -> bytes:
    """The body of a request."""
    if request.content is None:
        return b""
    body: bytes = request.content.read()
    return body


def json_of(request: Request, shape: type[T], example: str, default: bytes = b"") -> T:
    """The JSON of a request's body, or `default` if it has none. Raises ProblemError, with an
    example of what is expected."""
    try:
        return msgspec.json.decode(body_of(request) or default, type=shape)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"expected {example}: {error}") from None
