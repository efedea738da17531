"""`/v1/events`: what happens to calls, as server-sent events (HTML Living Standard, 9.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from pipecat_bridge.errors import brief
from pipecat_bridge.events.events import CallEvent, Envelope, Events, envelope
from pipecat_bridge.events.kinds import KINDS, VERSION
from pipecat_bridge.store import tables
from pipecat_bridge.store.engine import Engine
from pipecat_bridge.store.outbox import StoredEvent
from pipecat_bridge.store.reader import AwayError
from pipecat_bridge.store.store import Store
from pipecat_bridge.web.headers import header
from pipecat_bridge.web.problem import ProblemError
from pipecat_bridge.web.resource import JSONResource, Reply, write

HEARTBEAT: Final = 15.0
"""Seconds from one sign of life to the next. Proxies close connections that are silent longer."""

MOST: Final = 1000
"""Events that wait for a client that does not read. Then it is cut off, and may come back for them
with the id of the last event that it has read."""

PAGE: Final = 200
"""Events that are read from the store at once."""

TYPE: Final = "text/event-stream"

_Wanted = tuple[str, frozenset[str]]  # the call, or ""; the kinds


class EventStream(JSONResource):
    """Answers `GET /v1/events`. Any number of clients; each has a queue of its own."""

    def __init__(self, reactor: IReactorTime, events: Events, store: Store | None) -> None:
        super().__init__(GET=self._head)
        self._reactor = reactor
        self._events = events
        self._store = store

    def _head(self, request: Request) -> Reply:
        """What HEAD is told."""
        request.setHeader("content-type", TYPE)
        return 200, b""

    def render(self, request: Request) -> Any:
        if request.method != b"GET":
            return super().render(request)
        try:
            wanted = _wanted(request)
        except ProblemError as error:
            return write(request, error.status, {"error": str(error)})
        last = header(request, "last-event-id") or ""
        client = _Client(request, wanted, self._reactor)
        client.begin(self._events)
        if last and self._store is not None:
            client.go_on(self._store, last)
        else:
            client.live()
        return NOT_DONE_YET


def _wanted(request: Request) -> _Wanted:
    values = {
        name.decode("utf-8", "replace"): [each.decode("utf-8", "replace") for each in several]
        for name, several in (request.args or {}).items()
    }
    if unknown := set(values) - {"call", "kind"}:
        raise ProblemError(400, f"{brief(min(unknown))}: expected call or kind")
    kinds = [kind for each in values.get("kind", ()) for kind in each.split(",") if kind]
    for kind in kinds:
        if kind not in KINDS:
            raise ProblemError(400, f"kind={brief(kind)}: expected one of {', '.join(KINDS)}")
    return values.get("call", [""])[-1].lower(), frozenset(kinds or KINDS)


@implementer(IPushProducer)
class _Client:
    """One client. First what it has missed, then what happens."""

    _log = Logger()

    def __init__(self, request: Request, wanted: _Wanted, reactor: IReactorTime) -> None:
        self._request = request
        self._call, self._kinds = wanted
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._reads = True
        self._resumed: Deferred[None] = Deferred()
        self._catching_up: Deferred[Any] | None = None
        self._sent: set[str] = set()  # events of the store, which may happen to be waiting as well
        self._beat = LoopingCall(self._send_beat)
        self._beat.clock = reactor
        self._unsubscribe: Callable[[], None] = _nothing

    def begin(self, events: Events) -> None:
        """Take events from now on."""
        request = self._request
        request.setHeader("content-type", TYPE)
        request.setHeader("cache-control", "no-store")
        request.registerProducer(self, True)
        request.notifyFinish().addBoth(self._gone)
        request.write(b": pipecat-bridge\n\n")
        self._unsubscribe = events.subscribe(self._note)
        self._beat.start(HEARTBEAT, now=False)

    def live(self) -> None:
        """Send what happens."""
        self._catching_up = None
        self._flush()

    def go_on(self, store: Store, last: str) -> None:
        """First send what has happened since the event with the id `last`."""
        catching_up = Deferred.fromCoroutine(self._catch_up(store, last))
        self._catching_up = catching_up
        catching_up.addErrback(self._failed)

    async def _catch_up(self, store: Store, last: str) -> None:
        await store.after()
        number = await store.read(tables.number_of, last)
        if number is None:
            self._request.write(b": the event of Last-Event-ID is not stored\n\n")
        while number is not None:
            await self._readable()
            found = await store.read(_stored, number, self._call, tuple(self._kinds))
            for each in found:
                self._send(each.id, _frame(stored_envelope(each)))
                self._sent.add(each.id)
            number = found[-1].number if len(found) == PAGE else None
        self.live()

    def _readable(self) -> Deferred[None]:
        """Fires when the client reads."""
        self._resumed = Deferred()
        if self._reads:
            self._resumed.callback(None)
        return self._resumed

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if not failure.check(AwayError):
            self._log.failure("events of the store cannot be sent", failure)
        self._end()  # the client comes back

    def _note(self, event: CallEvent) -> None:
        if event.public and event.kind in self._kinds and self._call in ("", event.call_id):
            self._waiting.append((event.id, _frame(envelope(event))))
            if len(self._waiting) > MOST:
                self._end()
            elif self._catching_up is None and self._reads:
                self._flush()

    def _flush(self) -> None:
        while self._waiting and self._reads:
            self._send(*self._waiting.popleft())
        if not self._waiting:
            self._sent.clear()

    def _send(self, event_id: str, frame: bytes) -> None:
        if event_id not in self._sent:
            self._request.write(frame)

    def _send_beat(self) -> None:
        if self._reads:
            self._request.write(b":\n\n")

    def _end(self) -> None:
        self._gone(None)
        self._request.unregisterProducer()
        self._request.finish()

    def _gone(self, _: object) -> None:
        self._unsubscribe()
        self._waiting.clear()
        if self._beat.running:
            self._beat.stop()
        catching_up, self._catching_up = self._catching_up, None
        if catching_up is not None:
            catching_up.cancel()

    # From the transport

    def pauseProducing(self) -> None:
        self._reads = False

    def resumeProducing(self) -> None:
        self._reads = True
        if self._catching_up is None:
            self._flush()
        elif not self._resumed.called:
            self._resumed.callback(None)

    def stopProducing(self) -> None:
        self._gone(None)


def _nothing() -> None:
    """Nothing was subscribed yet."""


def _frame(event: Envelope) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event.id.encode(),
        event.kind.encode(),
        msgspec.json.encode(event),
    )


def stored_envelope(event: StoredEvent) -> Envelope:
    """An event of the store as it goes out."""
    data = msgspec.Raw(event.data.encode())
    return Envelope(event.id, VERSION, event.kind, event.call_id, event.time, data)


def _stored(
    cursor: Any, engine: Engine, after: int, call_id: str, kinds: Iterable[str]
) -> list[StoredEvent]:
    return tables.events(cursor, engine, after, PAGE, call_id, kinds)
