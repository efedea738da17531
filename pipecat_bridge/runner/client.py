"""HTTP toward a runner: one persistent pool, bounded concurrency, one timeout for it all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from pipecat_bridge.options import RunnerOptions

MAX_BODY = 1 << 20
"""Bytes of an answer that are read; a runner's answers are a few hundred."""


class RunnerError(Exception):
    """The runner did not do as asked; the text says what happened."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A runner's answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; raises RunnerError."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise RunnerError(f"an answer that is not JSON: {self.body[:80]!r}") from None


def connection_pool(reactor: Any, options: RunnerOptions, hosts: int = 1) -> HTTPConnectionPool:
    """A persistent pool that keeps idle connections within the options.

    Twisted's pool counts by host only, so the total is shared out among `hosts`.
    """
    pool = HTTPConnectionPool(reactor, persistent=True)
    per_host = min(options.max_idle_per_host, max(1, options.max_idle_connections // hosts))
    pool.maxPersistentPerHost = per_host
    pool.cachedConnectionTimeout = options.idle_timeout  # type: ignore[assignment]  # a float will do
    return pool


class RunnerClient:
    """Requests to runners, `max_requests` at a time.

    `request_timeout` spans waiting for one's turn, connecting, headers and body.
    """

    def __init__(self, reactor: IReactorTime, agent: IAgent, options: RunnerOptions) -> None:
        self._reactor = reactor
        self._http = HTTPClient(agent, data_to_body_producer=_Bytes)
        self._timeout = options.request_timeout
        self._under_way = DeferredSemaphore(options.max_requests)

    async def request(
        self, method: str, url: str, body: Any = None, timeout: float | None = None
    ) -> Answer:
        """The answer to one request, whatever its status; RunnerError when there is none."""
        asking = Deferred.fromCoroutine(self._in_turn(method, url, body))
        asking.addTimeout(timeout or self._timeout, self._reactor, _timed_out)
        return await asking

    async def _in_turn(self, method: str, url: str, body: Any) -> Answer:
        await self._under_way.acquire()
        try:
            return await self._ask(method, url, body)
        finally:
            self._under_way.release()

    async def _ask(self, method: str, url: str, body: Any) -> Answer:
        content_of = {} if body is None else {"json": body}  # treq would send None as "null"
        try:
            # Unbuffered: treq would keep the body a second time, and all of it.
            response = await self._http.request(
                method, url, allow_redirects=False, unbuffered=True, **content_of
            )
            content = _Body(MAX_BODY)
            response.deliverBody(content)
            return Answer(response.code, await content.whole)
        except (CancelledError, RunnerError):
            raise
        except Exception as error:
            raise RunnerError(describe(error)) from error


def _timed_out(_: object, seconds: float) -> Answer:
    raise RunnerError(f"no complete answer within {seconds:g} s")


def describe(error: BaseException) -> str:
    """One line for an error of Twisted's; some carry a list of failures and no text."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        return "; ".join(describe(reason.value) for reason in reasons)
    return str(error) or type(error).__name__


@implementer(IBodyProducer)
class _Bytes:
    """A body that goes out with its headers; treq's own comes turns of the loop later."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is left to be paused."""

    def resumeProducing(self) -> None:
        """As `pauseProducing`."""

    def stopProducing(self) -> None:
        """As `pauseProducing`."""


class _Body(Protocol):
    """Collects a body; cancelling `whole` closes the connection, so nothing goes on behind it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._pieces.append(data)
        if self._size > self._limit and not self.whole.called:
            self.whole.errback(RunnerError(f"an answer of more than {self._limit} bytes"))
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(RunnerError(f"the answer broke off: {reason.getErrorMessage()}"))

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
