"""Which sockets are admitted when runners dial back, seen from the refused client."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol

from pipecat_bridge.net.rate_limit import BURST
from pipecat_bridge.options import WebSocketOptions
from pipecat_bridge.runner.socket.dialback_server import DialbackServer
from tests.doubles.bot import BotDouble
from tests.doubles.bot_socket import DialError
from tests.doubles.link import join
from tests.hostile import plain
from tests.unit.bot_side import CALL, BotSide, BotSideCase, logged, warnings

OTHER = "00000000-0000-4000-8000-000000000000"


class Stranger(Protocol):
    """Sends anything, and keeps what comes back."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data


class DoorCase(BotSideCase):
    def require_token(self) -> None:
        side = self.side
        side.dialback_server = DialbackServer(side.clock, WebSocketOptions(), require_token=True)
        side.dialback_server.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        side.token = side.dialback_server.expect(side.link)

    def knock(self, path: str) -> DialError | None:
        """Dial. Returns the refusal, or None if the socket was admitted."""
        bot = BotDouble(self.side.clock, ready_after=None)
        client = bot.socket(f"ws://127.0.0.1:8001{path}")
        refusals: list[Any] = []
        client.opened.addErrback(lambda failure: refusals.append(failure.value))
        join(self.side.clock, client, self.side.dialback_server.buildProtocol(None))
        self.side.turn()
        return refusals[0] if refusals else None

    def refused(self, path: str, status: int, reason: str) -> None:
        self.side.turn(1.0)  # so that there is a line for each
        before = self.side.dialback_server.refused
        with warnings() as said:
            refusal = self.knock(path)
        assert refusal is not None, f"{path} was let in"
        self.assertEqual(refusal.status, status)
        self.assertIn(reason, str(refusal))
        self.assertEqual(self.side.dialback_server.refused, before + 1)
        self.assertEqual(len(said), 1)
        self.assertIn(reason, said[0])

    def admitted(self, path: str) -> None:
        with warnings() as said:
            self.assertIsNone(self.knock(path))
        self.assertEqual(said, [])


class PageTests(DoorCase):
    """A browser says which page a WebSocket is of."""

    def status(self, host: str, origin: str) -> bytes:
        self.side.dialback_server.own_name = "bridge.example"
        stranger = Stranger()
        near, _ = join(self.side.clock, stranger, self.side.dialback_server.buildProtocol(None))
        request = plain.request(f"ws://{host}/{CALL}/ws").replace(
            b"\r\n\r\n", b"\r\nOrigin: %b\r\n\r\n" % origin.encode()
        )
        near.write(request)
        self.side.turn()
        return stranger.data[9:12]

    def test_of_another_site(self) -> None:
        for host, origin in (
            ("127.0.0.1:8001", "http://evil.example"),
            ("127.0.0.1:8001", "http://127.0.0.1:8002"),
            ("127.0.0.1:8001", "null"),
            ("127.0.0.1:8001", "http://[x"),
            ("evil.example:8001", "http://evil.example:8001"),  # a name that was given our address
        ):
            with self.subTest(host=host, origin=origin):
                self.assertIn(self.status(host, origin), (b"400", b"403"))

    def test_of_this_one(self) -> None:
        for host in ("127.0.0.1:8001", "[::1]:8001", "localhost:8001", "bridge.example"):
            with self.subTest(host=host):
                self.make()
                self.assertEqual(self.status(host, f"http://{host}"), b"101")


