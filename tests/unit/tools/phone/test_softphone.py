"""The soft phone against bytes: what it sends and when, and what ends a call."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.microphone import Microphone
from pipecat_bridge.tools.phone.recording import Chunk, Recording
from pipecat_bridge.tools.phone.softphone import Ending, How, SoftPhone
from pipecat_bridge.wire.audiosocket import AUDIO_RATES, AudioSocketMessage, Decoder, Kind, encode

pytestmark = pytest.mark.tools

CALL_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


class TCPTransport(StringTransport):
    """A transport with the one method of TCP's that the phone uses."""

    no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled


class Line:
    """A phone on a transport and a clock of its own."""

    def __init__(self, rate: int = 8000) -> None:
        self.clock = Clock()
        self.microphone = Microphone()
        self.recording = Recording(rate)
        self.ticks: list[float] = []
        self.heard: list[Chunk] = []
        self.phone = SoftPhone(
            CALL_ID,
            self.microphone,
            self.recording,
            self.clock,
            self.clock.seconds,
            self.ticks.append,
            self.heard.append,
        )
        self.transport = TCPTransport()
        self.phone.makeConnection(self.transport)

    def sent(self) -> list[AudioSocketMessage]:
        """The messages sent since the last call."""
        messages = Decoder().feed(self.transport.value())
        self.transport.clear()
        return messages

    def ending(self, reason: Exception | None = None) -> Ending:
        """Close the transport; how the call ended."""
        self.phone.connectionLost(Failure(reason or ConnectionDone()))
        endings: list[Ending] = []
        self.phone.finished.addCallback(endings.append)
        return endings[0]


