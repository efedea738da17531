"""The bot double is as particular as Pipecat."""

from __future__ import annotations

import io
import json
import struct
import wave
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import protobuf
from tests.doubles.bot import BotDouble, Direction, riff_header
from tests.doubles.link import join, turn

FRAME = protobuf.encode_audio(bytes(range(256)) * 2 + bytes(128), 16000)


class Bridge(WebSocketServerProtocol):
    """The other end: keeps what the bot sent, with times."""

    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[float, bytes, bool]] = []
        self.path = ""
        self.closed: tuple[bool, int | None] | None = None

    def onConnect(self, request: Any) -> None:
        self.path = request.path + "?" + json.dumps(request.params, sort_keys=True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.got.append((self.clock.seconds(), payload, isBinary))

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.closed = (wasClean, code)

    def frames(self, which: str = "audio") -> list[Any]:
        decoded = [protobuf.decode(payload) for _, payload, _ in self.got]
        return [frame.value for frame in decoded if frame.which == which]

    def rtvi(self) -> list[dict[str, Any]]:
        return [json.loads(frame.data) for frame in self.frames("message")]


class BotCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, bot: BotDouble, direction: Direction = None) -> Bridge:
        client = bot.socket("ws://127.0.0.1:8001/7/ws?token=t", direction)
        factory = WebSocketServerFactory("ws://127.0.0.1:8001", reactor=self.clock)
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        server = Bridge()
        server.factory, server.clock = factory, self.clock
        join(self.clock, client, server)
        turn(self.clock, 0.005)
        return server

    def bot(self, **options: Any) -> tuple[BotDouble, Bridge]:
        bot = BotDouble(self.clock, **options)
        return bot, self.connect(bot)

    def ready(self, **options: Any) -> tuple[BotDouble, Bridge]:
        bot, bridge = self.bot(**options)
        self.send(bridge, protobuf.encode_rtvi("client-ready", {"version": "1.0.0"}, "77"))
        bridge.got.clear()
        return bot, bridge

    def send(self, bridge: Bridge, payload: bytes, binary: bool = True) -> None:
        bridge.sendMessage(payload, binary)
        turn(self.clock, 0.005)


