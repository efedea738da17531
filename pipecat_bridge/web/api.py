"""The HTTP API: shows calls as JSON, and controls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import Request

from pipecat_bridge.call.registry import Calls
from pipecat_bridge.net.descriptors import NONE_LEFT, Descriptors
from pipecat_bridge.records import Records
from pipecat_bridge.store.store import Store
from pipecat_bridge.web.archive import Archive
from pipecat_bridge.web.calls import CallsResource
from pipecat_bridge.web.channel import LimitedSite
from pipecat_bridge.web.headers import header
from pipecat_bridge.web.metrics import encoder
from pipecat_bridge.web.origin import fault_of
from pipecat_bridge.web.query import read_query
from pipecat_bridge.web.resource import JSONResource, NotFound, Refused, Reply
from pipecat_bridge.web.stream import EventStream
from pipecat_bridge.web.webhooks import WebhooksResource

MOST_ROWS: Final = 10_000
"""Calls of a table."""


def readiness(
    calls: Calls,
    store: Store | None,
    reachable: Callable[[], Deferred[bool]],
    descriptors: Descriptors,
) -> JSONResource:
    """`/readyz`: 200 if a call that comes now would get a bot, else 503 and the reasons.

    A store that is away is told, and costs no call.
    """

    def answer(reached: bool) -> Reply:
        checks = {
            "the runner does not answer": not reached,
            NONE_LEFT: descriptors.none_left,
            "the limit of [calls] max_calls is reached": calls.full,
            "the daemon is being stopped": calls.draining,
        }
        reasons = [reason for reason, true in checks.items() if true]
        answer: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
        if store is not None:
            answer["store"] = store.fault or "ok"
        return 503 if reasons else 200, answer

    return JSONResource(GET=lambda request: reachable().addCallback(answer))


def metrics_page(metrics: CollectorRegistry) -> JSONResource:
    """`/metrics`. It runs in the reactor's thread: a call must not end while it is counted."""

    def page(request: Request) -> Reply:
        encode, content_type = encoder(header(request, "accept") or "")
        request.setHeader("content-type", content_type)
        return 200, encode(metrics)

    return JSONResource(GET=page)


def calls_table(archive: Archive) -> JSONResource:
    """`/v1/calls.csv`."""

    def table(request: Request) -> Deferred[Reply]:
        request.setHeader("content-type", "text/csv; charset=utf-8; header=present")
        wanted = read_query(request, usual=MOST_ROWS, most=MOST_ROWS)
        return archive.table(wanted).addCallback(lambda rows: (200, rows))

    return JSONResource(GET=table)


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
    records: Records | None,
    reachable: Callable[[], Deferred[bool]],
    descriptors: Descriptors,
    metrics: CollectorRegistry,
    hosts: Iterable[str] = (),
) -> ApiSite:
    """The site that serves the API, `/healthz`, `/readyz` and `/metrics`."""
    store = records.store if records is not None else None
    recordings = records.recordings if records is not None else None
    archive = Archive(calls, store, recordings)
    root, v1 = NotFound(), NotFound()
    root.putChild(b"healthz", JSONResource(GET=lambda request: (200, {"status": "ok"})))
    root.putChild(b"readyz", readiness(calls, store, reachable, descriptors))
    root.putChild(b"metrics", metrics_page(metrics))
    root.putChild(b"v1", v1)
    v1.putChild(b"calls", CallsResource(calls, archive))
    v1.putChild(b"events", EventStream(reactor, calls.events, store))
    webhooks = records.webhooks if records is not None else None
    v1.putChild(b"webhooks", WebhooksResource(webhooks, store))
    v1.putChild(b"calls.csv", calls_table(archive))
    return ApiSite(reactor, root, hosts)
