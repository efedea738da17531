"""HTTP toward a runner, through Twisted's real agent and pool on a reactor in memory."""

from __future__ import annotations

import gzip
import json
from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import HTTP11ClientProtocol
from twisted.web.error import SchemeNotSupported

from pipecat_bridge.errors import PeerError, PeerRefusedError
from pipecat_bridge.net.connections import MAX_HEADERS, READ
from pipecat_bridge.net.failures import describe
from pipecat_bridge.net.http import MAX_BODY, MAX_JSON, Answer
from tests.unit.runner_side import ENDLESS, OK, URL, ClientCase, Connection


class AnswerTests(ClientCase):
    def test_a_request_and_its_answer(self) -> None:
        asking = self.ask(body={"id": "7", "text": "\N{SNOWMAN}"})
        connection = self.accept()
        head, body = connection.transport.value().split(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"POST /run HTTP/1.1\r\n"))
        self.assertIn(b"application/json", head.lower())
        self.assertEqual(json.loads(body), {"id": "7", "text": "\N{SNOWMAN}"})
        connection.answer(OK)
        answer = self.successResultOf(asking)
        self.assertEqual((answer.status, answer.json()), (200, {"status": "ok"}))

    def test_no_body(self) -> None:
        self.ask(path="/stop?id=7")
        sent = self.accept().transport.value()
        self.assertIn(b"POST /stop?id=7 HTTP/1.1\r\n", sent)
        self.assertIn(b"content-length: 0\r\n", sent.lower())

    def test_any_status_is_an_answer(self) -> None:
        for status in (204, 404, 429, 500, 503):
            self.make()
            asking = self.ask()
            self.accept().answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            self.assertEqual(self.successResultOf(asking), Answer(status, b""))

    def test_redirects_are_not_followed(self) -> None:
        for status in (301, 302, 303, 307, 308):
            self.make()
            asking = self.ask()
            connection = self.accept()
            connection.answer(
                b"HTTP/1.1 %d X\r\nLocation: %s/elsewhere\r\nContent-Length: 0\r\n\r\n"
                % (status, URL.encode())
            )
            self.assertEqual(self.successResultOf(asking).status, status)
            self.assertEqual((self.dials, len(connection.requests())), (1, 1))

    def test_a_body_that_ends_with_the_connection(self) -> None:
        asking = self.ask()
        connection = self.accept()
        connection.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
        self.assertNoResult(asking)
        connection.lose()
        self.assertEqual(self.successResultOf(asking).body, b"hello")

    def test_what_is_not_json(self) -> None:
        for body, shown in (
            (b"", "no text"),
            (b"{", "{"),
            (b"o\r\n k\x1b[2J", r"o k\x1b[2J"),
            (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        ):
            with self.assertRaises(PeerError) as raised:
                Answer(200, body).json()
            expected = f"an answer of {len(body)} bytes that is not JSON: {shown}"
            self.assertEqual(str(raised.exception), expected)

    def test_json_that_is_nested_too_deep(self) -> None:
        for levels in (33, 900, 30_000):
            body = b"[" * levels + b"]" * levels
            with self.assertRaisesRegex(PeerError, "not JSON|nested deeper than 32 levels"):
                Answer(200, body).json()
        self.assertEqual(Answer(200, b"[[]]").json(), [[]])

    def test_json_that_is_too_long(self) -> None:
        fits = b'"%s"' % (b"x" * (MAX_JSON - 2))
        self.assertEqual(len(Answer(200, fits).json()), MAX_JSON - 2)
        with self.assertRaisesRegex(PeerError, f"65537 bytes: expected JSON of at most {MAX_JSON}"):
            Answer(200, fits + b" ").json()

    def test_a_cookie_is_not_sent_back(self) -> None:
        for _ in range(2):
            asking = self.ask()
            connection = self.accept()
            self.assertNotIn(b"cookie", connection.transport.value().lower())
            connection.answer(
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n"
                b"Set-Cookie: backend=7; Path=/\r\n\r\n{}"
            )
            self.assertEqual(self.successResultOf(asking).json(), {})

    def test_a_compressed_answer_is_not_unpacked(self) -> None:
        packed = gzip.compress(bytes(20_000_000))
        for coding in (b"gzip", b"x-gzip, gzip", b"deflate"):
            asking = self.ask()
            connection = self.accept()
            self.assertNotIn(b"accept-encoding", connection.transport.value().lower())
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n"
            connection.answer(head % len(packed) + b"Content-Encoding: %s\r\n\r\n" % coding)
            connection.answer(packed)
            self.assertEqual(self.successResultOf(asking).body, packed)

    def test_a_redirect_tells_where_to(self) -> None:
        for location, shown in (
            (b"/elsewhere", "/elsewhere"),
            (b"http://me:pass@h/x?token=s3cret", "http://***@h/x?***"),
            (b"/\x1b[2J\xff", r"/\x1b[2J\xff"),
            (b"/a/sk-s3cret-of-ours", "/a/***"),
        ):
            self.make(headers={"Authorization": "Bearer sk-s3cret-of-ours"})
            asking = self.ask()
            head = b"HTTP/1.1 302 Found\r\nContent-Length: 2\r\nLocation: %b\r\n\r\nhi"
            self.accept().answer(head % location)
            answer = self.successResultOf(asking)
            error = self.assertRaises(PeerError, answer.check)
            expected = f"answered with 302, a redirect to {shown}, which is not followed"
            self.assertEqual(str(error), expected)


class FailureTests(ClientCase):
    def test_refused(self) -> None:
        asking = self.ask()
        self.reactor.tcpClients[0][2].clientConnectionFailed(
            None, Failure(error.ConnectionRefusedError())
        )
        self.reactor.advance(1)
        self.assertIn("refused", self.why(asking))

    def test_dropped_without_an_answer(self) -> None:
        asking = self.ask()
        self.accept().lose()
        expected = "the connection was closed without an answer (does the port expect https://?)"
        self.assertEqual(self.why(asking), expected)

    def test_dropped_within_the_answer(self) -> None:
        asking = self.ask()
        connection = self.accept()
        connection.answer(ENDLESS)
        connection.lose()
        self.assertTrue(self.why(asking).startswith("the answer broke off: "))

    def test_not_http(self) -> None:
        asking = self.ask()
        connection = self.accept()
        connection.answer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        connection.lose()
        self.assertIn("SSH", self.why(asking))

    def test_a_url_that_cannot_be(self) -> None:
        asking = Deferred.fromCoroutine(self.client.request("GET", "gopher://127.0.0.1/"))
        self.assertIn("gopher", self.why(asking))

    def test_an_oversized_answer_is_cut_off(self) -> None:
        asking = self.ask()
        connection = self.accept()
        connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        connection.answer(bytes(MAX_BODY))
        self.assertNoResult(asking)
        connection.answer(b"x")
        self.assertEqual(self.why(asking), f"an answer of more than {MAX_BODY} bytes")
        self.assertTrue(connection.closed)
        connection.answer(bytes(1000))  # what is still on its way
        connection.lose()

    def test_one_line_for_each_error(self) -> None:
        class ManyError(Exception):
            reasons = (Failure(ConnectionDone("gone")), Failure(SchemeNotSupported("ftp")))

        self.assertEqual(describe(ManyError()), "Connection was closed cleanly: gone.; ftp")
        self.assertEqual(describe(KeyError()), "KeyError")


class HeaderTests(ClientCase):
    LINE = b"X: " + b"y" * 97 + b"\r\n"

    def test_headers_without_an_end(self) -> None:
        asking = self.ask()
        connection = self.accept()
        connection.answer(b"HTTP/1.1 200 OK\r\n")
        for _ in range(MAX_HEADERS // len(self.LINE)):
            connection.answer(self.LINE)
        self.assertNoResult(asking)
        connection.answer(self.LINE)
        self.assertTrue(connection.closed)
        connection.lose()
        expected = f"an answer whose headers have more than {MAX_HEADERS} bytes"
        self.assertEqual(self.why(asking), expected)

    def test_a_long_body_in_the_same_read(self) -> None:
        asking = self.ask()
        body = b"z" * (MAX_HEADERS + 1)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.accept().answer(head + body)
        self.assertEqual(self.successResultOf(asking).body, body)

    def test_each_answer_has_its_own_bound(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + self.LINE * 150 + b"\r\n"
        connection = None
        for _ in range(3):
            asking = self.ask()
            connection = connection or self.accept()
            connection.answer(head)
            self.successResultOf(asking)
        self.assertEqual(self.dials, 1)

    def test_what_is_more_is_not_parsed(self) -> None:
        parsed: list[bytes] = []
        parse = HTTP11ClientProtocol.dataReceived

        def noted(protocol: HTTP11ClientProtocol, data: bytes) -> None:
            parsed.append(data)
            parse(protocol, data)

        self.patch(HTTP11ClientProtocol, "dataReceived", noted)
        asking = self.ask()
        connection = self.accept()
        for _ in range(3):
            connection.answer(b"HTTP/1.1 100 C\n\n" * 4096)
        self.assertEqual(len(b"".join(parsed)), MAX_HEADERS)
        self.assertTrue(connection.closed)
        connection.lose()
        expected = f"an answer whose headers have more than {MAX_HEADERS} bytes"
        self.assertEqual(self.why(asking), expected)

    def test_little_is_read_in_a_turn(self) -> None:
        for tls in (False, True):
            self.ask()
            transport: Any = StringTransport()
            protocol = self.reactor.tcpClients[-1][2].buildProtocol(None)
            end = ProtocolWrapper(WrappingFactory(Factory()), protocol) if tls else protocol
            end.makeConnection(transport)
            self.assertEqual(transport.bufferSize, READ)


class TimeoutTests(ClientCase):
    def times_out(self, asking: Deferred[Answer], seconds: float, already: float = 0.0) -> None:
        self.reactor.advance(seconds - already - 0.1)
        self.assertNoResult(asking)
        self.reactor.advance(0.2)
        self.assertEqual(self.why(asking), f"no complete answer within {seconds:g} s")

    def test_it_spans_connecting(self) -> None:
        self.times_out(self.ask(), 30.0)

    def test_it_spans_the_headers(self) -> None:
        asking = self.ask()
        connection = self.accept()
        connection.answer(b"HTTP/1.1 200")
        self.times_out(asking, 30.0)
        self.assertTrue(connection.closed)

    def test_it_spans_the_body_and_closes_its_connection(self) -> None:
        asking = self.ask()
        connection = self.accept()
        connection.answer(ENDLESS)
        self.times_out(asking, 30.0)
        self.assertTrue(connection.closed)

    def test_a_body_that_trickles_is_not_kept_waiting_for(self) -> None:
        asking = self.ask()
        self.reactor.advance(10)
        connection = self.accept()
        connection.answer(ENDLESS)
        for _ in range(15):
            self.reactor.advance(1)
            connection.answer(b" ")
        self.times_out(asking, 30.0, already=25.0)

    def test_it_spans_waiting_for_ones_turn(self) -> None:
        self.make(max_requests=1, request_timeout=60.0)
        first = self.ask()
        asking = self.ask(timeout=2.0)
        self.times_out(asking, 2.0)
        self.assertNoResult(first)
        self.assertEqual(self.dials, 1)

    def test_it_is_an_option_and_may_differ_for_a_request(self) -> None:
        self.make(request_timeout=3.0)
        self.times_out(self.ask(), 3.0)
        self.times_out(self.ask(timeout=7.0), 7.0)

    def test_nothing_is_left_after_an_answer(self) -> None:
        self.make(idle_timeout=1.0)
        self.ask()
        self.accept().answer(OK)
        self.reactor.advance(1.1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelling_closes_the_connection(self) -> None:
        for started in (b"", ENDLESS):
            self.make()
            asking = self.ask()
            connection = self.accept()
            connection.answer(started)
            asking.cancel()
            self.failureResultOf(asking, PeerError, CancelledError)
            self.assertTrue(connection.closed)
            self.assertEqual(self.reactor.getDelayedCalls(), [])


class ConcurrencyTests(ClientCase):
    def test_so_many_requests_at_once_and_the_rest_in_turn(self) -> None:
        self.make(max_requests=3)
        asking = [self.ask(path=f"/{number}") for number in range(5)]
        self.assertEqual(self.dials, 3)
        connections = [self.accept() for _ in range(3)]
        connections[1].answer(OK)
        self.successResultOf(asking[1])
        self.assertEqual(connections[1].requests()[1:], [b"POST /3 HTTP/1.1"])
        connections[0].lose()
        self.why(asking[0])
        self.assertEqual(self.dials, 4)
        self.assertEqual(self.accept().requests(), [b"POST /4 HTTP/1.1"])

    def test_a_turn_is_given_back_in_every_ending(self) -> None:
        self.make(max_requests=1, request_timeout=5.0)
        for ending in ("timeout", "cancel", "cancel in body", "oversized", "drop"):
            with self.subTest(ending=ending):
                asking = self.ask()
                connection = self.accept()
                if ending != "timeout":
                    connection.answer(b"" if ending == "cancel" else ENDLESS)
                if ending.startswith("cancel"):
                    asking.cancel()
                elif ending == "oversized":
                    connection.answer(bytes(MAX_BODY))
                elif ending == "timeout":
                    self.reactor.advance(6)
                if ending in ("oversized", "drop"):
                    connection.lose()
                self.failureResultOf(asking, PeerError, CancelledError)

    def test_cancelled_while_waiting_it_is_never_sent(self) -> None:
        self.make(max_requests=1)
        self.ask()
        waiting = self.ask()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        last = self.ask(path="/last")
        connection = self.accept()
        connection.answer(OK)
        self.assertEqual(connection.requests(), [b"POST /run HTTP/1.1", b"POST /last HTTP/1.1"])
        self.assertNoResult(last)


class PoolTests(ClientCase):
    def together(self, requests: int) -> list[Connection]:
        """Make requests at the same time, each on its own connection. All are answered."""
        asking = [self.ask() for _ in range(requests)]
        connections = [self.accept() for _ in range(requests)]
        for connection in connections:
            connection.answer(OK)
        for each in asking:
            self.successResultOf(each)
        return connections

    def test_one_connection_serves_requests_that_follow_each_other(self) -> None:
        [connection] = self.together(1)
        for _ in range(99):
            asking = self.ask()
            connection.answer(OK)
            self.successResultOf(asking)
        self.assertEqual((self.dials, len(connection.requests())), (1, 100))

    def test_idle_connections_of_a_host_are_limited(self) -> None:
        for limit in (10, 2):
            with self.subTest(limit=limit):
                self.make(max_idle_per_host=limit)
                connections = self.together(20)
                self.assertEqual(sum(not one.closed for one in connections), limit)

    def test_idle_connections_in_all_are_shared_out(self) -> None:
        for hosts, each in ((1, 10), (10, 10), (20, 5), (1000, 1)):
            self.make(hosts=hosts)
            self.assertEqual(self.pool.maxPersistentPerHost, each)
        self.make(max_idle_connections=4)
        self.assertEqual(sum(not one.closed for one in self.together(9)), 4)

    def test_idle_connections_are_closed_after_the_idle_timeout(self) -> None:
        for seconds in (90.0, 5.0):
            with self.subTest(seconds=seconds):
                self.make(idle_timeout=seconds)
                [connection] = self.together(1)
                self.reactor.advance(seconds - 0.1)
                self.assertFalse(connection.closed)
                self.reactor.advance(0.2)
                self.assertTrue(connection.closed)


class KeptTests(ClientCase):
    """A runner may close an idle connection just as the next request goes out on it."""

    def kept(self, connections: int = 1) -> list[Connection]:
        """Idle connections, each of which has served one request."""
        asking = [self.ask() for _ in range(connections)]
        kept = [self.accept() for _ in range(connections)]
        for connection in kept:
            connection.answer(OK)
        for each in asking:
            self.successResultOf(each)
        return kept

    def test_the_request_is_repeated_on_a_new_one(self) -> None:
        for method in ("GET", "POST"):
            with self.subTest(method=method):
                self.make()
                [connection] = self.kept()
                asking = self.ask(method, "/x", body={"id": "7"})
                connection.lose()
                self.assertEqual(self.dials, 2)
                new = self.accept()
                sent = connection.transport.value()
                self.assertEqual(
                    new.transport.value(), sent[sent.index(b"%b /x" % method.encode()) :]
                )
                new.answer(OK)
                self.assertEqual(self.successResultOf(asking).status, 200)
                self.assertEqual(self.reactor.tcpClients[2:], [])

    def test_the_new_one_is_kept_as_well(self) -> None:
        [connection] = self.kept()
        first = self.ask()
        connection.lose()
        new = self.accept()
        new.answer(OK)
        self.successResultOf(first)
        asking = self.ask(path="/x")
        new.answer(OK)
        self.successResultOf(asking)
        self.assertEqual((self.dials, len(new.requests())), (2, 2))

    def test_others_that_are_kept_are_not_tried(self) -> None:
        """If the server closed one kept connection, it has probably closed all of them."""
        kept = self.kept(5)
        asking = self.ask()
        kept[0].lose()
        self.assertEqual([connection.closed for connection in kept[1:]], [True] * 4)
        self.assertEqual(self.dials, 6)
        self.accept().answer(OK)
        self.successResultOf(asking)
        self.assertEqual([len(connection.requests()) for connection in kept], [2, 1, 1, 1, 1])
        for connection in kept[1:]:
            connection.lose()
        self.reactor.advance(89)  # the timeouts of those that are closed are not left over
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_those_that_are_in_use_are_left_alone(self) -> None:
        kept = self.kept(2)
        first, second = self.ask(), self.ask()
        kept[0].lose()
        kept[1].answer(OK)
        self.successResultOf(second)
        self.accept().answer(OK)
        self.successResultOf(first)

    def test_once(self) -> None:
        [connection] = self.kept()
        asking = self.ask()
        connection.lose()
        self.accept().lose()
        self.why(asking)
        self.assertEqual(self.dials, 2)

    def test_never_on_a_connection_that_is_new(self) -> None:
        """A runner that has just accepted the connection may have started a bot."""
        for method in ("GET", "POST"):
            self.make()
            asking = self.ask(method)
            self.accept().lose()
            self.why(asking)
            self.assertEqual(self.dials, 1)

    def test_never_when_a_byte_has_come(self) -> None:
        for data in (b"H", b"HTTP/1.1 200 OK\r\n", ENDLESS):
            with self.subTest(data=data):
                self.make()
                [connection] = self.kept()
                asking = self.ask()
                connection.answer(data)
                connection.lose()
                self.why(asking)
                self.assertEqual(self.dials, 1)

    def test_never_when_it_was_given_up(self) -> None:
        [connection] = self.kept()
        asking = self.ask()
        asking.cancel()
        self.failureResultOf(asking, PeerError, CancelledError)
        connection.lose()
        self.assertEqual(self.dials, 1)

    def test_given_up_while_it_connects_anew(self) -> None:
        [connection] = self.kept()
        asking = self.ask()
        connection.lose()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nobody_listens_any_more(self) -> None:
        [connection] = self.kept()
        asking = self.ask()
        connection.lose()
        factory = self.reactor.tcpClients[1][2]
        factory.clientConnectionFailed(None, Failure(error.ConnectionRefusedError()))
        self.reactor.advance(1)
        self.failureResultOf(asking, PeerRefusedError)

    def test_the_timeout_spans_both(self) -> None:
        self.make(request_timeout=3.0)
        [connection] = self.kept()
        asking = self.ask()
        self.reactor.advance(2)
        connection.lose()
        new = self.accept()
        self.reactor.advance(0.9)
        self.assertNoResult(asking)
        self.reactor.advance(0.2)
        self.assertEqual(self.why(asking), "no complete answer within 3 s")
        self.assertTrue(new.closed)