class ReadyTests(BotCase):
    def test_client_ready_is_answered_with_bot_ready(self) -> None:
        bot, bridge = self.bot(ready_after=0.5)
        self.send(bridge, protobuf.encode_rtvi("client-ready", {"version": "1.0.0"}, "77"))
        self.assertEqual(bot.messages[0]["type"], "client-ready")
        self.assertEqual(bridge.rtvi(), [])
        turn(self.clock, 0.5)
        [message] = bridge.rtvi()
        self.assertEqual(
            (message["label"], message["type"], message["id"]), ("rtvi-ai", "bot-ready", "77")
        )

    def test_on_two_sockets_it_comes_on_the_output_socket(self) -> None:
        bot = BotDouble(self.clock)
        into = self.connect(bot, "input")
        self.send(into, protobuf.encode_rtvi("client-ready"))
        out = self.connect(bot, "output")
        self.assertEqual((into.got, len(out.rtvi())), ([], 1))
        self.assertEqual(into.path, '/7/ws?{"direction": ["input"], "token": ["t"]}')
        self.assertEqual(out.path, '/7/ws?{"direction": ["output"], "token": ["t"]}')
        self.send(into, FRAME)
        self.assertEqual((len(bot.audio), bot.faults), (1, []))

    def test_audio_before_bot_ready_kills(self) -> None:
        bot, bridge = self.bot(ready_after=0.2)
        self.send(bridge, protobuf.encode_rtvi("client-ready"))
        self.send(bridge, FRAME)
        self.assertEqual(bot.faults, ["audio came before bot-ready was sent"])
        self.assertEqual((bot.audio, bridge.closed), ([], (True, 1011)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bot_without_rtvi_is_killed_by_audio_in_the_first_300_ms(self) -> None:
        for wait, faults in ((0.02, 1), (0.28, 1), (0.31, 0)):
            with self.subTest(wait=wait):
                bot, bridge = self.bot(ready_after=None)
                self.send(bridge, protobuf.encode_rtvi("client-ready"))
                turn(self.clock, wait)
                self.send(bridge, FRAME)
                self.assertEqual((len(bot.faults), len(bot.audio)), (faults, 1 - faults))
                self.assertEqual(bridge.got, [])


class ReceivingTests(BotCase):
    def test_what_it_complains_about(self) -> None:
        complaints = {
            "text message": (b"{}", False),
            "not a protobuf frame": (b"\x12\x7f", True),
            "none of the five": (b"", True),
            "8000 Hz in 1 channels": (protobuf.encode_audio(bytes(320), 8000), True),
            "16000 Hz in 2 channels": (protobuf.encode_audio(bytes(320), 16000, 2), True),
            "639 bytes": (protobuf.encode_audio(bytes(639), 16000), True),
            "0 bytes": (protobuf.encode_audio(b"", 16000), True),
            "not an object": (protobuf.encode("message", data="[1]"), True),
            "Expecting value": (protobuf.encode("message", data="hello"), True),
        }
        bot, bridge = self.ready()
        for complaint, (payload, binary) in complaints.items():
            self.send(bridge, payload, binary)
            self.assertRegex(bot.faults[-1], complaint)
        self.assertEqual(len(bot.faults), len(complaints))

    def test_output_socket_is_for_reading_only(self) -> None:
        bot = BotDouble(self.clock, dies_before=None)
        self.send(self.connect(bot, "output"), FRAME)
        self.assertRegex(bot.faults[0], "output socket")


class SpeakingTests(BotCase):
    pcm = struct.pack("<24000h", *range(-12000, 12000))

    def test_riff_header_is_that_of_a_wav_file(self) -> None:
        with wave.open(io.BytesIO(riff_header(960, 24000, 2) + bytes(960))) as file:
            self.assertEqual(file.getparams()[:4], (2, 2, 24000, 240))

    def test_three_signals_of_barge_in(self) -> None:
        bot, bridge = self.ready()
        for how in ("frame", "rtvi", "flush_media"):
            bot.interrupt(how)
        turn(self.clock, 0.005)
        self.assertEqual(len(bridge.frames("interruption")), 1)
        self.assertEqual(bridge.rtvi()[0]["type"], "bot-interrupted")
        self.assertEqual(bridge.frames("text")[0].text, "FLUSH_MEDIA")


class WireTests(SynchronousTestCase):
    """The frames against bytes written out by hand from the numbers of `pipecat.Frame`."""

    def test_known_bytes(self) -> None:
        cases = {
            protobuf.encode("text", id=1, name="n", text="hi"): "0a090801120 16e1a026869",
            protobuf.encode("message", data="{}"): "22040a027b7d",
            protobuf.encode("interruption", id=3, name="x"): "2a050803120178",
            protobuf.encode(
                "audio", id=2, name="a", audio=b"\x01\x02", sample_rate=16000, num_channels=1, pts=0
            ): "1210 0802 120161 1a020102 20807d 2801 3000",
            protobuf.encode("transcription", text="t", user_id="u", timestamp="s"): (
                "1a09 1a0174 220175 2a0173"
            ),
        }
        for encoded, expected in cases.items():
            self.assertEqual(encoded.hex(), expected.replace(" ", ""))
            self.assertTrue(protobuf.decode(encoded).value.IsInitialized())

    def test_absent_pts_is_told_from_zero(self) -> None:
        without = protobuf.decode(protobuf.encode_audio(b"ab", 8000)).value
        self.assertFalse(without.HasField("pts"))
        self.assertTrue(protobuf.decode(protobuf.encode("audio", pts=0)).value.HasField("pts"))
