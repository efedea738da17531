"""A courier sends each event of the outbox until it is delivered or dead, on a turned clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
from standardwebhooks import Webhook as Receiver
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.errors import PeerError
from pipecat_bridge.net.http import Answer
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.options import Webhook
from pipecat_bridge.sinks.courier import AT_ONCE, Courier
from pipecat_bridge.sinks.webhook import GIVE_UP
from pipecat_bridge.store import outbox, tables
from pipecat_bridge.store.engine import sqlite
from pipecat_bridge.store.entries import AgainEntry, Entry, EventEntry, encode
from pipecat_bridge.store.reader import AwayError
from pipecat_bridge.store.schema import migrate
from tests.unit.files import scratch

EPOCH = float(int(time.time()))
"""Now: the receiver refuses what is older than five minutes."""
SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"
OTHER = "whsec_" + "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3Ro"


class Box:
    """An outbox whose entries come into the database when `apply` is called."""

    journal = "pbx"

    def __init__(self, path: Any) -> None:
        self.engine = sqlite(path)
        self.connection = self.engine.connect()
        migrate(self.connection, self.engine)
        self.waiting: list[Entry] = []
        self.number = 0
        self.away = False

    def put(self, entry: Entry) -> None:
        self.waiting.append(entry)

    def apply(self) -> bool:
        entries, self.waiting = self.waiting, []
        for entry in entries:
            self.number += 1
            line = tables.Entry(self.number, encode(entry))
            cursor = self.connection.cursor()
            tables.apply(cursor, self.engine, self.journal, [line], {"crm": ("call.ended",)})
            self.connection.commit()
        return bool(entries)

    def read(self, query: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        def ask() -> Any:
            if self.away:
                raise AwayError("the store cannot be read: gone")
            return query(self.connection.cursor(), self.engine, *arguments)

        return execute(ask)


class ReceiverSide:
    """The receiver's side of HTTP: `answers` are its answers, the last one for ever."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.redact = Redaction()
        self.answers: list[int | Answer | str] = [200]
        self.requests: list[tuple[float, dict[str, str], bytes]] = []
        self.open = 0

    async def request(
        self,
        method: str,
        url: str,
        body: msgspec.Raw,
        timeout: float,
        redact: Redaction,
        headers: dict[str, str],
    ) -> Answer:
        self.requests.append((self.clock.seconds(), headers, bytes(body)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "never reads":
            self.open += 1
            over: Deferred[None] = Deferred()
            self.clock.callLater(timeout, over.callback, None)
            await over
            self.open -= 1
            raise PeerError(f"no complete answer within {timeout:g} s")
        if isinstance(answer, str):
            raise PeerError(answer)
        return answer if isinstance(answer, Answer) else Answer(answer, b"so")


class CourierCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.receiver = ReceiverSide(self.clock)
        self.box = Box(scratch(self))
        self.addCleanup(self.box.connection.close)
        self.courier = self.make()

    def make(self) -> Courier:
        hook = Webhook("crm", "https://crm.example/events", [SECRET, OTHER])
        client: Any = self.receiver
        courier = Courier(hook, self.box, client, self.clock, self.now, lambda: 0.5)
        self.addCleanup(courier.stop)
        return courier

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def happen(self, *ids: str, kind: str = "call.ended") -> None:
        for event_id in ids:
            data = msgspec.Raw(b'{"record":{}}')
            self.box.put(EventEntry(event_id, "call", self.now(), kind, data))
        self.settle()

    def settle(self) -> None:
        while self.box.apply():
            self.courier.look()

    def turn(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.settle()

    def times(self) -> list[float]:
        return [round(time) for time, _, _ in self.receiver.requests]

    def dead(self) -> list[outbox.Delivery]:
        return outbox.dead(self.box.connection.cursor(), self.box.engine, "crm", 0, 100)


class DeliveryTests(CourierCase):
    def test_what_the_receiver_can_verify_with_either_secret(self) -> None:
        self.happen("e1")
        [(_, headers, body)] = self.receiver.requests
        stamp = headers["webhook-timestamp"]
        self.assertEqual((headers["webhook-id"], stamp), ("e1", str(int(EPOCH))))
        for secret in (SECRET, OTHER):
            Receiver(secret).verify(body, headers)
        told = json.loads(body)
        self.assertEqual((told["type"], told["id"], told["call_id"]), ("call.ended", "e1", "call"))
        moment = datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.assertEqual(told["timestamp"], moment)
        self.assertEqual(told["data"], {"record": {}})

    def test_in_order_and_once(self) -> None:
        self.happen(*(f"e{number}" for number in range(20)))
        self.turn(100)
        ids = [headers["webhook-id"] for _, headers, _ in self.receiver.requests]
        self.assertEqual(ids, [f"e{number}" for number in range(20)])
        self.assertEqual(self.courier.results["delivered"], 20)

    def test_only_the_kinds_that_it_wants(self) -> None:
        self.happen("e1", kind="dtmf")
        self.turn(10)
        self.assertEqual(self.receiver.requests, [])


class FailureTests(CourierCase):
    def test_it_is_tried_for_three_days(self) -> None:
        for answer in ("no connection", 500, 503, 408, 425, 302):
            with self.subTest(answer=answer):
                self.receiver.requests.clear()
                self.receiver.answers = [answer]
                begun = self.clock.seconds()
                event_id = f"e {answer}"
                self.happen(event_id)
                self.turn(GIVE_UP + 4 * 3600, step=5.0)
                times = [time - round(begun) for time in self.times()]
                self.assertEqual(times[0], 0)
                self.assertLessEqual(times[1], 10)
                self.assertLessEqual(times[-1], GIVE_UP + 5)
                self.assertGreater(times[-1], GIVE_UP - 6 * 3600)
                waits = [b - a for a, b in pairwise(times)]
                self.assertEqual(waits[:-1], sorted(waits[:-1]))
                self.assertEqual(
                    {h["webhook-id"] for _, h, _ in self.receiver.requests}, {event_id}
                )
                self.assertEqual(self.dead()[-1].event.id, event_id)

    def test_it_comes_back(self) -> None:
        self.receiver.answers = ["no connection"] * 3 + [200]
        self.happen("e1")
        self.turn(600)
        self.assertEqual(len(self.receiver.requests), 4)
        self.assertEqual(self.dead(), [])

    def test_it_wants_to_be_left_alone_for_a_while(self) -> None:
        self.receiver.answers = [Answer(429, b"", 120.0), 200]
        self.happen("e1")
        self.turn(200)
        self.assertEqual(self.times(), [0, 120])

    def test_it_does_not_want_this_one(self) -> None:
        self.receiver.answers = [400, 200]
        self.happen("e1", "e2")
        self.turn(10)
        [dead] = self.dead()
        self.assertEqual((dead.event.id, dead.told), ("e1", "answered with 400: so"))
        self.assertEqual(len(self.receiver.requests), 2)

    def test_it_never_wants_anything_again(self) -> None:
        self.receiver.answers = [410]
        self.happen("e1")
        self.happen("e2")
        self.turn(GIVE_UP, step=600.0)
        self.assertEqual(len(self.receiver.requests), 1)
        self.assertIn("410", self.courier.off)
        self.receiver.answers = [200]
        self.box.put(AgainEntry("crm", self.now()))
        self.settle()
        self.turn(60)
        ids = [headers["webhook-id"] for _, headers, _ in self.receiver.requests]
        self.assertEqual((sorted(ids[1:]), self.courier.off), (["e1", "e2"], ""))

    def test_it_never_reads(self) -> None:
        self.receiver.answers = ["never reads"]
        self.happen(*(f"e{number}" for number in range(50)))
        self.assertEqual(self.receiver.open, AT_ONCE)
        self.turn(14)
        self.assertEqual(len(self.receiver.requests), AT_ONCE)
        self.receiver.answers = [200]
        self.turn(300)
        ids = {headers["webhook-id"] for _, headers, _ in self.receiver.requests}
        self.assertEqual((len(ids), self.courier.results["delivered"]), (50, 50))

    def test_the_store_is_away(self) -> None:
        self.box.away = True
        self.happen("e1")
        self.turn(300)
        self.assertEqual(self.receiver.requests, [])
        self.box.away = False
        self.turn(60)
        self.assertEqual(len(self.receiver.requests), 1)

    def test_after_a_restart(self) -> None:
        self.receiver.answers = ["never reads"]
        self.happen("e1")
        self.courier.stop()
        self.turn(30)
        self.receiver.answers = [200]
        self.courier = self.make()
        self.courier.look()
        self.turn(30)
        self.assertEqual([h["webhook-id"] for _, h, _ in self.receiver.requests], ["e1", "e1"])
