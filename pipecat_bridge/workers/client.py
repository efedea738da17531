"""HTTP requests to the APIs of the workers. Each request has its own pair of sockets."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Final, NamedTuple, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.web.client import URI, Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from pipecat_bridge.workers.worker import Worker

TIMEOUT: Final = 10.0
"""Seconds for a worker to answer about one call. No answer takes more than a few seconds."""

MERGED_TIMEOUT: Final = 2.0
"""Seconds for a worker to answer a request to all workers, such as a scrape of the metrics."""

_OF_A_CONNECTION: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"date",
        b"expect",
        b"host",
        b"keep-alive",
        b"origin",
        b"sec-fetch-site",
        b"server",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that are not passed on (RFC 9110, 7.6.1), those that each server sets itself, and those
that the supervisor has judged by the Host, which is not passed on either."""

Header = tuple[bytes, bytes]


class WorkerAnswer(NamedTuple):
    """A worker's answer."""

    status: int
    headers: list[Header]
    body: bytes


class WorkerError(Exception):
    """A worker did not answer. The text says which worker, and why."""


def passed_on(headers: Headers) -> list[Header]:
    """The headers that are passed on: all that are not about the connection."""
    return [
        (name, value)
        for name, values in headers.getAllRawHeaders()
        if name.lower() not in _OF_A_CONNECTION
        for value in values
    ]


async def ask(
    reactor: Any,
    worker: Worker,
    method: bytes,
    path: bytes,
    headers: Sequence[Header] = (),
    body: bytes = b"",
    timeout: float = TIMEOUT,
) -> WorkerAnswer:
    """The answer of one worker. Raises WorkerError if there is none within `timeout` seconds."""
    asking = Deferred.fromCoroutine(_ask(reactor, worker, method, path, headers, body))
    asking.addTimeout(timeout, reactor)
    try:
        return await asking
    except CancelledError:
        raise
    except Exception as error:
        reason = "does not answer" if worker.ready else "has ended"
        raise WorkerError(f"worker {worker.number} {reason}") from error


async def _ask(
    reactor: Any,
    worker: Worker,
    method: bytes,
    path: bytes,
    headers: Sequence[Header],
    body: bytes,
) -> WorkerAnswer:
    sent = Headers()
    for name, value in headers:
        sent.addRawHeader(name, value)
    content = FileBodyProducer(BytesIO(body)) if body else None
    agent = Agent.usingEndpointFactory(reactor, _Line(reactor, worker))
    response = await agent.request(method, b"http://worker" + path, sent, content)
    return WorkerAnswer(response.code, passed_on(response.headers), await readBody(response))


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Line:
    """Connects to the API of one worker: the worker gets one end of a new pair of sockets."""

    def __init__(self, reactor: Any, worker: Worker) -> None:
        self._reactor = reactor
        self._worker = worker

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """This endpoint, for every URI."""
        return cast(IStreamClientEndpoint, self)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """A connection. It may be written to before the worker has the other end."""
        if not self._worker.ready:
            return fail(ConnectionLost("it does not run"))
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            protocol: Any = protocolFactory.buildProtocol(UNIXAddress(None))
            factory = ServerFactory.forProtocol(lambda: protocol)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        giving = self._worker.serve_api(theirs)
        giving.addBoth(lambda _: theirs.close())  # if the worker has not got it, ours closes too
        return succeed(protocol)
