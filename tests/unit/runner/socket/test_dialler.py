"""The WebSocket client in memory: the opening handshake in every shape, and the end of the bot."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio import g711
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.errors import PeerBusyError, PeerError
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.options import CallerAudioOptions, WebSocketOptions
from pipecat_bridge.runner.link.early import Early
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.socket.dialler import Dialler
from pipecat_bridge.runner.socket.protocol import MAX_HANDSHAKE
from pipecat_bridge.runner.socket.target import Target
from pipecat_bridge.wire.dialect import Dialect
from pipecat_bridge.wire.pipecat import PipecatDialect
from pipecat_bridge.wire.twilio import TwilioDialect
from tests.doubles import protobuf
from tests.doubles.bot import BotDouble
from tests.doubles.bot_socket import ServedBotSocket, WebSocketBot
from tests.doubles.link import LinkTransport, join, turn
from tests.doubles.twilio_bot import TwilioBot
from tests.unit.bot_side import CALL, Heard, logged, numbered, numbers

URL = "ws://bots.example:7860/ws-client"
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GONE = "closed before it was open"
TLS = "(does the port expect wss://?)"
REFUSED = "HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n"


class Server(Protocol):
    """A server without a library. `request`: the handshake. `data`: what came after it."""

    def __init__(self) -> None:
        self.request = b""
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        if b"\r\n\r\n" in self.request:
            self.data += data
        else:
            self.request += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    @property
    def head(self) -> list[str]:
        """The lines of the request."""
        return self.request.decode().split("\r\n")

    def accepting(self, *more: str) -> bytes:
        """The answer that opens the WebSocket."""
        found = re.search(rb"Sec-WebSocket-Key: (\S+)\r\n", self.request)
        assert found is not None
        accept = base64.b64encode(hashlib.sha1(found[1] + MAGIC).digest()).decode()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
            *more,
        ]
        return "\r\n".join([*lines, "", ""]).encode()


def frame(payload: bytes, opcode: int) -> bytes:
    """A final frame from a server."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload


class Endpoint:
    """Connects to `server` in memory, at once, or when `accept` is called."""

    def __init__(self, clock: Clock, server: Any, waits: bool = False) -> None:
        self.clock = clock
        self.server = server
        self.waits = waits
        self.transports: list[LinkTransport] = []
        self._connecting: Deferred[Any] = Deferred()
        self._factory: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        # Autobahn's timers would run on the global reactor.
        factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0
        )
        self._factory = factory
        if not self.waits:
            self.accept()
        return self._connecting

    def accept(self) -> None:
        client = self._factory.buildProtocol(None)
        near, far = join(self.clock, client, self.server)
        self.transports = [near, far]
        self._connecting.callback(client)


