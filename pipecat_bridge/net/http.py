"""HTTP toward a runner: one persistent pool, bounded concurrency, one timeout for it all."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer
from zope.interface import implementer

from pipecat_bridge.net.connections import KeptConnections
from pipecat_bridge.net.failures import closed, describe, given_up
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.net.urls import shown_url
from pipecat_bridge.options import RunnerOptions

DAY = 86400.0
"""Seconds."""

MAX_BODY = 1 << 20
"""Bytes of an answer that are read; a runner's answers are a few hundred."""


class RunnerError(Exception):
    """The runner did not do as asked; the text says what happened, without secrets."""

    def prefixed(self, text: str, redact: Callable[[str], str] = str) -> RunnerError:
        """The same error, with `text` before its own, which `redact` has been over."""
        return type(self)(f"{text}{redact(str(self))}")


class BridgeError(RunnerError):
    """The fault is the bridge's own: no runner is to blame, and another one would not help."""


class RunnerRefusedError(RunnerError):
    """Nothing listens there."""


class RunnerBusyError(RunnerError):
    """The runner takes no bot now: it is full, or being stopped (HTTP 429, 503; close codes 1012
    and 1013).

    `seconds`: how long it asked to be left alone, None when it did not say.
    """

    def __init__(self, text: str, seconds: float | None = None) -> None:
        super().__init__(text)
        self.seconds = seconds

    def prefixed(self, text: str, redact: Callable[[str], str] = str) -> RunnerBusyError:
        """The same error, with `text` before its own, which `redact` has been over."""
        return RunnerBusyError(f"{text}{redact(str(self))}", self.seconds)


BUSY = (429, 503)
"""Statuses of a runner that is well, and takes no bot now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A runner's answer; `retry_after` in seconds and `location`, where it said so.

    A runner that refuses may repeat what it was sent, and its words get into log and API: `redact`
    takes the secrets of its request out of them.
    """

    status: int
    body: bytes
    retry_after: float | None = None
    location: str = ""
    redact: Redaction = field(default=Redaction(), compare=False, repr=False)

    def json(self) -> Any:
        """The body as JSON; raises RunnerError."""
        try:
            return json.loads(self.body)
        except ValueError:
            found = f"an answer of {len(self.body)} bytes that is not JSON"
            raise RunnerError(f"{found}: {self.excerpt()}") from None

    def check(self) -> None:
        """Raise RunnerError for an answer that is no consent, RunnerBusyError for one of BUSY."""
        if 200 <= self.status < 300:
            return
        text = f"answered with {self.status}"
        text += redirect_to(self.location, self.redact) or f": {self.excerpt()}"
        if self.status in BUSY:
            raise RunnerBusyError(text, self.retry_after)
        raise RunnerError(text)

    def excerpt(self) -> str:
        """The body on a line, cut short, without secrets."""
        return self.redact.excerpt(self.body)


def redirect_to(location: str, redact: Redaction) -> str:
    """What an error says of an answer that leads elsewhere, "" of one that does not."""
    return location and f", a redirect to {redact(shown_url(location))}, which is not followed"


def connection_pool(reactor: Any, options: RunnerOptions, hosts: int = 1) -> HTTPConnectionPool:
    """A persistent pool that keeps idle connections within the options.

    Twisted's pool counts by host only, so the total is shared out among `hosts`.
    """
    pool = KeptConnections(reactor)
    per_host = min(options.max_idle_per_host, max(1, options.max_idle_connections // hosts))
    pool.maxPersistentPerHost = per_host
    pool.cachedConnectionTimeout = options.idle_timeout  # type: ignore[assignment]  # a float will do
    return pool


class RunnerClient:
    """Requests to runners, `max_requests` at a time for each: one that hangs holds up no other.

    Redirects are not followed, cookies not kept, and no compressed answers asked for.

    `request_timeout` spans waiting for one's turn, connecting, headers and body.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        agent: IAgent,
        options: RunnerOptions,
        redact: Redaction | None = None,
    ) -> None:
        self._reactor = reactor
        self._headers = Headers({name: [value] for name, value in options.headers.items()})
        self._agent = agent
        self.redact = redact or Redaction.of(options)
        self._timeout = options.request_timeout
        self._turns = defaultdict[str, DeferredSemaphore](
            lambda: DeferredSemaphore(options.max_requests)
        )

    async def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        timeout: float | None = None,
        redact: Redaction | None = None,
    ) -> Answer:
        """The answer to one request, whatever its status; RunnerError when there is none.

        `redact`, else that of the options and the body, has been over the error, and is the
        answer's.
        """
        redact = redact or self.redact.including(body)
        asking = Deferred.fromCoroutine(self._in_turn(method, url, body, redact))
        asking.addTimeout(timeout or self._timeout, self._reactor, _timed_out)
        return await asking

    async def _in_turn(self, method: str, url: str, body: Any, redact: Redaction) -> Answer:
        turns = self._turns[urlsplit(url).netloc]
        await turns.acquire()
        try:
            return await self._ask(method, url, body, redact)
        finally:
            turns.release()

    async def _ask(self, method: str, url: str, body: Any, redact: Redaction) -> Answer:
        headers, content = self._headers, None
        if body is not None:
            headers = headers.copy()
            headers.setRawHeaders("content-type", ["application/json"])
            content = _Bytes(json.dumps(body, separators=(",", ":")).encode())
        try:
            response = await self._agent.request(method.encode(), url.encode(), headers, content)
            whole = _Body(MAX_BODY)
            response.deliverBody(whole)
            return _answer(response, await whole.whole, redact)
        except RunnerError:
            raise
        except Exception as error:
            if given_up(error):
                raise CancelledError from None
            refused = isinstance(error, Refused)
            text = _closed(url) if closed(error) else redact(describe(error))
            raise (RunnerRefusedError if refused else RunnerError)(text) from error


def _closed(url: str) -> str:
    secure = urlsplit(url).scheme == "https"
    hint = "" if secure else " (does the port expect https://?)"
    return f"the connection was closed without an answer{hint}"


def _answer(response: Any, body: bytes, redact: Redaction) -> Answer:
    # In bytes: one that is not in UTF-8 would be an error.
    retry_after, location = (
        response.headers.getRawHeaders(name, [b""])[-1].decode("latin-1")
        for name in (b"retry-after", b"location")
    )
    return Answer(response.code, body, seconds_of(retry_after), location, redact)


def seconds_of(value: str) -> float | None:
    """Retry-After in seconds, a day at most; a date, its other form, says nothing."""
    return min(float(value), DAY) if value.isascii() and value.isdigit() else None


def as_runner_error(failure: Failure) -> RunnerError:
    """The error of a failure, without the frames that it came through; raises any other kind."""
    failure.trap(RunnerError)
    error: RunnerError = failure.value.prefixed("")  # type: ignore[union-attr]
    return error


def _timed_out(_: object, seconds: float) -> Answer:
    raise RunnerError(f"no complete answer within {seconds:g} s")


@implementer(IBodyProducer)
class _Bytes:
    """A body that goes out with its headers; Twisted's own comes turns of the loop later."""

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
