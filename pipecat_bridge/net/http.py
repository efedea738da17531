"""HTTP requests to peers: persistent connections, a limit of requests at once, and deadlines."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
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

from pipecat_bridge.errors import BlameError, PeerBusyError, PeerError, PeerRefusedError
from pipecat_bridge.net.connections import KeptConnections
from pipecat_bridge.net.failures import closed, describe, given_up
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.net.urls import shown_url
from pipecat_bridge.wire.nesting import MAX_DEPTH, too_deep

DAY = 86400.0
"""Seconds of a day."""

MAX_BODY = 1 << 20
"""Upper limit of an answer's body, in bytes. A runner answers with a few hundred."""

MAX_JSON = 1 << 16
"""Upper limit of a body that is read as JSON, in bytes. A megabyte of brackets would take a quarter
of a second, in which no call goes on."""

T = TypeVar("T")

BUSY_STATUSES = (429, 503)
"""Statuses of a peer that works, but takes no request now."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A peer's answer. `retry_after`, in seconds, and `location` are those of its headers, if any.

    A peer may repeat the request in its answer, and texts of an answer get into the log and the
    API. So `redact` takes the secrets of the request out of them.
    """

    status: int
    body: bytes
    retry_after: float | None = None
    location: str = ""
    redact: Redaction = field(default=Redaction(), compare=False, repr=False)

    def json(self, quotes: bool = True) -> Any:
        """The body as JSON. Raises PeerError if it is not JSON, or has more than MAX_JSON bytes.

        The error `quotes` the body.
        """
        size = len(self.body)
        if size > MAX_JSON:
            raise PeerError(f"an answer of {size} bytes: expected JSON of at most {MAX_JSON}")
        try:
            content = json.loads(self.body)
        except (ValueError, RecursionError):
            found = f"an answer of {size} bytes that is not JSON"
            raise PeerError(f"{found}: {self.excerpt()}" if quotes else found) from None
        if too_deep(content):
            raise PeerError(f"an answer that is nested deeper than {MAX_DEPTH} levels")
        return content

    def check(self) -> None:
        """Raise PeerBusyError for one of BUSY_STATUSES, PeerError for any other that is not 2xx."""
        if 200 <= self.status < 300:
            return
        text = f"answered with {self.status}"
        text += redirect_to(self.location, self.redact) or f": {self.excerpt()}"
        if self.status in BUSY_STATUSES:
            raise PeerBusyError(text, self.retry_after)
        raise PeerError(text)

    def excerpt(self) -> str:
        """The beginning of the body on one line, without secrets."""
        return self.redact.excerpt(self.body)


def redirect_to(location: str, redact: Redaction) -> str:
    """The part of an error text about a redirect; "" if `location` is ""."""
    return location and f", a redirect to {redact(shown_url(location))}, which is not followed"