class RefusalTests(DoorCase):
    def test_unknown_calls(self) -> None:
        for path in (f"/{OTHER}/ws", "/1/ws", "/%00/ws", f"/{CALL}x/ws?direction=input"):
            with self.subTest(path=path):
                self.refused(path, 404, "no call with this id waits for a bot")

    def test_wrong_paths(self) -> None:
        for path in (
            "/",
            "/ws",
            f"/{CALL}",
            f"/{CALL}/",
            f"/{CALL}/wss",
            f"/ws/{CALL}",
            f"/{CALL}/WS",
            f"/{CALL}/ws/{self.side.token}/more",
            f"/prefix/{CALL}/ws",
        ):
            with self.subTest(path=path):
                self.refused(path, 404, "expected /{call id}/ws")

    def test_wrong_directions(self) -> None:
        for direction in ("both", "in", "Input", "input,output", "%20"):
            with self.subTest(direction=direction):
                path = f"/{CALL}/ws?direction={direction}"
                self.refused(path, 400, "direction must be input or output, or be left out")

    def test_a_wrong_token(self) -> None:
        token = self.side.token
        for given in ("x", token[:-1], token + "x", token.swapcase(), "%E2%98%83", "%ff"):
            with self.subTest(given=given):
                self.refused(f"/{CALL}/ws/{given}", 403, "wrong token")
                self.refused(f"/{CALL}/ws?direction=input&token={given}", 403, "wrong token")

    def test_the_token_of_another_call(self) -> None:
        other = BotSide()
        self.refused(f"/{CALL}/ws/{other.token}", 403, "wrong token")

    def test_a_missing_token_where_one_is_required(self) -> None:
        self.require_token()
        for path in (f"/{CALL}/ws", f"/{CALL}/ws?direction=input", f"/{CALL}/ws?token="):
            self.refused(path, 403, "token missing: dial ws_url as it was given to /run")

    def test_what_may_be_a_token_is_not_logged(self) -> None:
        token = self.side.token
        for path, shown in (
            (f"/{CALL}/ws/{token}x", f"/{CALL}/ws/***"),
            (f"/{OTHER}/ws/{token}?direction=input&token={token}", f"/{OTHER}/ws/***"),
            (f"/{CALL}/{token}", f"/{CALL}/***"),
            (f"//{CALL}/{token}", "/***"),
            (f"/prefix/{CALL}/ws/{token}", f"/prefix/{CALL}/ws/***"),
            ("/%1B%5B2J%0A/ws/%00", "/***/ws/***"),
            (f"/{'x/' * 1000}ws", f"/{'x/' * 99}x"),
        ):
            self.side.turn(1.0)
            with self.subTest(path=path), warnings() as said:
                self.assertIsNotNone(self.knock(path))
            self.assertTrue(said[0].startswith(f"- WebSocket {shown} refused: "), said[0])
            self.assertNotIn(token, said[0])

    def test_a_request_that_is_none_is_logged_on_one_line(self) -> None:
        requests = (b"GET /\x1b[2J\r\n\r\n", b"\x1b[2J / \0 HTTP/9\r\n\r\n", b"\xff\x85\r\n\r\n")
        for request in (*requests, b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * 9000)):
            self.side.turn(1.0)
            stranger = Stranger()
            with self.subTest(request=request[:20]), logged(source="") as said:
                join(self.side.clock, stranger, self.side.dialback_server.buildProtocol(None))
                stranger.transport.write(request)
                self.side.turn()
            [line] = said
            self.assertRegex(line, r"^- WebSocket /(\*\*\*)? refused: 400 \w")
            self.assertTrue(line.isprintable(), line)
            self.assertLess(len(line), 300)
            self.assertTrue(stranger.data.startswith(b"HTTP/1.1 400 "))

    def test_a_request_that_does_not_come(self) -> None:
        door = self.side.dialback_server.buildProtocol(None)
        near, _ = join(self.side.clock, Stranger(), door)
        near.write(b"GET /")
        self.side.turn()
        with logged(source="") as said:
            door.onOpenHandshakeTimeout()
        self.assertEqual(said, ["- WebSocket / refused: 408 no request within 5 s"])
        self.side.turn()
        self.assertEqual(door.state, door.STATE_CLOSED)

    def test_many_are_a_few_lines_and_a_count(self) -> None:
        with warnings() as said:
            for _ in range(100):
                self.assertIsNotNone(self.knock("/"))
            self.assertEqual(len(said), BURST)
            self.side.turn(1.0)
            self.assertIsNotNone(self.knock("/"))
        self.assertIn(f"({100 - BURST} lines like this one were left out before)", said[-1])

    def test_a_refusal_takes_nothing_from_the_call(self) -> None:
        self.refused(f"/{CALL}/ws/x?direction=input", 403, "wrong token")
        self.admitted(f"/{CALL}/ws?direction=input")

    def test_each_direction_once(self) -> None:
        taken = "this direction of the call is connected already"
        for first, seconds in (
            ("?direction=input", ("?direction=input", "", "?direction=")),
            ("?direction=output", ("?direction=output", "")),
            ("", ("", "?direction=input", "?direction=output")),
        ):
            with self.subTest(first=first):
                self.make()
                self.admitted(f"/{CALL}/ws{first}")
                for second in seconds:
                    self.refused(f"/{CALL}/ws{second}", 409, taken)

    def test_a_direction_stays_taken_when_its_socket_is_gone(self) -> None:
        """The call ends with its socket. A bot that connects again would find half a call."""
        side = self.side
        bot = BotDouble(side.clock)
        side.dial(bot, "input")
        bot.close()
        side.turn()
        path = f"/{CALL}/ws?direction=input"
        self.refused(path, 409, "this direction of the call is connected already")

    def test_calls_that_have_ended(self) -> None:
        self.side.dialback_server.forget(self.side.link)
        self.refused(f"/{CALL}/ws/{self.side.token}", 404, "no call with this id waits for a bot")
        self.side.dialback_server.forget(self.side.link)


