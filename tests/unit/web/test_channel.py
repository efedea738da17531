"""Clients of the API that are slow, send too much, do not read, or are too many."""

from __future__ import annotations

import contextlib  # trial reads a name `suppress` of a module as its own option
import json
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.web.channel import LINGER, MAX_BODY, PATIENCE, READ, ApiChannel, LimitedSite
from pipecat_bridge.web.resource import JSONResource

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
FORM = b"content-type: application/x-www-form-urlencoded\r\n"


def post(size: int, more: bytes = b"") -> bytes:
    """The headers of a request with a body of `size` bytes."""
    return b"POST / HTTP/1.1\r\nhost: a\r\n%scontent-length: %d\r\n\r\n" % (more, size)


def turn(clock: Clock) -> None:
    """A turn of the loop: what is due now, but not what that puts off until the next turn."""
    for call in [each for each in clock.getDelayedCalls() if each.getTime() <= clock.seconds()]:
        clock.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)


class Wire(StringTransport):
    """The client's end of a connection. Closing it is told to the channel, as TCP does."""

    bufferSize = 1 << 16
    closed = False
    paused = False
    reads = True  # the client takes what was sent

    def __init__(self, channel: ApiChannel) -> None:
        super().__init__()
        self.channel = channel

    def lost(self) -> None:
        if not self.closed:
            self.closed = True
            self.channel.connectionLost(Failure(ConnectionDone()))

    def loseConnection(self) -> None:
        super().loseConnection()
        if self.reads:
            self.lost()

    def abortConnection(self) -> None:
        self.lost()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class Root(Resource):
    """Notes what it is asked; answers when `later` fires, if that is set."""

    isLeaf = True
    later: Deferred[None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self.args: list[dict[bytes, list[bytes]]] = []

    def render(self, request: Request) -> bytes | int:
        assert request.content is not None
        self.bodies.append(request.content.read())
        self.args.append(request.args or {})
        if self.later is None:
            return b"good"
        self.later.addCallback(lambda _: (request.write(b"good"), request.finish()))
        return NOT_DONE_YET


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.root = Root()
        self.site = LimitedSite(self.clock, self.root)

    def connect(self) -> Wire:
        channel = self.site.buildProtocol(None)
        assert isinstance(channel, ApiChannel)
        wire = Wire(channel)
        channel.makeConnection(wire)
        return wire

    def send(self, wire: Wire, data: bytes) -> None:
        """Send `data` in reads of the size that the channel allows."""
        for start in range(0, len(data), wire.bufferSize):
            if not wire.closed:
                wire.channel.dataReceived(data[start : start + wire.bufferSize])

    def ask(self, wire: Wire, data: bytes) -> None:
        self.send(wire, data)
        self.clock.advance(0)

    def error(self, wire: Wire) -> tuple[int, str]:
        """Status and sentence of an answer."""
        head, _, body = wire.value().partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)["error"]