class DialCase(SynchronousTestCase):
    """Dials `server`. `result`: the outcome of the dial. `heard`: what the link reported."""

    redact = Redaction()

    def setUp(self) -> None:
        self.make()

    def make(self, dialect: Dialect | None = None, server: Any = None, waits: bool = False) -> None:
        self.clock = Clock()
        self.heard = Heard()
        self.server: Any = server(self.clock) if server else Server()
        self.endpoint = Endpoint(self.clock, self.server, waits)
        self.asked: list[tuple[str, int, bool]] = []
        self.playout = Playout(prebuffer=0.0, max_queue=60.0)
        self.link = BotLink(
            CALL,
            self.clock,
            self.playout,
            self.heard,
            self.heard,
            dialect or PipecatDialect(16000, "0", metadata={"id": CALL}, disconnects=True),
            CallerAudioOptions(),
            Early(0.5),
            1.0,
            self.clock.seconds,
            0.5,
        )

    def connect(self, host: str, port: int, secure: bool) -> Any:
        self.asked.append((host, port, secure))
        return self.endpoint

    def dial(
        self, url: str = URL, headers: dict[str, str] | None = None, **options: str
    ) -> Deferred[None]:
        dialler = Dialler(self.clock, WebSocketOptions(), self.connect, **options)
        target = Target(url, headers or {}, self.redact)
        self.result = Deferred.fromCoroutine(dialler.dial(target, self.link))
        self.turn()
        return self.result

    def turn(self, seconds: float = 0.005) -> None:
        turn(self.clock, seconds)

    def answer(self, *pieces: bytes) -> None:
        """The server sends pieces, each in its own turn of the loop."""
        for piece in pieces:
            if self.server.transport is not None:
                self.server.transport.write(piece)
            self.turn(0.003)

    def why(self, kind: type[PeerError] = PeerError) -> str:
        """The error text of a dial that failed. Checks that nothing is left."""
        error = self.failureResultOf(self.result, PeerError).value
        self.assertIs(type(error), kind)
        self.assertEqual(self.heard.names, [])
        self.assertTrue(self.server.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.busy = getattr(error, "seconds", None)
        return str(error)


class RequestTests(DialCase):
    def header(self, name: str) -> list[str]:
        lines = [line.partition(": ") for line in self.server.head[1:]]
        return [value for key, _, value in lines if key.lower() == name.lower()]

    def test_where_it_connects_to(self) -> None:
        for url, at, host in (
            (URL, ("bots.example", 7860, False), "bots.example:7860"),
            ("wss://bots.example:443/x", ("bots.example", 443, True), "bots.example:443"),
            ("ws://[::1]:80/x", ("::1", 80, False), "[::1]:80"),
        ):
            with self.subTest(url=url):
                self.make()
                self.dial(url)
                self.assertEqual(self.asked, [at])
                self.assertEqual(self.header("Host"), [host])

    def test_what_it_asks_for(self) -> None:
        self.dial(URL + "/a%2Fb?token=c%2Bd&x=1")
        self.assertEqual(self.server.head[0], "GET /ws-client/a%2Fb?token=c%2Bd&x=1 HTTP/1.1")
        self.assertEqual(self.header("Sec-WebSocket-Version"), ["13"])
        for absent in ("Authorization", "Origin", "Sec-WebSocket-Protocol"):
            self.assertEqual(self.header(absent), [])
        self.assertEqual(self.header("Sec-WebSocket-Extensions"), [], "no compression")
        self.assertRegex(self.header("User-Agent")[0], "^pipecat-bridge/")

    def test_headers_origin_and_subprotocol(self) -> None:
        headers = {"Authorization": "Bearer tok-1", "X-Region": "eu"}
        self.dial(headers=headers, origin="https://phones.example", subprotocol="rtvi")
        self.assertEqual(self.header("Authorization"), ["Bearer tok-1"])
        self.assertEqual(self.header("X-Region"), ["eu"])
        self.assertEqual(self.header("Origin"), ["https://phones.example"])
        self.assertEqual(self.header("Sec-WebSocket-Protocol"), ["rtvi"])


class OpeningTests(DialCase):
    """The answer is split anywhere, and the bot's first messages follow at once."""

    def opened(self) -> None:
        self.assertIsNone(self.successResultOf(self.result))
        self.assertEqual(self.heard.names, ["connected", "ready"])
        self.assertEqual(self.playout.depth, 0.02)
        self.assertEqual(self.link.from_bot.stats.bad_frames, 0)

    def messages(self) -> bytes:
        ready, audio = protobuf.encode_rtvi("bot-ready"), protobuf.encode_audio(bytes(640), 16000)
        return frame(ready, 2) + frame(audio, 2)

    def check_split(self, at: int | slice) -> int:
        self.make()
        self.dial()
        self.assertNoResult(self.result)
        whole = self.server.accepting() + self.messages()
        if isinstance(at, int):
            self.answer(whole[:at], whole[at:])
        else:
            self.answer(*(whole[start : start + 1] for start in range(len(whole))))
        self.opened()
        return len(whole)

    def test_in_one_piece(self) -> None:
        self.check_split(0)

    def test_split_at_every_byte(self) -> None:
        size = self.check_split(1)
        for at in range(2, size):
            with self.subTest(at=at):
                self.check_split(at)

    def test_byte_by_byte(self) -> None:
        self.check_split(slice(None))

    def test_text_messages_right_behind(self) -> None:
        media = b'{"event": "media", "media": {"payload": "' + b"/" * 212 + b"//8="
        message = frame(media + b'"}}', 1)
        for at in (0, 60, -150, -1):
            with self.subTest(at=at):
                self.make(twilio())
                self.dial()
                whole = self.server.accepting() + message
                self.answer(whole[:at], whole[at:])
                self.opened()

    def test_frames_after_it_pass_autobahn_by(self) -> None:
        """A frame through Autobahn takes ten times as long."""
        self.dial()
        self.answer(self.server.accepting(), self.messages())
        self.opened()
        near: Any = self.endpoint.transports[0].protocol
        near.onMessage = lambda *_: self.fail("came by way of Autobahn")
        near._dataReceived = near.onMessage
        audio = frame(protobuf.encode_audio(bytes(640), 16000), 2)
        self.answer(audio + audio[:7], audio[7:] + frame(b"", 0xA))
        self.assertAlmostEqual(self.playout.depth, 0.06)

    def test_headers_in_other_spellings(self) -> None:
        self.dial()
        answer = self.server.accepting("X-Served-By: \xe9").decode()
        answer = answer.replace("Upgrade: websocket", "UPGRADE:WebSocket")
        answer = answer.replace("Connection: Upgrade", "connection: keep-alive, upgrade")
        self.answer(answer.encode() + self.messages())
        self.opened()

    def test_what_it_sends_first(self) -> None:
        self.dial()
        self.answer(self.server.accepting())
        self.assertEqual(self.server.data[0], 0x82)
        self.assertTrue(self.server.data[1] & 0x80, "masked")

    def test_a_burst_behind_a_split_answer_is_no_part_of_it(self) -> None:
        self.dial()
        audio = frame(protobuf.encode_audio(bytes(640), 16000), 2)
        whole = self.server.accepting() + audio * (4 * MAX_HANDSHAKE // len(audio) + 1)
        self.answer(whole[:100], whole[100:])
        self.assertIsNone(self.successResultOf(self.result))
        self.turn(0.05)
        self.assertGreater(self.playout.depth, 1.9)

    def test_a_header_just_within_the_limit(self) -> None:
        self.dial()
        short = len(self.server.accepting("X-Pad: "))
        self.answer(self.server.accepting("X-Pad: " + "x" * (MAX_HANDSHAKE - short)))
        self.assertIsNone(self.successResultOf(self.result))


class RefusalTests(DialCase):
    def refused(self, answer: str | Callable[[bytes], bytes], *expected: str) -> None:
        """Any split of the answer gives the same error text, one of `expected`."""
        for at in (0, 1, 12, 30, -3, -1):
            self.make()
            self.dial()
            accepting = self.server.accepting()
            data = answer(accepting) if callable(answer) else answer.encode("latin-1")
            with self.subTest(data=data, at=at):
                self.answer(data[:at], data[at:])
                self.assertIn(self.why(), expected)

    def test_statuses(self) -> None:
        for status, named in (
            ("403 Forbidden", "403 Forbidden"),
            ("401 bad token tok-1", "401 Unauthorized"),
            ("302 Found", "302 Found"),
            ("200 OK", "200 OK"),
            ("404", "404 Not Found"),
            ("599 what", "599"),
        ):
            answer = REFUSED.format(status)
            self.refused(answer, f"the opening handshake was answered with {named}")

    def test_no_redirect_is_followed(self) -> None:
        self.dial()
        location = b"ws://me:pw@bots.example:7860/other?token=x"
        self.answer(b"HTTP/1.1 302 Found\r\nLocation: %b\r\n\r\n" % location)
        self.assertEqual(len(self.asked), 1)
        where = "ws://***@bots.example:7860/other?***"
        self.assertIn(f"302 Found, a redirect to {where}, which is not followed", self.why())

    def test_busy_ones(self) -> None:
        for status, name in (("503", "Service Unavailable"), ("429", "Too Many Requests")):
            for header, seconds in (
                ("Retry-After: 7\r\n", 7.0),
                ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", None),
                ("Retry-After: -1\r\n", None),
                ("", None),
            ):
                with self.subTest(status=status, header=header):
                    self.make()
                    self.dial()
                    self.answer(f"HTTP/1.1 {status} x\r\n{header}\r\n".encode())
                    expected = f"the opening handshake was answered with {status} {name}"
                    self.assertEqual(self.why(PeerBusyError), expected)
                    self.assertEqual(self.busy, seconds)

    def test_what_is_no_answer_to_a_handshake(self) -> None:
        accept = "HTTP Sec-WebSocket-Accept header missing in opening handshake reply"
        self.refused(lambda good: re.sub(rb"Sec-.*?\r\n", b"", good), accept)
        self.refused(
            lambda good: re.sub(rb"Upgrade: .*?\r\n", b"", good), "HTTP Upgrade header missing"
        )
        self.refused(
            lambda good: re.sub(rb"Connection: .*?\r\n", b"", good),
            "HTTP Connection header missing",
        )

    def test_a_wrong_accept(self) -> None:
        self.dial()
        self.answer(re.sub(rb"Accept: .", b"Accept: *", self.server.accepting()))
        self.assertIn("HTTP Sec-WebSocket-Accept bogus value", self.why())

    def test_other_protocols(self) -> None:
        for data, expected in (
            (b"220 mail.example.com ESMTP\r\n\r\n", 'Unsupported HTTP version "220"'),
            (b"\r\n\r\n", "Bad HTTP response status line"),
            (b"HTTP/2 200\r\n\r\n", 'Unsupported HTTP version "HTTP/2"'),
            (b"HTTP/1.1 abc\r\n\r\n", 'Bad HTTP status code "abc"'),
            (b"HTTP/1.1 400 \xff\xfe\r\n\r\n", "is not in UTF-8"),
            (bytes(range(256)) + b"\r\n\r\n", "is not in UTF-8"),
        ):
            with self.subTest(data=data):
                self.make()
                self.dial()
                self.answer(data)
                self.assertIn(expected, self.why())

    def test_what_nobody_asked_for(self) -> None:
        for header, expected in (
            ("Sec-WebSocket-Protocol: soap", 'subprotocol selected by server "soap"'),
            ("Sec-WebSocket-Extensions: permessage-deflate", "denied by client"),
            ("Sec-WebSocket-Extensions: x-telepathy", 'extension "x-telepathy"'),
        ):
            with self.subTest(header=header):
                self.make()
                self.dial()
                self.answer(self.server.accepting(header))
                self.assertIn(expected, self.why())

    def test_an_answer_without_end(self) -> None:
        self.dial()
        self.answer(b"HTTP/1.1 101 Switching Protocols\r\n")
        line = b"X-More: " + b"x" * 1014 + b"\r\n"
        for _ in range(MAX_HANDSHAKE // len(line) - 1):
            self.answer(line)
        self.assertNoResult(self.result)
        self.answer(line)
        self.assertEqual(self.why(), f"an answer of more than {MAX_HANDSHAKE} bytes")

    def test_a_connection_that_ends_within_the_answer(self) -> None:
        for at in (0, 1, 40, 90, -1):
            for end in ("loseConnection", "abortConnection"):
                with self.subTest(at=at, end=end):
                    self.make()
                    self.dial()
                    self.server.transport.write(self.server.accepting()[:at])
                    getattr(self.server.transport, end)()
                    self.turn()
                    silent = not at or end == "abortConnection"
                    self.assertEqual(self.why(), f"{GONE} {TLS}" if silent else GONE)

    def test_nothing_is_logged_twice(self) -> None:
        """The sentence is told with the call; it may repeat what the peer was sent."""
        with logged(source="") as said:
            self.dial(headers={"Authorization": "Bearer tok-1"})
            self.answer(b"HTTP/1.1 401 no tok-1 here\r\n\r\n")
            self.assertNotIn("tok-1", self.why())
        self.assertEqual(said, [])

    def test_an_endpoint_that_fails(self) -> None:
        self.make(waits=True)
        self.dial()
        self.endpoint._connecting.errback(ConnectionRefusedError("Connection refused"))
        error = self.failureResultOf(self.result, PeerError).value
        self.assertEqual(str(error), "Connection refused")


class SubprotocolTests(DialCase):
    def test_one_that_is_agreed_on(self) -> None:
        self.dial(subprotocol="rtvi")
        self.answer(self.server.accepting("Sec-WebSocket-Protocol: rtvi"))
        self.assertIsNone(self.successResultOf(self.result))
        self.assertEqual(self.heard.names, ["connected"])

    def test_one_that_the_bot_passes_over(self) -> None:
        self.dial(subprotocol="rtvi")
        self.answer(self.server.accepting())
        error = self.failureResultOf(self.result, PeerError).value
        self.assertEqual(str(error), "the bot does not speak the subprotocol 'rtvi'")
        self.assertEqual(self.heard.names, [])
        self.assertEqual(self.server.data[0], 0x88, "a close frame")
        self.server.transport.loseConnection()
        self.turn()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class GivingUpTests(DialCase):
    def given_up(self) -> None:
        self.result.cancel()
        self.turn()
        self.failureResultOf(self.result, CancelledError)

    def test_within_the_handshake(self) -> None:
        with logged(source="") as said:
            for at in (0, 1, 60, -1):
                self.make()
                self.dial()
                self.answer(self.server.accepting()[:at])
                self.given_up()
                self.assertTrue(self.server.lost)
                self.assertEqual(self.heard.names, [])
                self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(said, [])

    def test_an_answer_that_is_on_its_way(self) -> None:
        self.dial()
        self.server.transport.write(self.server.accepting())
        self.given_up()
        self.assertTrue(self.server.lost)
        self.assertEqual((self.heard.names, self.link.connected), ([], False))

    def test_while_it_connects(self) -> None:
        """Twisted's endpoints have their own error for a cancelled connection."""
        self.make(waits=True)
        self.endpoint._connecting = Deferred(
            lambda each: each.errback(ConnectingCancelledError(None))
        )
        self.dial()
        self.given_up()

    def test_a_connection_that_comes_all_the_same(self) -> None:
        """From an endpoint that cannot be stopped: never two bots for one call."""
        self.make(waits=True)
        self.dial()
        self.given_up()
        self.endpoint.accept()
        self.turn()
        self.answer(self.server.accepting())
        self.assertEqual((self.heard.names, self.link.connected), ([], False))
        self.assertEqual(self.server.data[0], 0x88, "a close frame")


class EndTests(DialCase):
    """With the bot's double behind Autobahn's server."""

    def talk(self, twilio_bot: bool = False, **options: Any) -> Any:
        """A bot that has been dialled, and is ready."""

        def server(clock: Clock) -> ServedBotSocket:
            kind = TwilioBot if twilio_bot else BotDouble
            return served(kind(clock, **options), clock)

        self.make(twilio() if twilio_bot else None, server)
        self.dial()
        self.turn(0.02)
        bot = self.server.bot
        bot.burst(*((constant(70),) if twilio_bot else (constant(70), 16000)))
        self.turn()
        self.assertEqual(self.heard.names, ["connected", "ready"])
        self.playout.flush()
        return bot

    def test_frames_both_ways(self) -> None:
        bot = self.talk(echo=True)
        for number in range(50):
            self.link.send_audio(numbered(number), 16000)
            self.turn(0.02)
        self.assertEqual(numbers(bot), list(range(50)))
        self.assertAlmostEqual(self.playout.depth, 1.0)
        self.assertEqual(
            [each["type"] for each in bot.messages], ["client-ready", "client-message"]
        )
        self.assertEqual((bot.told, bot.faults), ({"id": CALL}, []))

    def test_frames_of_twilio_both_ways(self) -> None:
        bot = self.talk(twilio_bot=True, echo=True)
        for _ in range(50):
            self.link.send_audio(bytes(640), 16000)
            self.turn(0.02)
        self.assertEqual(len(bot.audio), 50)
        self.assertAlmostEqual(self.playout.depth, 1.0)
        self.assertEqual(bot.faults, [])

    def test_the_bot_closes(self) -> None:
        bot = self.talk()
        bot.close()
        self.turn()
        self.assertEqual(self.heard.names[2:], ["ended"])
        self.assertEqual([how.clean for how in bot.closes], [True])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_bot_closes_and_leaves_the_connection_open(self) -> None:
        """The caller would hear silence for as long as the bot likes."""
        bot = self.talk(drops_tcp=False)
        bot.close()
        self.turn(0.9)
        self.assertEqual(self.heard.names[2:], [])
        self.turn(0.2)
        self.assertEqual(self.heard.names[2:], ["ended"])
        self.assertEqual((bot.sockets, self.clock.getDelayedCalls()), ({}, []))

    def test_the_bot_closes_with_a_fault(self) -> None:
        bot = self.talk(drops_tcp=False)
        bot.close(1011, "out of memory")
        self.turn(1.1)
        self.assertEqual(self.heard.names[2:], ["lost"])
        self.assertEqual(self.heard.reasons, ["the bot's WebSocket closed: out of memory (1011)"])

    def test_the_bot_closes_with_a_secret(self) -> None:
        self.redact = Redaction(["sk-s3cret"])
        bot = self.talk()
        bot.close(1011, "wrong key sk-s3cret\x1b[2J")
        self.turn(1.1)
        reason = r"the bot's WebSocket closed: wrong key ***\x1b[2J (1011)"
        self.assertEqual(self.heard.reasons, [reason])

    def test_the_bot_dies(self) -> None:
        bot = self.talk()
        bot.die()
        self.turn()
        self.assertEqual(self.heard.names[2:], ["lost"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_call_ends(self) -> None:
        for twilio_bot in (False, True):
            bot = self.talk(twilio_bot)
            self.link.close()
            self.turn(0.4)
            self.assertEqual(len(bot.sockets), 1, "within the grace")
            self.turn(0.2)
            self.assertEqual([how.clean for how in bot.closes], [True])
            asked = bot.stopped if twilio_bot else bot.messages[-1]["type"] == "disconnect-bot"
            self.assertTrue(asked)
            self.assertEqual(self.heard.names, ["connected", "ready"])
            self.assertEqual((bot.faults, self.clock.getDelayedCalls()), ([], []))

    def test_the_call_ends_and_the_bot_closes_by_itself(self) -> None:
        for twilio_bot in (False, True):
            bot = self.talk(twilio_bot, leaves_after=0.1)
            self.link.close()
            self.turn(0.2)
            self.assertEqual([how.clean for how in bot.closes], [True])
            self.assertEqual(self.heard.names, ["connected", "ready"])
            self.assertEqual((bot.faults, self.clock.getDelayedCalls()), ([], []))


def constant(value: int) -> bytes:
    """20 ms at 8 kHz that are not silence."""
    return value.to_bytes(2, "little") * 160


def twilio() -> TwilioDialect:
    return TwilioDialect(
        CALL,
        {},
        {},
        0,
        encode=lambda pcm: g711.encode("ulaw", pcm),
        decode=lambda octets: g711.decode("ulaw", octets),
    )


def served(bot: WebSocketBot, clock: Clock) -> ServedBotSocket:
    factory = WebSocketServerFactory(reactor=clock)
    factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
    socket = ServedBotSocket(bot)
    socket.factory = factory
    return socket
