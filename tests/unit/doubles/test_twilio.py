"""The Twilio bot double is as strict as Twilio's documentation."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio import g711
from tests.doubles.twilio_bot import LEVELS, TwilioBot, to_octets, to_pcm

STREAM = "MZ" + "ab" * 16
CALL = "CA" + "cd" * 16
ACCOUNT = "AC" + "0" * 32
STOP = {"accountSid": ACCOUNT, "callSid": CALL}
SILENCE = b"\xff" * 160


class Socket:
    """What the bot sends."""

    STATE_OPEN = state = 3
    direction = None

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bool]] = []
        self.closed: list[int] = []

    def sendMessage(self, payload: bytes, binary: bool) -> None:
        self.sent.append((payload, binary))

    def sendCloseFrame(self, code: int, reasonUtf8: bytes) -> None:
        self.closed.append(code)

    @property
    def messages(self) -> list[Any]:
        return [json.loads(payload) for payload, binary in self.sent if not binary]


class BotCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self, **options: Any) -> None:
        self.clock = Clock()
        self.bot = TwilioBot(self.clock, **options)
        self.socket = Socket()
        self.bot.socket_opened(self.socket)
        self.number = self.chunk = 0

    def give(self, message: Any, binary: bool = False) -> list[str]:
        """What the bot has to complain about a message."""
        before = len(self.bot.faults)
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.bot.received(self.socket, payload, binary)
        return self.bot.faults[before:]

    def event(self, event: str, content: Any, **other: Any) -> list[str]:
        self.number += 1
        message = {"event": event, "sequenceNumber": str(self.number), "streamSid": STREAM}
        return self.give({**message, event: content, **other})

    def connected(self, **other: Any) -> list[str]:
        return self.give({"event": "connected", "protocol": "Call", "version": "1.0.0", **other})

    def start(self, **other: Any) -> list[str]:
        content = {
            "accountSid": ACCOUNT,
            "streamSid": STREAM,
            "callSid": CALL,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"call_id": "7"},
        }
        return self.event("start", {**content, **other})

    def media(self, octets: bytes = SILENCE, **other: Any) -> list[str]:
        payload = base64.b64encode(octets).decode()
        at = str(self.chunk * 20)
        self.chunk += 1
        content = {"track": "inbound", "chunk": str(self.chunk), "timestamp": at}
        return self.event("media", {**content, "payload": payload, **other})

    def talk(self, **options: Any) -> None:
        self.make(**options)
        self.assertEqual(self.connected() + self.start(), [])


class OrderTests(BotCase):
    def test_a_whole_stream(self) -> None:
        self.talk()
        self.assertEqual((self.bot.call_id, self.bot.ready_sent), ("7", True))
        octets = bytes(range(160))
        self.assertEqual(self.media(octets), [])
        self.assertEqual(self.event("dtmf", {"track": "inbound_track", "digit": "#"}), [])
        self.assertEqual(self.media(), [])
        self.bot.mark("a")
        self.assertEqual(self.event("mark", {"name": "a"}), [])
        self.assertEqual(self.event("stop", STOP), [])
        self.assertEqual(self.bot.octets, octets + SILENCE)
        self.assertEqual(self.bot.pcm(), to_pcm(octets + SILENCE))
        self.assertEqual((self.bot.digits, self.bot.marks), ("#", [(0.0, "a")]))
        order = ["connected", "start", "media", "dtmf", "media", "mark", "stop"]
        self.assertEqual((self.bot.order, self.bot.stopped), (order, True))

    def test_what_comes_in_another_order(self) -> None:
        self.assertIn("the first message 'start': expected 'connected'", self.start()[0])
        self.make()
        self.connected()
        self.assertIn("the second message 'media': expected 'start'", self.media()[0])
        self.talk()
        self.assertIn("connected once more", self.event("connected", {})[0])
        self.assertIn("start once more", self.start()[0])
        self.event("stop", STOP)
        self.assertIn("media after stop", self.media()[0])

    def test_numbers(self) -> None:
        self.talk()
        for number in ("1", "3", 2, "x", None):
            with self.subTest(number=number):
                self.talk()
                fault = self.event("dtmf", {}, sequenceNumber=number)[0]
                self.assertIn(f"sequenceNumber {number!r}: expected '2'", fault)
        self.talk()
        for number in ("0", "2", 1, None):
            self.talk()
            self.assertIn(f"chunk {number!r}: expected '1'", self.media(chunk=number)[0])
        for at in ("20", 0, "-20"):
            self.talk()
            self.assertIn(f"timestamp {at!r}: expected '0'", self.media(timestamp=at)[0])


class ContentTests(BotCase):
    def test_what_is_not_as_twilio_sends_it(self) -> None:
        for fault, send in (
            ("a binary message", lambda: self.give(b"{}", True)),
            ("Expecting value", lambda: self.give(b"nonsense")),
            ("not an object", lambda: self.give([1])),
            ("the event resume, which Twilio does not send", lambda: self.event("resume", {})),
            ("streamSid 'MZ0'", lambda: self.media() + self.event("dtmf", DIGIT, streamSid="MZ0")),
            ("octets of a payload 159", lambda: self.media(SILENCE[1:])),
            ("octets of a payload 161", lambda: self.media(SILENCE + b"\xff")),
            ("not base64", lambda: self.media(payload="*" * 216)),
            ("track 'outbound'", lambda: self.media(track="outbound")),
            ("track 'inbound'", lambda: self.event("dtmf", {**DIGIT, "track": "inbound"})),
            ("mark 'b': expected 'none'", lambda: self.event("mark", {"name": "b"})),
            (
                "callSid 'CA0'",
                lambda: self.event("stop", {"accountSid": ACCOUNT, "callSid": "CA0"}),
            ),
            ("'media'", lambda: self.event("media", {}, media=None)),
        ):
            with self.subTest(fault=fault):
                self.talk()
                self.assertIn(fault.strip("'"), "".join(send()))

    def test_starts_that_are_not(self) -> None:
        for fault, wrong in (
            ("mediaFormat", {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 16000}}),
            ("tracks", {"tracks": ["inbound", "outbound"]}),
            ("callSid CA12: expected CA and 32 hex digits", {"callSid": "CA12"}),
            ("streamSid", {"streamSid": "MZ" + "x" * 31}),
            ("invalid literal", {"accountSid": "AC" + "x" * 32}),
            ("the type of the parameter n", {"customParameters": {"n": 7}}),
        ):
            with self.subTest(fault=fault):
                self.make()
                self.connected()
                self.assertIn(fault, self.start(**wrong)[0])
        self.make()
        self.assertIn("protocol", self.connected(version="0.1")[0])

    def test_marks_come_back_in_their_order(self) -> None:
        self.talk()
        for name in "ab":
            self.bot.mark(name)
        self.assertIn("mark 'b': expected 'a'", self.event("mark", {"name": "b"})[0])


class SendingTests(BotCase):
    def test_media_mark_clear_and_json(self) -> None:
        self.talk()
        self.bot.send_octets(b"\x01\x02")
        self.bot.mark("a")
        self.bot.interrupt()
        self.bot.send_json({"type": "hangup"})
        stream = {"streamSid": STREAM}
        self.assertEqual(
            self.socket.messages,
            [
                {"event": "media", **stream, "media": {"payload": "AQI="}},
                {"event": "mark", **stream, "mark": {"name": "a"}},
                {"event": "clear", **stream},
                {"type": "hangup"},
            ],
        )


class CodecTests(SynchronousTestCase):
    """Its mu-law is its own, and the same as G.711's, which the bridge's is tested against."""

    def test_every_octet(self) -> None:
        octets = bytes(range(256))
        self.assertEqual(to_pcm(octets), g711.decode("ulaw", octets))

    def test_every_sample_to_the_nearest_level(self) -> None:
        samples = np.arange(-32768, 32768)
        got = np.frombuffer(to_pcm(to_octets(samples.astype("<i2").tobytes())), "<i2")
        nearest = np.abs(samples[:, None] - LEVELS[None, :].astype(int)).min(axis=1)
        self.assertTrue((np.abs(samples - got) == nearest).all())

    def test_silence(self) -> None:
        self.assertEqual(to_octets(bytes(4)), b"\xff\xff")


DIGIT = {"track": "inbound_track", "digit": "1"}
