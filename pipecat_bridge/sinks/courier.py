"""Sends the events of the outbox to one webhook."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw, Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pipecat_bridge.errors import BlameError, brief
from pipecat_bridge.events.kinds import VERSION
from pipecat_bridge.net.http import HTTPClient
from pipecat_bridge.options import Webhook
from pipecat_bridge.sinks.webhook import Verdict, headers, judge, key_of, wait
from pipecat_bridge.store import outbox
from pipecat_bridge.store.entries import AgainEntry, DeliveryEntry, Entry, HookOffEntry
from pipecat_bridge.store.outbox import Delivery, Depth, StoredEvent
from pipecat_bridge.store.reader import AwayError

AT_ONCE: Final = 4
"""Events that are on their way to one receiver. It may be slow, and there may be many events."""

LOOK_AGAIN: Final = 30.0
"""Seconds until the outbox is read again at the latest."""

LONGEST_ANSWER: Final = 200
"""Characters of an answer that are kept."""


class Payload(Struct, frozen=True):
    """The body of a request, as the Standard Webhooks specification recommends it."""

    type: str
    timestamp: str
    data: Raw
    id: str
    call_id: str
    version: int = VERSION


class Outbox(Protocol):
    """Where the events are: the store."""

    @property
    def journal(self) -> str:
        """The identity of this process's journal."""
        ...

    def read(self, query: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Read the database. Fires with AwayError."""
        ...

    def put(self, entry: Entry) -> None:
        """Write an entry, soon."""


class Courier:
    """Sends events to the receiver `hook`, each until it is delivered or dead.

    `wall_clock`: seconds since the epoch. `results`: how many attempts had which verdict.
    """

    _log = Logger()

    def __init__(
        self,
        hook: Webhook,
        box: Outbox,
        client: HTTPClient,
        clock: IReactorTime,
        wall_clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.hook = hook
        self.results: Counter[str] = Counter()
        self.depth = Depth(0, None, 0)
        self.off = ""  # why it is switched off
        self._keys = [key_of(secret) for secret in hook.secrets]
        self._box = box
        self._client = client
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._sending: dict[int, Deferred[None]] = {}
        self._noted: dict[int, int] = {}  # number -> attempts, until a new one is in the database
        self._timer: IDelayedCall | None = None
        self._reading = False
        self._again = False
        self._stopped = False
        self._failing = False

    def stop(self) -> None:
        """Send nothing more. What is on its way is sent again after the next start."""
        self._stopped = True
        self._set_timer(None)
        for sending in list(self._sending.values()):
            sending.cancel()

    # What is to be sent

    def look(self) -> None:
        """Send what is due. Called whenever something has come into the database."""
        if self._reading or self._stopped:
            self._again = self._reading
            return
        self._reading = True
        limit = AT_ONCE + len(self._noted) + len(self._sending)
        asking = self._box.read(_due, self._box.journal, self.hook.name, limit)
        asking.addCallbacks(self._found, self._away).addErrback(self._broken)

    def _found(self, state: tuple[list[tuple[float, Delivery]], str]) -> None:
        self._reading = False
        found, self.off = state
        attempts = {(delivery.number, delivery.attempts) for _, delivery in found}
        self._noted = dict(attempts & self._noted.items())
        now = self._wall_clock()
        following = LOOK_AGAIN
        for due, delivery in found:
            if delivery.number in self._sending or delivery.number in self._noted:
                continue
            if due > now:
                following = min(following, due - now)
                break
            if len(self._sending) < AT_ONCE:
                self._begin(delivery)
        self._set_timer(following)
        if self._again:
            self._again = False
            self.look()

    def send_again(self, number: int = 0) -> None:
        """Send the dead events once more, or only the one with this number."""
        self._box.put(AgainEntry(self.hook.name, self._wall_clock(), number))

    def measure(self) -> None:
        """Find out how much waits, for the metrics. That takes time if it is much."""
        asking = self._box.read(outbox.depth, self.hook.name)
        asking.addCallbacks(self._measured, lambda failure: failure.trap(AwayError))
        asking.addErrback(self._broken)

    def _measured(self, depth: Depth) -> None:
        self.depth = depth

    def _away(self, failure: Any) -> None:
        """The database is away. It is read again when it is back, and in any case later."""
        self._reading = False
        failure.trap(AwayError)
        self._set_timer(LOOK_AGAIN)

    def _broken(self, failure: Any) -> None:
        if failure.check(CancelledError):
            return
        self._reading = False
        self._log.failure("the outbox of webhook {name} failed", failure, name=self.hook.name)
        self._set_timer(LOOK_AGAIN)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if seconds is not None and not self._stopped:
            self._timer = self._clock.callLater(max(seconds, 0.05), self.look)

    # One attempt

    def _begin(self, delivery: Delivery) -> None:
        sending = Deferred.fromCoroutine(self._send(delivery))
        if not sending.called:
            self._sending[delivery.number] = sending
        sending.addErrback(self._broken)

    async def _send(self, delivery: Delivery) -> None:
        event, hook = delivery.event, self.hook
        body = body_of(event)
        signed = headers(event.id, self._wall_clock(), body, self._keys)
        try:
            answer = await self._client.request(
                "POST", hook.url, Raw(body), hook.timeout, self._client.redact, signed
            )
        except BlameError as error:
            self._attempted(delivery, judge(None), str(error), 0.0)
        else:
            told = f"answered with {answer.status}: {answer.excerpt()}"
            self._attempted(delivery, judge(answer.status), told, answer.retry_after or 0.0)

    def _attempted(self, delivery: Delivery, verdict: Verdict, told: str, asked: float) -> None:
        self._sending.pop(delivery.number, None)
        told = brief(told, LONGEST_ANSWER)
        self.results[verdict.value] += 1
        self._tell(verdict, told)
        now = self._wall_clock()
        if verdict is Verdict.OFF:
            self._box.put(HookOffEntry(self.hook.name, now, told))
        self._noted[delivery.number] = delivery.attempts
        self._box.put(self._entry(verdict, delivery, told, asked, now))
        self.look()

    def _entry(
        self, verdict: Verdict, delivery: Delivery, told: str, asked: float, now: float
    ) -> DeliveryEntry:
        if verdict is Verdict.DELIVERED:
            return DeliveryEntry(delivery.number, "delivered", told)
        if verdict is Verdict.AGAIN:
            age = now - delivery.event.time
            later = wait(delivery.attempts + 1, age, asked, self._chance())
            if later is not None:
                return DeliveryEntry(delivery.number, "waiting", told, now + later)
        return DeliveryEntry(delivery.number, "dead", told)

    def _tell(self, verdict: Verdict, told: str) -> None:
        """Log when it begins to fail, and when that is over."""
        good = verdict is Verdict.DELIVERED
        if good and self._failing:
            self._log.info("webhook {name} takes events again", name=self.hook.name)
        elif not good and not self._failing:
            self._log.warn("webhook {name}: {told}", name=self.hook.name, told=told)
        self._failing = not good
        if verdict is Verdict.OFF:
            self._log.warn(
                "webhook {name} is switched off: it has answered 410, which means never again",
                name=self.hook.name,
            )


def _due(
    cursor: Any, engine: Any, journal: str, hook: str, limit: int
) -> tuple[list[tuple[float, Delivery]], str]:
    found = outbox.next_ones(cursor, engine, journal, hook, limit)
    return found, outbox.why_off(cursor, engine, hook)


def body_of(event: StoredEvent) -> bytes:
    """The body of a request: the same at each attempt."""
    moment = datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds")
    data = Raw(event.data.encode())
    payload = Payload(event.kind, moment.replace("+00:00", "Z"), data, event.id, event.call_id)
    return msgspec.json.encode(payload)