class AdmissionTests(DoorCase):
    def test_ways_to_write_it(self) -> None:
        for path in (
            f"/{CALL}/ws",
            f"/{CALL}/ws/",
            f"/{CALL}/ws?direction=",
            f"/{CALL}/ws?color=blue",
            f"/{CALL.upper()}/ws",
            f"/{CALL}/ws/{{token}}",
            f"/{CALL}/ws?token={{token}}",
            f"/{CALL}/ws/{{token}}?token={{token}}",
        ):
            with self.subTest(path=path):
                self.make()
                self.admitted(path.format(token=self.side.token))
                self.assertTrue(self.side.link.connected)

    def test_with_a_required_token(self) -> None:
        for way in ("/{token}?direction=input", "?direction=input&token={token}"):
            self.require_token()
            self.admitted(f"/{CALL}/ws" + way.format(token=self.side.token))

    def test_the_token_in_the_path_is_the_one_that_counts(self) -> None:
        self.admitted(f"/{CALL}/ws/{self.side.token}?token=x&direction=input")
        self.refused(f"/{CALL}/ws/x?token={self.side.token}&direction=output", 403, "wrong token")

    def test_tokens_differ_and_are_long(self) -> None:
        tokens = {self.side.dialback_server.expect(self.side.link) for _ in range(100)}
        self.assertEqual((len(tokens), {len(token) for token in tokens}), (100, {22}))

    def test_directions_join_to_one_bot(self) -> None:
        self.admitted(f"/{CALL}/ws?direction=output")
        self.assertEqual(self.side.heard.names, [])
        self.admitted(f"/{CALL}/ws?direction=input")
        self.assertEqual(self.side.heard.names, ["connected"])

    def test_two_calls_do_not_meet(self) -> None:
        side, other = self.side, BotSide()
        other.link.call_id = OTHER
        token = side.dialback_server.expect(other.link)
        self.admitted(f"/{OTHER}/ws/{token}")
        self.assertEqual((side.link.connected, other.link.connected), (False, True))


class RequestTests(DoorCase):
    def answer(self, request: bytes) -> bytes:
        """The answer to a plain TCP client."""

        class Client:
            data = b""

            def makeConnection(self, transport: Any) -> None:
                transport.write(request)

            def dataReceived(self, data: bytes) -> None:
                self.data += data

            def connectionLost(self, reason: Any) -> None:
                self.data += b"|closed"

        client = Client()
        server = self.side.dialback_server.buildProtocol(None)
        join(self.side.clock, client, server)
        self.side.turn()
        return client.data

    def test_a_request_that_is_no_upgrade(self) -> None:
        for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /x HTTP/1.1\r\n\r\n"):
            data = self.answer(request)
            self.assertRegex(data, rb"^HTTP/1.1 4\d\d ")
            self.assertTrue(data.endswith(b"|closed"))
        self.assertFalse(self.side.link.connected)

    def test_an_unusable_key_does_not_use_up_the_url(self) -> None:
        request = (
            f"GET /{CALL}/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n"
        )
        self.assertRegex(self.answer(request.encode()), rb"^HTTP/1.1 400 ")
        self.admitted(f"/{CALL}/ws")