def connection_pool(
    reactor: Any, idle: int, idle_per_host: int, idle_timeout: float, hosts: int = 1
) -> HTTPConnectionPool:
    """A pool that keeps at most `idle` idle connections, each for `idle_timeout` seconds.

    Twisted's pool has a limit for each host only. So each of `hosts` hosts gets an equal share.
    """
    pool = KeptConnections(reactor)
    pool.maxPersistentPerHost = min(idle_per_host, max(1, idle // hosts))
    pool.cachedConnectionTimeout = idle_timeout  # type: ignore[assignment]  # a float will do
    return pool


class HTTPClient:
    """Sends requests to peers. A peer that hangs does not delay requests to other hosts.

    Redirects are not followed, cookies are not kept, and compressed answers are not asked for.

    `max_requests`: requests at the same time, for each host. `timeout`: seconds for the whole
    request, with the wait for its turn, the connection, headers and body. `headers` are sent with
    each request. `redact` knows the secrets of all requests. `clock` is the reactor's.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        agent: IAgent,
        timeout: float,
        max_requests: int,
        headers: Mapping[str, str],
        redact: Redaction,
    ) -> None:
        self.clock = reactor
        self._headers = Headers({name: [value] for name, value in headers.items()})
        self._agent = agent
        self.redact = redact
        self._timeout = timeout
        self._turns = defaultdict[str, DeferredSemaphore](lambda: DeferredSemaphore(max_requests))

    async def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        timeout: float | None = None,
        redact: Redaction | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to one request, with any status. Raises PeerError if there is no answer, and
        BridgeError if the bridge could not send the request.

        `body` becomes JSON. `headers` are sent besides those of the client. `redact` takes secrets
        out of the texts of errors and of the answer. The default is the client's redaction, with
        the secrets in `body`.
        """
        redact = redact or self.redact.including(body)
        deadline = _Deadline(self.clock, timeout or self._timeout)
        turns = self._turns[urlsplit(url).netloc]
        await deadline.hold(turns.acquire())
        try:
            return await self._ask(method, url, body, headers or {}, redact, deadline)
        finally:
            turns.release()

    async def _ask(
        self,
        method: str,
        url: str,
        body: Any,
        more: Mapping[str, str],
        redact: Redaction,
        deadline: _Deadline,
    ) -> Answer:
        headers, content = self._headers.copy(), None
        for name, value in more.items():
            headers.setRawHeaders(name, [value])
        if body is not None:
            headers.setRawHeaders("content-type", ["application/json"])
            content = _Bytes(msgspec.json.encode(body))  # prepared data may be long
        try:
            asking = self._agent.request(method.encode(), url.encode(), headers, content)
            response = await deadline.hold(asking)
            whole = _Body(MAX_BODY)
            response.deliverBody(whole)
            return _answer(response, await deadline.hold(whole.whole), redact)
        except BlameError:
            raise
        except Exception as error:
            if given_up(error):
                raise CancelledError from None
            refused = isinstance(error, Refused)
            text = _closed(url) if closed(error) else redact(describe(error))
            raise (PeerRefusedError if refused else PeerError)(text) from error


class _Deadline:
    """The end of a request's time. It is set for each step of the request.

    The steps are not put into a coroutine with one timeout: when that is cancelled, Twisted's stack
    frames are in a reference cycle with its Deferred, and hold whoever cancelled it, e.g. a call.
    """

    def __init__(self, reactor: IReactorTime, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._end = reactor.seconds() + seconds

    def hold(self, step: Deferred[T]) -> Deferred[T]:
        """The same step. It fails with PeerError when the time is over."""
        left = max(self._end - self._reactor.seconds(), 0)
        return step.addTimeout(left, self._reactor, self._over)

    def _over(self, _: object, __: float) -> Any:
        raise PeerError(f"no complete answer within {self._seconds:g} s")


def _closed(url: str) -> str:
    secure = urlsplit(url).scheme == "https"
    hint = "" if secure else " (does the port expect https://?)"
    return f"the connection was closed without an answer{hint}"


def _answer(response: Any, body: bytes, redact: Redaction) -> Answer:
    # Read the headers as bytes: Twisted fails on a header that is not in UTF-8.
    retry_after, location, date = (
        response.headers.getRawHeaders(name, [b""])[-1].decode("latin-1")
        for name in (b"retry-after", b"location", b"date")
    )
    return Answer(response.code, body, seconds_of(retry_after, date), location, redact)


def seconds_of(value: str, date: str = "") -> float | None:
    """The header Retry-After in seconds, at most a day (RFC 9110, section 10.2.3).

    If it is a date, it is taken relative to the peer's own `date`. None if it is missing or wrong.
    """
    if value.isascii() and value.isdigit():
        return min(float(value), DAY)
    try:
        wanted, now = (parsedate_to_datetime(each).timestamp() for each in (value, date))
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wanted - now, 0.0), DAY)


@implementer(IBodyProducer)
class _Bytes:
    """A body that is sent together with the headers. Twisted's own producers send it later."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Does nothing: everything is written already."""

    def resumeProducing(self) -> None:
        """Does nothing: everything is written already."""

    def stopProducing(self) -> None:
        """Does nothing: everything is written already."""


class _Body(Protocol):
    """Collects a body of at most `limit` bytes. Cancelling `whole` closes the connection."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        self._pieces.append(data)
        if self._size > self._limit and not self.whole.called:
            self.whole.errback(PeerError(f"an answer of more than {self._limit} bytes"))
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(PeerError(f"the answer broke off: {reason.getErrorMessage()}"))

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()