class SendingTests(SynchronousTestCase):
    def test_uuid_then_first_frame_at_once(self) -> None:
        for kind, rate in AUDIO_RATES.items():
            with self.subTest(rate=rate):
                uuid, audio = Line(rate).sent()
                self.assertEqual(uuid, AudioSocketMessage(Kind.UUID, CALL_ID.bytes))
                self.assertEqual(audio, AudioSocketMessage(kind, bytes(2 * rate // 50)))

    def test_a_frame_every_20_ms(self) -> None:
        line = Line()
        line.sent()
        for _ in range(5):
            line.clock.advance(0.019)
            self.assertEqual(line.sent(), [])
            line.clock.advance(0.001)
            self.assertEqual(len(line.sent()), 1)

    def test_late_wakeups_do_not_add_up(self) -> None:
        line = Line()
        for _ in range(500):  # 2 ms late each time: 10 s are still 500 frames, and the first
            line.clock.advance(0.02)
            line.clock.advance(0.002)
        line.clock.advance(0.001)
        seconds = line.clock.seconds()
        audio = [one for one in line.sent() if one.kind in AUDIO_RATES]
        self.assertEqual(len(audio), int(seconds / 0.02) + 1)

    def test_after_a_stall_all_that_is_due(self) -> None:
        line = Line()
        line.sent()
        line.clock.advance(0.07)
        self.assertEqual(len(line.sent()), 3)
        line.clock.advance(0.01)
        self.assertEqual(len(line.sent()), 1)

    def test_speech_passes_sample_by_sample(self) -> None:
        line = Line()
        speech = np.arange(1, 402, dtype=np.int16)
        utterance = line.microphone.say(speech, "words")
        self.assertTrue(line.microphone.speaking)
        line.clock.advance(0.06)
        audio = b"".join(one.payload for one in line.sent() if one.kind in AUDIO_RATES)
        samples = np.frombuffer(audio, dtype="<i2")
        self.assertEqual((utterance.start, utterance.end), (160, 561))
        np.testing.assert_array_equal(samples[160:561], speech)
        self.assertEqual(int(np.abs(samples).sum()), int(speech.sum()))
        self.assertFalse(line.microphone.speaking)
        np.testing.assert_array_equal(line.recording.timeline().caller, samples)

    def test_messages_are_not_held_back(self) -> None:
        self.assertTrue(Line().transport.no_delay)

    def test_keys(self) -> None:
        line = Line()
        line.sent()
        line.phone.press("#")
        self.assertEqual(line.sent(), [AudioSocketMessage(Kind.DTMF, b"#")])
        with self.assertRaisesRegex(ValueError, "DTMF key 'x' does not exist, expected one of"):
            line.phone.press("x")

    def test_ticks_are_told(self) -> None:
        line = Line()
        line.clock.advance(0.02)
        self.assertEqual(line.ticks, [0.0, 0.02])


class ReceivingTests(SynchronousTestCase):
    def test_audio_of_every_rate_with_its_time(self) -> None:
        line = Line()
        for number, (kind, rate) in enumerate(AUDIO_RATES.items()):
            line.clock.advance(0.01)
            pcm = bytes([number, 0]) * (rate // 50)
            line.phone.dataReceived(encode(kind, pcm))
            self.assertEqual(line.heard[-1], Chunk(line.clock.seconds(), rate, pcm))
        self.assertEqual(line.recording.chunks, line.heard)

    def test_any_split_of_bytes(self) -> None:
        data = encode(0x10, b"\1\0" * 160) + encode(0x10, b"\2\0" * 160)
        for size in (1, 2, 3, 320, 323, 324):
            with self.subTest(size=size):
                line = Line()
                for start in range(0, len(data), size):
                    line.phone.dataReceived(data[start : start + size])
                self.assertEqual([one.pcm[:1] for one in line.heard], [b"\1", b"\2"])

    def test_what_asterisk_does_not_take_ends_the_call(self) -> None:
        cases = [
            (encode(Kind.UUID, CALL_ID.bytes), "kind 0x01 from a server"),
            (encode(Kind.DTMF, b"1"), "kind 0x03 from a server"),
            (encode(Kind.ERROR, b"\1"), "an AudioSocket error (kind 0xff)"),
            (encode(0x10), "0 bytes of audio"),
            (encode(0x10, b"abc"), "3 bytes of audio"),
        ]
        for data, words in cases:
            with self.subTest(words=words):
                line = Line()
                good = encode(0x10, b"\1\0")
                line.phone.dataReceived(good + data + good)
                self.assertEqual(len(line.heard), 1)
                self.assertTrue(line.transport.disconnecting)
                ending = line.ending()
                self.assertEqual(ending.how, How.FAULT)
                self.assertIn(words, ending.detail)

    def test_so_does_what_is_no_message_of_audiosockets(self) -> None:
        line = Line()
        line.phone.dataReceived(encode(0x10, b"\1\0") + encode(0x42, b"ab"))
        self.assertEqual(len(line.heard), 1)
        self.assertTrue(line.transport.disconnecting)
        ending = line.ending()
        self.assertEqual(ending.how, How.FAULT)
        self.assertEqual(ending.detail, "kind 0x42 with a length of 2 ends a call in Asterisk")


class EndingTests(SynchronousTestCase):
    def test_hangup_by_the_peer(self) -> None:
        line = Line()
        line.clock.advance(1.0)
        line.phone.dataReceived(encode(Kind.HANGUP))
        line.sent()
        line.clock.advance(1.0)
        self.assertEqual(line.sent(), [])
        self.assertEqual(line.ending(), Ending(How.PEER_HUNG_UP, 1.0))
        self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_hangup_by_the_caller_is_a_plain_close(self) -> None:
        line = Line()
        line.sent()
        line.phone.hang_up()
        self.assertEqual(line.transport.value(), b"")
        self.assertTrue(line.transport.disconnecting)
        line.phone.press("1")
        self.assertEqual(line.transport.value(), b"")
        self.assertEqual(line.ending().how, How.WE_HUNG_UP)

    def test_hung_up_before_the_connection(self) -> None:
        phone = SoftPhone(CALL_ID, Microphone(), Recording(8000), Clock(), lambda: 0.0)
        phone.hang_up()
        transport = TCPTransport()
        phone.makeConnection(transport)
        self.assertEqual((transport.value(), transport.disconnecting), (b"", True))

    def test_closed_and_lost(self) -> None:
        for reason, how in (
            (ConnectionDone(), How.PEER_CLOSED),
            (ConnectionLost("reset"), How.LOST),
        ):
            with self.subTest(how=how):
                line = Line()
                self.assertEqual(line.ending(reason).how, how)
                self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_first_cause_counts(self) -> None:
        line = Line()
        line.phone.dataReceived(encode(Kind.HANGUP))
        line.phone.hang_up()
        self.assertEqual(line.ending(ConnectionLost("reset")).how, How.PEER_HUNG_UP)


class MicrophoneTests(SynchronousTestCase):
    def test_room_noise_is_quiet_steady_and_the_same_each_time(self) -> None:
        first, second = Microphone(noise=20.0), Microphone(noise=20.0)
        noise = first.read(8000)
        np.testing.assert_array_equal(noise, second.read(8000))
        self.assertLess(abs(float(noise.astype(float).std()) - 20.0), 1.0)

    def test_loud_speech_with_noise_saturates(self) -> None:
        microphone = Microphone(noise=300.0)
        microphone.say(np.full(1000, 32767, dtype=np.int16))
        self.assertGreater(int(microphone.read(1000).min()), 30000)

    def test_utterances_follow_each_other(self) -> None:
        microphone = Microphone()
        microphone.read(100)
        microphone.say(np.ones(50, dtype=np.int16))
        second = microphone.say(np.ones(50, dtype=np.int16))
        self.assertEqual((second.start, second.end), (150, 200))
