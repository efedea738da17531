"""The strict Asterisk is strict where Asterisk is, and nowhere else."""

from __future__ import annotations

import struct
from itertools import islice, repeat
from typing import Any
from uuid import UUID

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles.asterisk import HUNG_UP, JITTER, RATES, StrictAsterisk
from tests.doubles.far_end import FarEnd
from tests.doubles.link import LinkTransport, join, turn

CALL_ID = UUID("11112222-3333-4444-5555-666677778888")
HANGUP = b"\x00\x00\x00"


def message(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


FRAME = message(0x10, bytes(range(160)) * 2)


class Server(Protocol):
    """The other end: keeps what came, and says what it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.received: list[tuple[float, bytes]] = []
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append((self.clock.seconds(), data))

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.received)


class LinkedCase(SynchronousTestCase):
    """A strict Asterisk and a server that does what the test says, on a turned clock."""

    def call(self, **options: Any) -> StrictAsterisk:
        self.clock = Clock()
        self.server = Server(self.clock)
        asterisk = StrictAsterisk(self.clock, call_id=CALL_ID, **options)
        _, far = join(self.clock, asterisk, self.server)
        self.transport: LinkTransport = far
        turn(self.clock, 0.001)
        return asterisk

    def say(self, *parts: bytes, gap: float = 0.0) -> None:
        for part in parts:
            self.transport.write(part)
            turn(self.clock, max(gap, 0.001))

    def assert_ended(self, asterisk: StrictAsterisk, fault: str) -> None:
        self.assertEqual(len(asterisk.faults), 1, asterisk.faults)
        self.assertRegex(asterisk.faults[0], fault)
        self.assertEqual(asterisk.ended, asterisk.faults[0])
        turn(self.clock, 0.01)
        self.assertIsNotNone(self.server.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assert_lives(self, asterisk: StrictAsterisk) -> None:
        self.assertEqual(asterisk.faults, [])
        self.assertIsNone(asterisk.ended)


class RuleTests(LinkedCase):
    def test_forbidden_kinds_end_the_call(self) -> None:
        for kind in set(range(1, 255)) - set(RATES):
            with self.subTest(kind=kind):
                asterisk = self.call()
                self.say(message(kind, b"x"))
                self.assert_ended(asterisk, f"kind 0x{kind:02x} is neither")

    def test_an_error_hangs_the_channel_up(self) -> None:
        for release in ("18.26", "22.10"):
            for error in (message(0xFF, b""), message(0xFF, b"\0")):
                asterisk = self.call(release=release)
                self.say(FRAME + error + FRAME)
                self.assertEqual(asterisk.ended, HUNG_UP)
                self.assertEqual((asterisk.faults, asterisk.hangup_received), ([], False))
                self.assertEqual(len(asterisk.frames), 1)
                self.assertEqual(asterisk.bytes_after_end, len(FRAME))

    def test_every_audio_kind_decides_its_rate(self) -> None:
        asterisk = self.call()
        for kind in RATES:
            self.say(message(kind, b"ab"))
        self.assert_lives(asterisk)
        self.assertEqual([frame.rate for frame in asterisk.frames], list(RATES.values()))
        self.assertEqual(asterisk.pcm(44100), b"ab")
        self.assertRaises(ValueError, asterisk.pcm)

    def test_length_zero_ends_the_call(self) -> None:
        for kind in RATES:
            asterisk = self.call()
            self.say(message(kind, b""))
            self.assert_ended(asterisk, "length 0")

    def test_gap_inside_a_payload(self) -> None:
        for cut in (3, 4, 100, 322):  # 3: between header and payload
            with self.subTest(cut=cut):
                asterisk = self.call()
                self.say(FRAME[:cut], FRAME[cut:], gap=0.003)
                self.assert_lives(asterisk)
                self.assertEqual(asterisk.pcm(), FRAME[3:])
                self.say(FRAME[:cut], FRAME[cut:], gap=0.05)
                self.assert_ended(asterisk, "gap of more than 5 ms")

    def test_the_gap_counts_from_the_last_byte(self) -> None:
        asterisk = self.call()
        self.say(*(FRAME[start : start + 40] for start in range(0, 323, 40)), gap=0.004)
        self.assert_lives(asterisk)
        self.assertEqual(asterisk.pcm(), FRAME[3:])

    def test_whole_messages_may_be_far_apart(self) -> None:
        asterisk = self.call()
        self.say(FRAME, FRAME, gap=5.0)
        self.assert_lives(asterisk)

    def test_header_in_two_pieces_breaks_old_releases(self) -> None:
        for release in ("18.26", "20.18", "22.8"):
            for cut in (1, 2):
                with self.subTest(release=release, cut=cut):
                    asterisk = self.call(release=release)
                    self.say(FRAME[:cut], FRAME[cut:])
                    self.assert_ended(asterisk, "header came in two pieces")

    def test_header_in_two_pieces_on_new_releases(self) -> None:
        for release in ("20.19", "22.9", "23.1"):
            asterisk = self.call(release=release)
            self.say(FRAME[:2], FRAME[2:], gap=0.003)
            self.assert_lives(asterisk)
            self.say(FRAME[:2], gap=0.05)
            self.assertTrue(asterisk.blocked)
            self.assertIsNone(asterisk.ended)
            self.assertRegex(asterisk.faults[0], "Asterisk blocks")
            self.say(FRAME[2:])
            self.assertFalse(asterisk.blocked)
            self.assertEqual(len(asterisk.frames), 2)

    def test_close_without_hangup_is_a_fault(self) -> None:
        asterisk = self.call()
        self.say(FRAME)
        self.transport.loseConnection()
        self.assertNoResult(asterisk.lost)
        self.clock.advance(0)
        self.assert_ended(asterisk, "closed without 00 0000")
        self.successResultOf(asterisk.lost)

    def test_close_inside_a_message_is_named(self) -> None:
        asterisk = self.call()
        self.transport.write(FRAME[:50])
        self.transport.loseConnection()
        self.clock.advance(0)
        self.assert_ended(asterisk, "closed in the middle of a message")

    def test_reset_by_the_server_is_a_fault(self) -> None:
        asterisk = self.call()
        self.transport.abortConnection()
        self.clock.advance(0)
        self.assert_ended(asterisk, "reset by peer")

    def test_hangup_is_clean(self) -> None:
        asterisk = self.call()
        self.say(FRAME + HANGUP + b"more")
        self.assertTrue(asterisk.hangup_received)
        self.assertEqual(asterisk.ended, "hangup received")
        self.assertEqual((asterisk.faults, len(asterisk.frames)), ([], 1))
        self.assertEqual(asterisk.bytes_after_end, 4)
        turn(self.clock, 0.01)
        self.assertIsInstance(self.server.lost.value, ConnectionDone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_application_ends_after_two_seconds_of_nothing(self) -> None:
        asterisk = self.call(driver="application")
        turn(self.clock, 1.9)
        asterisk.send_audio(bytes(320))
        turn(self.clock, 1.9)
        self.say(FRAME)
        turn(self.clock, 1.9)
        self.assert_lives(asterisk)
        turn(self.clock, 0.2)
        self.assert_ended(asterisk, "2 s in which neither side sent")

    def test_channel_driver_and_half_open_calls_have_no_such_limit(self) -> None:
        for options in ({"driver": "channel"}, {"driver": "application", "handshake": b""}):
            asterisk = self.call(**options)
            turn(self.clock, 30.0, 0.1)
            self.assert_lives(asterisk)

    def test_server_that_does_not_read(self) -> None:
        asterisk = self.call()
        self.transport.pauseProducing()
        asterisk.start_audio()
        turn(self.clock, 10.0, 0.02)
        self.assertEqual(asterisk.ended, "the server does not read: Asterisk's write fails")
        self.assertGreater(len(asterisk.sent), 300)

    def test_old_releases_take_0x10_only_and_send_16_khz_under_it(self) -> None:
        for release in ("20.16", "22.6"):
            asterisk = self.call(release=release, rate=16000)
            asterisk.start_audio()
            turn(self.clock, 0.001)
            self.assertEqual(self.server.data[19:], message(0x10, bytes(640)))
            self.say(message(0x12, bytes(640)))
            self.assert_ended(asterisk, "kind 0x12")
        asterisk = self.call(release="22.7", rate=16000)
        self.assertEqual(asterisk.kind, 0x12)


class SendingTests(LinkedCase):
    def sent_at(self) -> list[float]:
        return [at for at, data in self.server.received if data[0] != 0x01]

    def test_uuid_comes_first_and_once(self) -> None:
        self.call()
        self.assertEqual(self.server.data, message(0x01, CALL_ID.bytes))

    def test_audio_on_absolute_deadlines(self) -> None:
        asterisk = self.call()
        start = self.clock.seconds()
        asterisk.start_audio()
        for _ in range(100):
            self.clock.advance(0.0331)  # a clock that is turned in other steps
        self.assertEqual(len(asterisk.sent), 166)
        self.assertLess(asterisk.sent[-1].at - start - 165 * 0.02, 0.0331)

    def test_jitter_spaces_frames_from_13_to_27_ms_and_keeps_the_pace(self) -> None:
        asterisk = self.call(jitter=JITTER)
        asterisk.start_audio()
        turn(self.clock, 6.0, 0.0005)
        spaces = [b.at - a.at for a, b in zip(asterisk.sent, asterisk.sent[1:], strict=False)]
        self.assertApproximates(min(spaces), 0.013, 0.0006)
        self.assertApproximates(max(spaces), 0.027, 0.0006)
        self.assertAlmostEqual(sum(spaces) / len(spaces), 0.02, 4)

    def test_dtmf_holds_the_audio_and_comes_at_release(self) -> None:
        asterisk = self.call()
        asterisk.start_audio()
        turn(self.clock, 0.05)
        asterisk.dtmf("7", held=0.2)
        turn(self.clock, 0.3)
        digit = next(at for at, data in self.server.received if data[:4] == b"\x03\x00\x017")
        during = [frame.at for frame in asterisk.sent if 0.06 < frame.at < digit]
        self.assertEqual(during, [])
        self.assertGreater(asterisk.sent[-1].at, digit)

    def test_dtmf_of_old_releases_does_not_arrive(self) -> None:
        for release, arrives in (("20.13", False), ("22.3", False), ("22.4", True)):
            asterisk = self.call(release=release)
            asterisk.dtmf("1")
            turn(self.clock, 0.001)
            self.assertEqual(b"\x03\x00\x011" in self.server.data, arrives)

    def test_hangup_is_a_plain_close(self) -> None:
        asterisk = self.call()
        done = asterisk.start_audio()
        turn(self.clock, 0.1)
        asterisk.hangup()
        turn(self.clock, 0.02)
        self.assertIsInstance(self.server.lost.value, ConnectionDone)
        self.assertEqual(self.server.data[19:], message(0x10, bytes(320)) * len(asterisk.sent))
        self.assertEqual((asterisk.faults, asterisk.ended), ([], "hung up"))
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reset_is_seen_as_one(self) -> None:
        asterisk = self.call()
        asterisk.reset()
        turn(self.clock, 0.02)
        self.assertIsInstance(self.server.lost.value, ConnectionLost)
        self.assertEqual((asterisk.faults, asterisk.ended), ([], "reset"))


class FarEndTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.faults: list[str] = []
        self.far_end = FarEnd(self.faults)

    def test_frames_in_time_have_no_lead_and_no_holes(self) -> None:
        for number in range(500):
            self.far_end.arrive(number * 0.02, 0.02)
        self.assertEqual((self.far_end.lead_max, self.far_end.holes, self.faults), (0, [], []))

    def test_late_frames_leave_holes(self) -> None:
        for at in (0.0, 0.02, 0.065, 0.085):
            self.far_end.arrive(at, 0.02)
        [(when, seconds)] = self.far_end.holes
        self.assertAlmostEqual(when, 0.04)
        self.assertAlmostEqual(seconds, 0.025)

    def test_the_97th_waiting_frame_loses_64(self) -> None:
        for _ in range(97):  # one plays, 96 wait
            self.far_end.arrive(0.0, 0.02)
        self.assertEqual((self.far_end.lead(0.0), self.faults), (96, []))
        self.far_end.arrive(0.0, 0.02)
        self.assertEqual((self.far_end.lead(0.0), self.far_end.lost), (33, 64))
        self.assertRegex(self.faults[0], "oldest 64 were lost")

    def test_a_burst_of_three_seconds_does_not_end_the_call(self) -> None:
        clock = Clock()
        asterisk = StrictAsterisk(clock)
        asterisk.makeConnection(StringTransport())
        asterisk.dataReceived(FRAME * 150)
        self.assertIsNone(asterisk.ended)
        self.assertEqual(len(asterisk.frames), 150)
        self.assertRegex(asterisk.faults[0], "oldest 64 were lost")


class LinkTests(LinkedCase):
    """The link in memory does what TCP does, for those who test with it."""

    def test_writes_of_one_turn_arrive_as_one_read(self) -> None:
        asterisk = self.call()
        asterisk.send(b"ab")
        asterisk.send(b"cd")
        turn(self.clock, 0.001)
        self.assertEqual(self.server.received[-1][1], b"abcd")

    def test_segments_cut_reads(self) -> None:
        clock = Clock()
        server = Server(clock)
        asterisk = StrictAsterisk(clock)
        join(clock, asterisk, server, segment=5)
        turn(clock, 0.001)
        self.assertEqual([len(data) for _, data in server.received], [5, 5, 5, 4])

    def test_close_waits_for_what_was_written_and_for_the_producer(self) -> None:
        asterisk = self.call()
        producer = Producer()
        self.transport.registerProducer(producer, True)
        self.transport.write(FRAME)
        self.transport.loseConnection()
        turn(self.clock, 0.01)
        self.assertEqual((len(asterisk.frames), self.server.lost), (1, None))
        self.transport.unregisterProducer()
        turn(self.clock, 0.01)
        self.assertIsNotNone(self.server.lost)
        self.assertRegex(asterisk.faults[0], "closed without")

    def test_paused_reader_pauses_the_producer_until_it_reads(self) -> None:
        asterisk = self.call()
        producer = Producer()
        self.transport.registerProducer(producer, True)
        asterisk.stop_reading()
        self.say(*islice(repeat(message(0x10, bytes(4000))), 40))
        self.assertEqual(producer.calls, ["pause"])
        asterisk.start_reading()
        turn(self.clock, 0.001)
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.assertEqual(self.transport.waiting, 0)


class Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")