class BodyTests(Case):
    def test_bodies_that_fit(self) -> None:
        wire = self.connect()
        self.ask(wire, post(3) + b"abc")
        self.ask(wire, post(MAX_BODY) + bytes(MAX_BODY))
        chunked = b"PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        self.ask(wire, chunked + b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n")
        self.assertEqual(self.root.bodies, [b"abc", bytes(MAX_BODY), b"def"])
        self.assertEqual(wire.value().count(b"200 OK"), 3)

    def test_a_form_is_left_to_the_resource(self) -> None:
        body = b"caller=1&" * 5
        with patch.object(http, "parse_qs", side_effect=AssertionError("parsed")):
            self.ask(self.connect(), post(len(body), FORM) + body)
        self.assertEqual((self.root.bodies, self.root.args), ([body], [{}]))

    def test_one_that_says_it_is_too_long(self) -> None:
        wire = self.connect()
        self.ask(wire, post(MAX_BODY + 1))
        self.assertEqual(self.error(wire), (413, f"the body has more than {MAX_BODY} bytes"))
        self.assertFalse(wire.closed, "the client may read it")
        said = wire.value()
        for _ in range(1000):  # 4 MB, of which nothing is kept
            self.send(wire, bytes(READ))
        self.clock.advance(LINGER)
        self.assertTrue(wire.closed)
        self.assertEqual((wire.value(), self.root.bodies), (said, []))

    def test_one_that_is_sent_whole_all_the_same(self) -> None:
        wire = self.connect()
        self.ask(wire, post(MAX_BODY + 1) + bytes(MAX_BODY + 1))
        self.assertEqual(self.error(wire)[0], 413)
        self.clock.advance(LINGER)
        self.assertTrue(wire.closed)

    def test_who_asks_first_is_not_told_to_continue(self) -> None:
        wire = self.connect()
        self.ask(wire, post(400 << 20, b"expect: 100-continue\r\n"))
        self.assertEqual(self.error(wire)[0], 413)
        wire = self.connect()
        self.ask(wire, post(3, b"expect: 100-continue\r\n"))
        self.assertIn(b"100 Continue", wire.value())

    def test_chunks_without_an_end(self) -> None:
        wire = self.connect()
        self.send(wire, b"PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(MAX_BODY // 1024):
            self.send(wire, b"400\r\n" + bytes(1024) + b"\r\n")
        self.assertEqual(wire.value(), b"")
        self.send(wire, b"1\r\nx\r\n")
        self.assertEqual(self.error(wire)[0], 413)
        self.send(wire, b"0\r\n\r\n" + GET)
        self.clock.advance(LINGER)
        self.assertEqual((wire.closed, self.root.bodies), (True, []))

    def test_the_last_chunk_in_the_read_that_is_too_much(self) -> None:
        wire = self.connect()
        self.send(wire, b"PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        self.send(wire, b"10000\r\n" + bytes(MAX_BODY) + b"\r\n")
        self.send(wire, b"1\r\nx\r\n0\r\n\r\n")
        self.assertEqual(self.error(wire)[0], 413)
        self.clock.advance(PATIENCE)
        self.assertTrue(wire.closed)


class DeadlineTests(Case):
    def test_a_byte_now_and_then(self) -> None:
        for data in (GET, post(20)):
            wire = self.connect()
            for byte in data:
                self.send(wire, bytes([byte]))
                self.clock.advance(PATIENCE / 20)
                if wire.value():
                    break
            self.assertEqual(self.error(wire)[0], 408)
            self.clock.advance(LINGER)
            self.assertTrue(wire.closed)
        self.assertEqual(self.root.bodies, [])

    def test_a_body_that_does_not_come(self) -> None:
        wire = self.connect()
        self.send(wire, post(20) + b"x")
        self.clock.advance(PATIENCE - 0.1)
        self.send(wire, b"x")
        self.clock.advance(0.1)
        self.assertEqual(self.error(wire)[0], 408)

    def test_who_says_nothing(self) -> None:
        wire = self.connect()
        self.clock.advance(PATIENCE)
        self.assertEqual((wire.closed, wire.value()), (True, b""))

    def test_each_request_has_its_own(self) -> None:
        wire = self.connect()
        for _ in range(3):
            self.clock.advance(PATIENCE - 0.1)
            self.send(wire, GET[:5])
            self.clock.advance(PATIENCE - 0.1)
            self.ask(wire, GET[5:])
        self.assertEqual(wire.value().count(b"200 OK"), 3)
        self.clock.advance(PATIENCE)
        self.assertTrue(wire.closed)

    def test_an_answer_that_takes_longer(self) -> None:
        self.root.later = Deferred()
        wire = self.connect()
        self.ask(wire, GET)
        self.send(wire, GET)  # the next one
        self.clock.advance(3 * PATIENCE)
        self.assertEqual((wire.closed, wire.value()), (False, b""))
        self.root.later.callback(None)
        self.assertEqual(wire.value().count(b"200 OK"), 1)

    def test_who_does_not_read_and_wants_the_connection_closed(self) -> None:
        wire = self.connect()
        wire.reads = False
        self.ask(wire, b"GET / HTTP/1.0\r\n\r\n")
        self.assertTrue(wire.disconnecting)
        self.clock.advance(PATIENCE - 0.1)
        self.assertFalse(wire.closed)
        self.clock.advance(0.1)
        self.assertTrue(wire.closed)


class PipelineTests(Case):
    def test_one_request_in_each_turn(self) -> None:
        wire = self.connect()
        self.send(wire, GET * 100)
        for answered in range(100):
            self.assertEqual(wire.value().count(b"200 OK"), answered)
            turn(self.clock)
        self.assertEqual(len(self.root.bodies), 100)

    def test_no_more_is_read_than_is_answered(self) -> None:
        wire = self.connect()
        sent = 0
        while not wire.paused:
            self.send(wire, GET * 10)
            sent += 10
            self.assertLess(sent, 2000)
        while self.root.bodies != [b""] * sent:
            before = len(self.root.bodies)
            turn(self.clock)
            self.assertEqual(len(self.root.bodies), before + 1)
        self.assertFalse(wire.paused)

    def test_who_does_not_read_gets_no_further_answer(self) -> None:
        wire = self.connect()
        self.send(wire, GET * 3)
        turn(self.clock)
        assert wire.producer is not None
        wire.producer.pauseProducing()  # the buffer is full
        for _ in range(5):
            turn(self.clock)
        self.assertEqual(len(self.root.bodies), 2, "the turn of one had come")
        self.assertTrue(wire.paused, "nothing is read either")
        wire.producer.resumeProducing()
        turn(self.clock)
        self.assertEqual(len(self.root.bodies), 3)
        self.clock.advance(PATIENCE - 0.1)
        self.assertFalse(wire.closed)

    def test_who_never_reads(self) -> None:
        for waits in (0, 1):
            wire = self.connect()
            self.send(wire, GET * 10 * waits)
            wire.channel.pauseProducing()
            for _ in range(5):
                turn(self.clock)
            self.clock.advance(PATIENCE)
            self.assertTrue(wire.closed)
        self.assertLess(len(self.root.bodies), 3)

    def test_who_goes_before_its_turn(self) -> None:
        wire = self.connect()
        self.send(wire, GET * 3)
        wire.lost()
        turn(self.clock)
        self.assertEqual((self.root.bodies, self.clock.getDelayedCalls()), ([], []))

    def test_many_connections_share_the_turns_and_those_that_go_take_none(self) -> None:
        wires = [self.connect() for _ in range(10)]
        for wire in wires:
            self.send(wire, GET * 2)
        for wire in wires[::2]:
            wire.lost()
        for answered in range(1, 6):
            turn(self.clock)
            self.assertEqual(len(self.root.bodies), answered)
        self.assertEqual([wire.value().count(b"200 OK") for wire in wires], [0, 1] * 5)
        self.clock.advance(0)
        self.assertEqual([wire.value().count(b"200 OK") for wire in wires], [0, 2] * 5)

    def test_a_fault_takes_the_turn_of_no_other(self) -> None:
        broken, well = self.connect(), self.connect()
        self.send(broken, GET)
        self.send(well, GET)
        broken.channel.requests[0].answer = lambda: 1 / 0
        for _ in range(2):
            with contextlib.suppress(ZeroDivisionError):
                turn(self.clock)
        self.assertIn(b"200 OK", well.value())


class CrowdTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.site.connections = ConnectionLimit(self.clock, "api", ApiChannel.abort, lambda: 3)

    def test_slow_ones_do_not_keep_others_out(self) -> None:
        slow = [self.connect() for _ in range(3)]
        for wire in slow:
            self.send(wire, GET[:4])
        for _ in range(20):
            wire = self.connect()
            self.ask(wire, GET)
            self.assertIn(b"200 OK", wire.value())
        self.assertTrue(all(wire.closed for wire in slow))
        self.assertLessEqual(len(self.site.connections), 3)

    def test_those_that_are_answered_stay_while_others_wait(self) -> None:
        self.root.later = Deferred()
        asking = self.connect()
        self.ask(asking, GET)
        for _ in range(10):
            self.connect()
        self.assertFalse(asking.closed)
        self.assertEqual((len(self.site.connections), self.site.connections.dropped), (3, 8))

    def test_slow_answers_do_not_keep_others_out(self) -> None:
        self.root.later = Deferred()
        asking = [self.connect() for _ in range(3)]
        for wire in asking:
            self.ask(wire, GET)
        wire = self.connect()
        self.assertEqual([each.closed for each in asking], [True, False, False])
        self.root.later = None
        self.ask(wire, GET)
        self.assertIn(b"200 OK", wire.value())

    def test_those_that_do_not_read_do_not_keep_others_out(self) -> None:
        for pipelined in (1, 3):
            deaf = [self.connect() for _ in range(3)]
            for wire in deaf:
                self.send(wire, GET * pipelined)
                turn(self.clock)
                wire.channel.pauseProducing()  # the buffer is full
                turn(self.clock)
            wire = self.connect()
            self.assertEqual([each.closed for each in deaf], [True, False, False])
            self.ask(wire, GET)
            self.assertIn(b"200 OK", wire.value())

    def test_one_that_does_not_read_any_more_while_it_is_answered(self) -> None:
        self.root.later = Deferred()
        asking = [self.connect() for _ in range(2)]
        for wire in asking:
            self.ask(wire, GET)
        asking[1].channel.pauseProducing()
        self.assertEqual(self.site.connections.waiting, [asking[1].channel])
        asking[1].channel.resumeProducing()
        self.assertEqual(self.site.connections.waiting, [])

    def test_one_that_is_answered_after_it_was_closed_counts_no_more(self) -> None:
        self.root.later = Deferred()
        asking = [self.connect() for _ in range(3)]
        for wire in asking:
            self.ask(wire, GET)
        self.patch(Wire, "abortConnection", lambda wire: None)  # TCP tells it in the next turn
        wire = self.connect()
        self.root.later.callback(None)
        waiting = self.site.connections.waiting
        self.assertEqual(waiting, [each.channel for each in [wire, *asking[1:]]])
        self.assertEqual(self.site.connections.dropped, 1)

    def test_one_that_is_closed_makes_room(self) -> None:
        wires = [self.connect() for _ in range(3)]
        wires[1].lost()
        self.connect()
        self.assertEqual([wire.closed for wire in wires], [False, True, False])
        self.assertEqual(self.site.connections.dropped, 0)

    def test_a_flood_is_told_once_in_a_second(self) -> None:
        with capturedLogs() as events:
            for _ in range(200):
                self.connect()
                self.clock.advance(0.01)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(len(lines), 2)
        self.assertEqual(
            lines[1], "- 100 connections to the API closed: more than 3 at the same time"
        )


class NegotiationTests(Case):
    def test_http_2_is_not_offered(self) -> None:
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])

    def test_a_resource_of_ours(self) -> None:
        site = LimitedSite(self.clock, JSONResource(GET=lambda _: (200, {"good": True})))
        self.site = site
        wire = self.connect()
        self.ask(wire, GET)
        self.assertIn(b'{"good":true}', wire.value())
