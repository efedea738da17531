"""The API of all workers. A request about one call goes to the worker that has the call. Other
answers are merged from all workers.

The workers answer with the resources of `pipecat_bridge.web`. Here nothing is checked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import quote_from_bytes

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from pipecat_bridge.net.descriptors import NONE_LEFT, Descriptors
from pipecat_bridge.net.rate_limit import BoundedLog
from pipecat_bridge.options import Options
from pipecat_bridge.web.headers import header
from pipecat_bridge.web.metrics import encoder
from pipecat_bridge.web.query import cursor_of, read_query
from pipecat_bridge.workers.client import (
    MERGED_TIMEOUT,
    Header,
    WorkerAnswer,
    WorkerError,
    ask,
    passed_on,
)
from pipecat_bridge.workers.metrics import Page
from pipecat_bridge.workers.own_metrics import SUPERVISOR
from pipecat_bridge.workers.places import PreparedElsewhere
from pipecat_bridge.workers.switchboard import NO_WORKER, Switchboard
from pipecat_bridge.workers.worker import Worker

_JSON: Final[Header] = (b"content-type", b"application/json")

_URI: Final = "%/?:@!$&'()*+,;=~"
"""Characters of a path and its query, without letters, digits, - . and _."""

_VALUES: Final = (b"transfer", b"variables")
"""Routes whose errors have an empty body: Asterisk takes any body for a value."""


def json_answer(status: int, content: Any) -> WorkerAnswer:
    """An answer in JSON."""
    return WorkerAnswer(status, [_JSON], msgspec.json.encode(content) + b"\n")


class WorkersApi(Resource):
    """Answers all requests of the API. `own`: the supervisor's metrics."""

    isLeaf = True
    _log = Logger(namespace="pipecat_bridge.workers")

    def __init__(
        self,
        reactor: Any,
        switchboard: Switchboard,
        descriptors: Descriptors,
        options: Options,
        own: CollectorRegistry,
    ) -> None:
        super().__init__()
        self._faults = BoundedLog(self._log, reactor.seconds)
        self._descriptors = descriptors
        self._reactor = reactor
        self._switchboard = switchboard
        self._patience = options.audiosocket.handshake_timeout
        self._own = own
        self._metrics = CollectorRegistry()
        self.page = Page()
        self._metrics.register(self.page)

    def render(self, request: Request) -> int:
        answering = Deferred.fromCoroutine(self._answer(request))
        finished = request.notifyFinish()
        finished.addErrback(lambda _: answering.cancel())
        answering.addErrback(self._failed, request)
        answering.addCallback(_write, request)
        answering.addErrback(lambda _: None)  # the client has closed the connection
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: Request) -> WorkerAnswer:
        if failure.check(CancelledError):
            failure.raiseException()
        if failure.check(WorkerError):
            return _problem(request, 503, f"{failure.value}: try again")
        self._faults.failure("a request failed", failure)
        return _problem(request, 500, "this should not happen: the daemon's log tells more")

    async def _answer(self, request: Request) -> WorkerAnswer:
        path = _parts(request)
        merge = _MERGED.get(tuple(path)) if request.method in (b"GET", b"HEAD") else None
        if merge is not None:
            return await merge(self, request)
        if path == [b"v1", b"calls"] and request.method == b"DELETE":
            return await self._forget_caller(request)
        if path[:2] == [b"v1", b"calls"] and len(path) > 2:
            return await self._of_call(request, path)
        return await self._ask(await self._worker(""), request)

    # One call

    async def _of_call(self, request: Request, path: Sequence[bytes]) -> WorkerAnswer:
        call_id = path[2].decode("ascii", "replace").lower()
        prepares = len(path) == 3 and request.method in (b"PUT", b"POST")
        if prepares and (fault := self._switchboard.places.why_full(call_id, len(_body(request)))):
            return json_answer(503, {"error": fault})
        worker = await self._worker(call_id)
        answer = await self._ask(worker, request)
        if answer.status == 201 and prepares:
            seconds = msgspec.json.decode(answer.body)["expires_in"]
            self._switchboard.places.prepare(call_id, worker, _body(request), seconds)
        return answer

    async def _worker(self, call_id: str) -> Worker:
        """The worker to ask. If no worker runs, wait for one as long as a phone waits. Raises
        WorkerError."""
        waiting = self._switchboard.until_ready()
        waiting.addTimeout(self._patience, self._reactor, _too_late)
        await waiting
        worker = await self._switchboard.worker_for(call_id)
        return worker if worker is not None else _too_late()

    async def _ask(self, worker: Worker, asked: Request) -> WorkerAnswer:
        headers = passed_on(asked.requestHeaders)
        return await ask(self._reactor, worker, asked.method, _uri(asked), headers, _body(asked))

    async def prepare(
        self, worker: Worker, call_id: str, preparation: PreparedElsewhere[Worker]
    ) -> bool:
        """Prepare a call at `worker`, because the worker where it was prepared has ended. True if
        that succeeded."""
        path = b"/v1/calls/" + call_id.encode()
        try:
            answer = await ask(self._reactor, worker, b"PUT", path, body=preparation.body)
        except WorkerError as error:
            self._log.warn("{call_id} {error}", call_id=call_id, error=error)
            return False
        return answer.status == 201

    # All workers

    def _asking_all(self, path: bytes) -> list[tuple[Worker, Deferred[WorkerAnswer]]]:
        return [(worker, self._asking(worker, path)) for worker in self._switchboard.ready]

    def _asking(
        self, worker: Worker, path: bytes, method: bytes = b"GET"
    ) -> Deferred[WorkerAnswer]:
        asking = ask(self._reactor, worker, method, path, timeout=MERGED_TIMEOUT)
        return Deferred.fromCoroutine(asking)

    async def _all(self, asked: Request) -> dict[Worker, WorkerAnswer]:
        """The answers of all workers that run, without workers that end meanwhile. Raises
        WorkerError."""
        asking = self._asking_all(_uri(asked))
        answers: dict[Worker, WorkerAnswer] = {}
        fault: WorkerError | None = None
        for worker, answer in asking:
            try:
                answers[worker] = await answer
            except WorkerError as error:
                if worker.ready:
                    fault = error
        if fault is not None:
            raise fault
        return answers

    async def _healthz(self, _: Request) -> WorkerAnswer:
        return json_answer(200, {"status": "ok"})

    async def _readyz(self, asked: Request) -> WorkerAnswer:
        """Ready if all workers that run are ready: each of them may get the next call."""
        reasons: list[str] = [] if self._switchboard.ready else [NO_WORKER]
        stores: list[str] = []
        reasons += [NONE_LEFT] if self._descriptors.none_left else []
        try:
            for answer in (await self._all(asked)).values():
                told = msgspec.json.decode(answer.body)
                reasons += told["reasons"]
                stores.append(told.get("store", ""))
        except WorkerError as error:
            reasons.append(str(error))
        reasons = list(dict.fromkeys(reasons))
        ready: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
        if any(stores):
            ready["store"] = next((one for one in stores if one not in ("", "ok")), "ok")
        return json_answer(503 if reasons else 200, ready)

    async def _list(self, asked: Request) -> WorkerAnswer:
        """A page of all calls. All workers see the same store; only one has a call that runs."""
        found: dict[tuple[str, float], Any] = {}
        more = False
        for worker, answer in (await self._all(asked)).items():
            if answer.status != 200:
                return answer
            page = msgspec.json.decode(answer.body)
            more = more or "cursor" in page
            for call in page["calls"]:
                key = call["id"], call["created_at"]
                if key not in found or call["node"].endswith(f"/{worker.number}"):
                    found[key] = call
        calls = sorted(found.values(), key=lambda call: call["created_at"], reverse=True)
        limit = read_query(asked).limit
        shown = calls[:limit]
        if more or len(calls) > limit:
            return json_answer(
                200, {"calls": shown, "cursor": cursor_of(shown[-1]["created_at"], 0)}
            )
        return json_answer(200, {"calls": shown})

    async def _forget_caller(self, asked: Request) -> WorkerAnswer:
        """Each worker forgets what it has in memory; all of them see the same store."""
        asking = [
            self._asking(worker, _uri(asked), b"DELETE") for worker in self._switchboard.ready
        ]
        answers = [await each for each in asking] or [json_answer(503, {"error": NO_WORKER})]
        refused = [answer for answer in answers if answer.status != 202]
        if refused:
            return refused[0]
        told = [msgspec.json.decode(answer.body) for answer in answers]
        ids = sorted({call_id for each in told for call_id in each["deleted"]})
        return json_answer(202, {**told[0], "deleted": ids})

    async def _events(self, _: Request) -> WorkerAnswer:
        text = "server-sent events of several workers are not there yet: use webhooks"
        return json_answer(501, {"error": text})

    async def _show_metrics(self, asked: Request) -> WorkerAnswer:
        """The metrics of all processes. A worker without an answer keeps its last values."""
        asking = self._asking_all(b"/metrics")
        for worker, answering in asking:
            try:
                answer = await answering
            except WorkerError as error:
                self._log.warn("no new metrics: {error}", error=error)
            else:
                if worker.ready:
                    self.page.update(str(worker.number), answer.body.decode())
        self.page.update(SUPERVISOR, generate_latest(self._own).decode())
        encode, content_type = encoder(header(asked, "accept") or "")
        return WorkerAnswer(200, [(b"content-type", content_type.encode())], encode(self._metrics))


