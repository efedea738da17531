"""The HTTP API: calls as JSON, to be seen and steered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry
from prometheus_client.twisted import MetricsResource
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from pipecat_bridge.call.record import summary
from pipecat_bridge.call.registry import Calls, UnknownCallError

MAX_BODY = 1 << 20

RUNNER_PARAMETERS = frozenset(
    {
        "llm_type",
        "llm_key",
        "llm_messages",
        "stt_type",
        "stt_language",
        "tts_type",
        "tts_language",
        "tts_voice_id",
    }
)
"""What a call may tell its runner, besides metadata."""

Handler = Callable[[Request], tuple[int, Any]]


class ProblemError(Exception):
    """A request that cannot be done: status, and a sentence that says what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Text(Struct, forbid_unknown_fields=True):
    """Body of POST messages."""

    text: str
    run_immediately: bool = True
    audio_response: bool = True


class JSONResource(Resource):
    """Answers its methods with JSON; `handlers` maps a method to what it does."""

    isLeaf = True

    def __init__(self, **handlers: Handler) -> None:
        super().__init__()
        self._handlers = handlers

    def render(self, request: Request) -> bytes:
        method = (request.method or b"").decode("ascii", "replace")
        handler = self._handlers.get("GET" if method == "HEAD" else method)
        try:
            if handler is None:
                allowed = ", ".join(sorted(self._handlers))
                request.setHeader("allow", allowed)
                raise ProblemError(405, f"{method} cannot be done here: use {allowed}")
            status, answer = handler(request)
        except ProblemError as problem:
            status, answer = problem.status, {"error": str(problem)}
        return write_json(request, status, answer)


def write_json(request: Request, status: int, answer: Any) -> bytes:
    """Set status and type; the body."""
    request.setResponseCode(status)
    request.setHeader("content-type", "application/json")
    return bytes(msgspec.json.encode(answer)) + b"\n"


class NotFound(Resource):
    """A branch of the tree: what hangs on it is found, everything else is 404."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        return NotFound()

    def render(self, request: Request) -> bytes:
        text = "nothing is here: see /v1/calls, /healthz, /readyz and /metrics"
        return write_json(request, 404, {"error": text})


class CallsResource(Resource):
    """`/v1/calls` and what is below it."""

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
        if rest == [b"stop"]:
            return JSONResource(POST=lambda request: self._stop(call_id))
        if rest == [b"messages"]:
            return JSONResource(POST=lambda request: self._message(call_id, request))
        return NotFound()

    def render(self, request: Request) -> bytes:
        return JSONResource(GET=self._list).render(request)

    def _list(self, request: Request) -> tuple[int, Any]:
        running = [summary(call) for call in self._calls.running]
        shown = ("id", "state", "outcome", "reason", "created_at", "ended_at", "metadata")
        ended = [{key: each[key] for key in shown} for each in self._calls.ended]
        return 200, {"running": running, "ended": ended}

    def _show(self, call_id: str) -> tuple[int, Any]:
        prepared = self._calls.prepared(call_id)
        if prepared is not None:
            return 200, {"id": call_id, "state": "prepared", "metadata": prepared.metadata}
        try:
            return 200, self._calls.record(call_id)
        except UnknownCallError:
            raise _unknown(call_id) from None

    def _prepare(self, call_id: str, request: Request) -> tuple[int, Any]:
        parameters, metadata = _preparation(_body(request))
        try:
            ttl = self._calls.prepare(call_id, parameters, metadata)
        except ValueError as error:
            raise ProblemError(409 if "running" in str(error) else 400, str(error)) from None
        return 201, {"id": call_id.lower(), "state": "prepared", "expires_in": ttl}

    def _stop(self, call_id: str) -> tuple[int, Any]:
        try:
            self._calls.get(call_id).stop(reason="over the API")
            return 200, self._calls.record(call_id)
        except UnknownCallError:
            raise _unknown(call_id) from None

    def _message(self, call_id: str, request: Request) -> tuple[int, Any]:
        try:
            message = msgspec.json.decode(_body(request), type=Text)
        except msgspec.DecodeError as error:
            raise ProblemError(
                400, f'expected {{"text": "...", "run_immediately": true, ...}}: {error}'
            ) from None
        try:
            call = self._calls.get(call_id)
        except UnknownCallError:
            raise _unknown(call_id) from None
        call.send_text(message.text, message.run_immediately, message.audio_response)
        return 202, {"id": call_id, "sent": True}


def _unknown(call_id: str) -> ProblemError:
    return ProblemError(
        404, f"no call {call_id} runs, is prepared, or has ended lately: see /v1/calls"
    )


def _body(request: Request) -> bytes:
    if request.content is None:
        return b""
    body: bytes = request.content.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise ProblemError(413, f"a body of more than {MAX_BODY} bytes")
    return body


def _preparation(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runner parameters and metadata: from JSON, or from a form as the dialplan's CURL posts it."""
    if body.lstrip()[:1] not in (b"{", b""):
        fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        parameters = {key: fields.pop(key) for key in RUNNER_PARAMETERS & set(fields)}
        return parameters, fields
    try:
        content = msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ProblemError(400, f"the body is not a JSON object: {error}") from None
    metadata = content.pop("metadata", {})
    if not isinstance(metadata, dict):
        raise ProblemError(400, '"metadata" must be an object of names and values')
    unknown = sorted(set(content) - RUNNER_PARAMETERS)
    if unknown:
        known = ", ".join(sorted(RUNNER_PARAMETERS))
        raise ProblemError(400, f'unknown key "{unknown[0]}": expected metadata, {known}')
    return content, metadata


class ReadyResource(Resource):
    """`/readyz`: 200 when a call that comes now would get a bot."""

    isLeaf = True

    def __init__(self, calls: Calls, reachable: Callable[[], Deferred[bool]]) -> None:
        super().__init__()
        self._calls = calls
        self._reachable = reachable

    def render_GET(self, request: Request) -> int:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def answer(reachable: bool) -> None:
            reasons = self._reasons(reachable)
            status = 503 if reasons else 200
            body = write_json(request, status, {"ready": not reasons, "reasons": reasons})
            if not gone:
                request.write(body)
                request.finish()

        self._reachable().addCallback(answer)
        return NOT_DONE_YET

    def _reasons(self, reachable: bool) -> list[str]:
        checks = {
            "the runner does not answer": not reachable,
            "the limit of [calls] max_calls is reached": self._calls.full,
            "the daemon is being stopped": self._calls.draining,
        }
        return [reason for reason, true in checks.items() if true]


class ApiSite(Site):
    """The API's site; what its users do to calls is logged with the calls."""

    noisy = False

    def log(self, request: object) -> None:
        """No line for each request."""


def api_site(
    calls: Calls, reachable: Callable[[], Deferred[bool]], metrics: CollectorRegistry
) -> Site:
    """The site that serves all of it."""
    root, v1 = NotFound(), NotFound()
    root.putChild(b"healthz", JSONResource(GET=lambda request: (200, {"status": "ok"})))
    root.putChild(b"readyz", ReadyResource(calls, reachable))
    root.putChild(b"metrics", MetricsResource(registry=metrics))
    root.putChild(b"v1", v1)
    v1.putChild(b"calls", CallsResource(calls))
    return ApiSite(root)