_MERGED: Final[
    dict[tuple[bytes, ...], Callable[[WorkersApi, Request], Awaitable[WorkerAnswer]]]
] = {
    (b"healthz",): WorkersApi._healthz,
    (b"readyz",): WorkersApi._readyz,
    (b"metrics",): WorkersApi._show_metrics,
    (b"v1", b"calls"): WorkersApi._list,
    (b"v1", b"events"): WorkersApi._events,
}


def _too_late(*_: object) -> NoReturn:
    raise WorkerError(NO_WORKER)


def _parts(request: Request) -> list[bytes]:
    """The parts of the path, as twisted.web splits it, without empty parts."""
    return [part for part in (*(request.prepath or ()), *(request.postpath or ())) if part]


def _uri(request: Request) -> bytes:
    """Path and query. Bytes that no URI may have are quoted: the client would not send them."""
    uri: bytes = request.uri if request.uri.startswith(b"/") else b"/"
    return quote_from_bytes(uri, safe=_URI).encode()


def _body(request: Request) -> bytes:
    """The body. It may have been read before."""
    if request.content is None:
        return b""
    request.content.seek(0)
    body: bytes = request.content.read()
    return body


def _problem(request: Request, status: int, text: str) -> WorkerAnswer:
    if any(part in _VALUES for part in _parts(request)[3:4]):
        return WorkerAnswer(status, [(b"content-type", b"text/plain; charset=utf-8")], b"")
    return json_answer(status, {"error": text})


def _write(answer: WorkerAnswer, request: Request) -> None:
    request.setResponseCode(answer.status)
    for name, value in answer.headers:
        request.responseHeaders.addRawHeader(name, value)
    request.setHeader(b"content-length", b"%d" % len(answer.body))
    request.write(answer.body)
    request.finish()
