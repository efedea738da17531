"""A phone line in memory, between a strict Asterisk and a call that only listens."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from itertools import count, cycle, pairwise
from typing import Any
from uuid import uuid4

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.audiosocket import (
    CLOSE_TIMEOUT,
    RATE_STAYS,
    STALLED,
    AudioSocketConnection,
)
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LONGEST_HOLE, Line, LineOptions
from pipecat_bridge.asterisk.networks import Networks
from pipecat_bridge.asterisk.server import AudioSocketFactory
from pipecat_bridge.audio import g711
from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import PhoneEnd
from pipecat_bridge.net.rate_limit import BURST
from tests.doubles.asterisk import HUNG_UP, JITTER, RATES, StrictAsterisk
from tests.doubles.link import LinkTransport, turn
from tests.unit.signals import tone

MS = 0.001
SILENCE = b"\x10\x01\x40" + bytes(320)


def message(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


class Call:
    """A call that records what its phone sends, and has audio for it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.playout = Playout()
        self.heard: list[tuple[float, bytes, int]] = []
        self.digits: list[str] = []
        self.ends: list[tuple[PhoneEnd, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self.joined_at = 0.0

    def join(self, phone: Line) -> None:
        self.joined_at = self._exchange.clock.seconds()
        phone.join(self.hear, self.playout)

    def hear(self, pcm: bytes, rate: int) -> None:
        self.heard.append((self._exchange.clock.seconds(), pcm, rate))

    def caller_digit(self, digit: str) -> None:
        self.digits.append(digit)

    def phone_gone(self, how: PhoneEnd, reason: str) -> None:
        self.ends.append((how, reason))

    def phone_warning(self, kind: str, text: str) -> None:
        self.warnings.append((kind, text))

    @property
    def gone(self) -> int:
        return len(self.ends)

    def say(self, pcm: bytes, rate: int = 8000) -> None:
        self.playout.write(pcm, rate, 1, self._exchange.clock.seconds())

    @property
    def pcm(self) -> bytes:
        return b"".join(pcm for _, pcm, _ in self.heard)

    @property
    def seconds(self) -> float:
        return sum(len(pcm) / 2 / rate for _, pcm, rate in self.heard)


class Exchange:
    """Begins a call for each UUID, except for a UUID that is refused or in a call already."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: dict[str, Call] = {}
        self.refuses = False
        self.hangs_up = False

    def answer(self, call_id: str, phone: Line) -> Call | None:
        if self.refuses or call_id in self.calls:
            return None
        call = self.calls[call_id] = Call(self)
        call.join(phone)
        if self.hangs_up:
            phone.hang_up()
        return call


class RecordingTransport(LinkTransport):
    """The bridge's end of a connection. It records each write separately."""

    def __init__(self, clock: IReactorTime, port: int, window: int, segment: int | None) -> None:
        super().__init__(clock, port, window, segment)
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        if data:
            self.writes.append(data)
        super().write(data)


class Dumb(Protocol):
    """A peer that sends what the test gives it, and checks nothing."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class Place:
    """Lines with a common clock and a common exchange, as in the daemon."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.frame_clock = FrameClock(self.clock, self.clock.seconds)
        self.exchange = Exchange(self.clock)
        self.options = LineOptions(**options)
        self.factory = AudioSocketFactory(self.clock, self._connection)

    def _connection(self) -> AudioSocketConnection:
        return AudioSocketConnection(
            self.exchange.answer, self.frame_clock, self.clock, self.options, self.clock.seconds
        )

    def connect(
        self, peer: Any, window: int = 65536, segment: int | None = None, buffer: int = 65536
    ) -> tuple[AudioSocketConnection, RecordingTransport]:
        near = LinkTransport(self.clock, 40000, window, segment)
        far = RecordingTransport(self.clock, 9092, window, segment)
        far.bufferSize = buffer
        connection = self.factory.buildProtocol(near.getHost())
        assert connection is not None
        near.peer, far.peer = far, near
        near.protocol, far.protocol = peer, connection
        connection.makeConnection(far)
        peer.makeConnection(near)
        return connection, far

    def turn(self, seconds: float, step: float = MS) -> None:
        turn(self.clock, seconds, step)


class StrictLine(Place):
    """A strict Asterisk on a line. `call` exists once the bridge has read the UUID."""

    def __init__(self, options: dict[str, Any] | None = None, **asterisk: Any) -> None:
        super().__init__(**(options or {}))
        link = {name: asterisk.pop(name) for name in ("window", "segment") if name in asterisk}
        link |= {"buffer": asterisk.pop("buffer")} if "buffer" in asterisk else {}
        self.asterisk = StrictAsterisk(self.clock, **asterisk)
        self.connection, self.transport = self.connect(self.asterisk, **link)
        self.turn(2 * MS)

    @property
    def call(self) -> Call:
        return self.exchange.calls[str(self.asterisk.call_id)]

    @property
    def writes(self) -> list[bytes]:
        return self.transport.writes


def frames(pcm: bytes, size: int) -> Iterator[bytes]:
    return (pcm[start : start + size] for start in range(0, len(pcm), size))


def numbered(size: int = 320) -> Iterator[bytes]:
    """Frames that contain their own number, and no byte of 0."""
    for number in count():
        yield struct.pack("<H", number % 60000 + 1).replace(b"\0", b"\1") * (size // 2)


class Case(SynchronousTestCase):
    """A test case that records the log."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    @property
    def logged(self) -> list[str]:
        ours = [each for each in self.events if "pipecat_bridge" in each.get("log_namespace", "")]
        return [formatEvent(event) for event in ours]

    def check_gone(self, place: Place, peer: Any = None) -> None:
        """Check that the line leaves no tick, no timer and no count."""
        self.assertEqual(place.clock.getDelayedCalls(), [])
        self.assertEqual(place.factory.open.count, 0)


class AcceptTests(Case):
    def test_the_first_frame_is_there_at_accept_before_any_byte(self) -> None:
        place = Place()
        dumb = Dumb()
        _, transport = place.connect(dumb)
        self.assertEqual(transport.writes, [SILENCE])
        self.assertTrue(transport.no_delay)
        place.clock.advance(0)
        self.assertEqual(dumb.received, SILENCE)

    def test_silence_for_ever_when_there_is_nothing_to_say(self) -> None:
        line = StrictLine()
        line.turn(60.0)
        self.assertEqual(set(line.writes), {SILENCE})
        self.assertApproximates(len(line.asterisk.frames), 3001, 1)
        self.assertLessEqual(line.asterisk.far_end.lead_max, 1)
        self.assertEqual(line.asterisk.far_end.holes, [])
        self.assertEqual(line.asterisk.gaps(), [])
        self.assertEqual(line.asterisk.faults, [])

    def test_a_uuid_in_any_pieces(self) -> None:
        for segment in range(1, 20):
            with self.subTest(segment=segment):
                line = StrictLine(segment=segment)
                self.assertEqual(len(line.exchange.calls), 1)
                self.assertEqual(line.connection.line.call_id, str(line.asterisk.call_id))

    def test_every_message_is_one_write_and_of_the_right_size(self) -> None:
        for kind, rate in RATES.items():
            with self.subTest(rate=rate):
                line = StrictLine(rate=rate)
                line.asterisk.start_audio()
                line.turn(0.1)
                line.call.say(tone(440, rate, 1.0), rate)
                line.turn(1.5)
                line.connection.line.hang_up()
                line.turn(0.1)
                self.assertEqual(line.writes[0], SILENCE)
                for one in line.writes[10:-1]:
                    self.assertEqual(one[:3], message(kind, bytes(rate // 25))[:3])
                    self.assertEqual(len(one), 3 + rate // 25)
                self.assertEqual(line.writes[-1], b"\0\0\0")
                self.assertEqual(line.asterisk.faults, [])


class AudioTests(Case):
    def test_all_rates_in_and_out(self) -> None:
        for rate in RATES.values():
            with self.subTest(rate=rate):
                line = StrictLine(rate=rate, jitter=JITTER)
                said = tone(440, rate, 1.0)
                line.asterisk.start_audio(frames(said, rate // 25))
                line.turn(0.1)
                answer = tone(330, rate, 1.0)
                line.call.say(answer, rate)
                line.turn(1.5)
                line.asterisk.hangup()
                line.turn(0.1)
                self.assertEqual(line.call.pcm[: len(said)], said)
                self.assertEqual({rate for _, _, rate in line.call.heard}, {rate})
                self.assertIn(answer, line.asterisk.pcm(rate))
                self.assertEqual(line.asterisk.faults, [])
                self.assertEqual(self.logged, [])

    def test_the_rate_changes_within_a_call(self) -> None:
        line = StrictLine()
        line.call.say(tone(440, 8000, 6.0))
        for kind, rate in ((0x10, 8000), (0x12, 16000), (0x16, 48000), (0x10, 8000)):
            line.asterisk.send(message(kind, tone(330, rate, FRAME)))
            line.turn(RATE_STAYS + 0.1)
            self.assertEqual(line.call.heard[-1][2], rate)
            self.assertEqual(line.asterisk.frames[-1].rate, rate)
        self.assertEqual(line.asterisk.far_end.holes, [])
        self.assertEqual(line.asterisk.faults, [])

    def test_a_rate_that_changes_all_the_time_is_followed_once_a_second(self) -> None:
        """Each time all that waits is converted: with every message, this stopped all calls."""
        line = StrictLine()
        line.call.say(tone(440, 8000, 30.0))
        rates: list[int] = []
        convert = line.call.playout.set_rate
        self.patch(line.call.playout, "set_rate", lambda rate: (rates.append(rate), convert(rate)))
        flood = message(0x18, bytes(2)) + message(0x10, bytes(2))
        for _ in range(25):
            line.asterisk.send(flood * 10)
            line.turn(0.1)
        self.assertEqual(rates, [192000, 8000, 192000])

    def test_a_frame_of_any_even_length_goes_on_as_it_is(self) -> None:
        line = StrictLine()
        for size in (320, 42, 276, 2, 960, 8000, 318):
            with self.subTest(size=size):
                line.asterisk.send_audio(b"\x01\x02" * (size // 2))
                line.turn(2 * MS)
                self.assertEqual(line.call.heard[-1][1], b"\x01\x02" * (size // 2))

    def test_an_odd_length_is_refused_for_that_frame_alone(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio(cycle([b"\1" * 320, b"\1" * 321]))
        line.turn(1.0)
        self.assertEqual({len(pcm) for _, pcm, _ in line.call.heard}, {320})
        stats = line.connection.line.stats
        self.assertApproximates(stats.odd_frames, 25, 1)
        self.assertApproximates(stats.frames_in, 25, 1)
        self.assertEqual({kind for kind, _ in line.call.warnings}, {"odd-frame"})
        self.assertIn("321 bytes was dropped", line.call.warnings[0][1])
        self.assertEqual(line.asterisk.faults, [])

    def test_an_empty_frame_is_nothing(self) -> None:
        line = StrictLine()
        line.asterisk.send(message(0x10))
        line.turn(10 * MS)
        self.assertEqual(line.call.heard, [])
        for number in range(20):  # and decides nothing about the codec
            line.asterisk.send(message(0x10, b"\xff" * 160))
            line.turn(20 * MS)
            line.asterisk.send(message(0x10))
            self.assertEqual(bool(line.call.heard), number >= 9)

    def test_the_callers_voice_goes_on_in_the_turn_in_which_it_came(self) -> None:
        line = StrictLine()
        before = line.clock.seconds()
        line.connection.dataReceived(message(0x10, bytes(320)) * 3)
        self.assertEqual([at for at, _, _ in line.call.heard], [before] * 3)


class FormatTests(Case):
    def test_g711_is_decoded_and_logged_once(self) -> None:
        encoded = bytes(range(256)) * 50
        for codec in ("ulaw", "alaw"):
            for jitter in ((0.0,), JITTER):
                with self.subTest(codec=codec, jitter=jitter):
                    self.events.clear()
                    line = StrictLine({"g711": codec}, jitter=jitter)
                    line.asterisk.start_audio(frames(encoded, 160))
                    line.turn(1.5)
                    line.asterisk.hangup()
                    line.turn(0.1)
                    self.assertEqual(
                        line.call.pcm, g711.decode(codec, encoded[: len(line.call.pcm) // 2])
                    )
                    self.assertGreater(len(line.call.pcm), 320 * 70)
                    [(kind, text)] = line.call.warnings
                    self.assertEqual((kind, line.connection.line.codec), ("codec-guess", codec))
                    self.assertIn(f"decoded as {codec}", text)
                    self.assertIn("add c(slin)", text)
                    self.assertEqual({frame.rate for frame in line.asterisk.frames}, {8000})

    def test_ten_ms_of_linear_audio_are_not_taken_for_it(self) -> None:
        line = StrictLine()
        said = tone(440, 8000, 1.0)
        for piece in frames(said, 160):
            line.asterisk.send_audio(piece)
            line.turn(10 * MS)
        self.assertEqual(line.call.pcm, said)
        self.assertEqual(line.call.warnings, [])
        self.assertEqual(line.connection.line.codec, "linear")

    def test_what_the_line_carries_is_told(self) -> None:
        line = StrictLine()
        self.assertEqual((line.connection.line.codec, line.connection.line.rate), ("linear", 8000))
        for kind, rate in RATES.items():
            line.asterisk.send(message(kind, bytes(rate // 25)))
            line.turn(RATE_STAYS + 0.1)
            self.assertEqual(
                (line.connection.line.codec, line.connection.line.rate), ("linear", rate)
            )

    def test_16_khz_of_old_releases_in_and_8_khz_out(self) -> None:
        line = StrictLine(rate=16000, release="20.13", jitter=JITTER)
        said = tone(440, 16000, 1.0)
        line.asterisk.start_audio(frames(said, 640))
        line.turn(0.3)
        line.call.say(tone(330, 8000, 0.5))
        line.turn(0.8)
        self.assertEqual(line.call.pcm[: len(said)], said)
        self.assertEqual({rate for _, _, rate in line.call.heard}, {16000})
        self.assertIn(tone(330, 8000, 0.5), line.asterisk.pcm(8000))
        line.turn(1.0)
        self.assertEqual({rate for _, _, rate in line.call.heard}, {16000})
        self.assertApproximates(line.call.seconds, line.clock.seconds() - line.call.joined_at, 0.1)
        [(kind, text)] = line.call.warnings
        self.assertEqual(kind, "codec-guess")
        self.assertIn("decoded as 16 kHz", text)
        self.assertEqual((line.connection.line.codec, line.connection.line.rate), ("slin16", 8000))
        self.assertEqual(line.asterisk.faults, [])


class HoldTests(Case):
    """A phone sends nothing for a while. The bot gets silence at the usual rate."""

    def check_time(self, line: Line, slack: float = 0.1) -> None:
        elapsed = line.clock.seconds() - line.call.joined_at
        self.assertApproximates(line.call.seconds, elapsed, slack)

    def test_silence_comes_in_real_time_at_the_callers_rate(self) -> None:
        for kind, rate in RATES.items():
            with self.subTest(rate=rate):
                line = StrictLine(rate=rate)
                line.asterisk.start_audio(frames(tone(440, rate, 1.0), rate // 25))
                line.turn(0.9)
                line.asterisk.hold()
                held_at, before = line.clock.seconds(), len(line.call.heard)
                line.turn(5.0)
                silence = line.call.heard[before:]
                self.assertLess(silence[0][0] - held_at, 0.54)
                self.assertEqual({pcm for _, pcm, _ in silence}, {bytes(rate // 25)}, hex(kind))
                self.assertEqual({rate for _, _, rate in silence}, {rate})
                self.check_time(line, 0.05)
                times = [at for at, _, _ in silence][26:]
                spaces = {round(b - a, 3) for a, b in pairwise(times)}
                self.assertLessEqual(max(spaces), 0.021)
                self.assertGreaterEqual(min(spaces), 0.019)

    def test_audio_goes_on_after_it_with_nothing_lost(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio(numbered())
        for _ in range(20):
            line.turn(0.5)
            line.asterisk.hold()
            line.turn(0.733)
            line.asterisk.resume()
        line.turn(0.5)
        heard = [pcm for _, pcm, _ in line.call.heard if pcm != bytes(320)]
        self.assertEqual(heard, [frame.payload for frame in line.asterisk.sent])
        self.check_time(line)

    def test_a_caller_that_never_speaks(self) -> None:
        line = StrictLine()
        line.turn(10.0)
        self.assertEqual(set(line.call.pcm), {0})
        self.check_time(line)
        self.assertApproximates(line.connection.line.stats.filled_frames, 500, 2)

    def test_a_caller_without_a_pause_is_never_filled(self) -> None:
        line = StrictLine(jitter=JITTER)
        line.asterisk.start_audio(numbered())
        line.turn(60.0)
        self.assertEqual(line.connection.line.stats.filled_frames, 0)
        self.check_time(line)

    def test_a_caller_whose_clock_is_not_ours_is_never_filled_either(self) -> None:
        for deviation in (-200e-6, 200e-6):
            with self.subTest(deviation=deviation):
                line = StrictLine()
                line.turn(20 * MS)
                start = line.clock.seconds()
                for number in range(1, 90_000):  # half an hour: 360 ms apart at its end
                    due = start + number * FRAME * (1 + deviation)
                    line.clock.advance(due - line.clock.seconds())
                    line.connection.dataReceived(message(0x10, b"\1\1" * 160))
                self.assertEqual(line.connection.line.stats.filled_frames, 0)
                line.turn(1.0)  # and a pause after it is filled, and by no more than it
                self.assertApproximates(line.connection.line.stats.filled_frames, 50, 7)

    def test_our_own_stall_is_no_pause_of_the_callers(self) -> None:
        line = StrictLine()
        for stall in (0.025, 0.06, 0.11, 0.5, 2.0):
            with self.subTest(stall=stall):
                for _ in range(50):
                    line.turn(20 * MS)
                    line.connection.dataReceived(message(0x10, b"\1\1" * 160))
                line.clock.advance(stall)
                missed = round(stall / FRAME)
                line.connection.dataReceived(message(0x10, b"\1\1" * 160) * missed)
                self.assertEqual(line.connection.line.stats.filled_frames, 0)
                line.turn(20 * MS)
                self.check_time(line)

    def test_frames_that_are_late_under_load_are_not_missing(self) -> None:
        line = StrictLine(jitter=(0.0, 0.0, 0.032, 0.014, 0.0, 0.0))
        line.asterisk.start_audio(numbered())
        line.turn(20.0)
        self.assertEqual(line.connection.line.stats.filled_frames, 0)

    def test_a_network_that_stalls_and_catches_up_loses_nothing_and_gets_no_silence(self) -> None:
        line = StrictLine()
        for _ in range(30):
            for _ in range(50):
                line.turn(20 * MS)
                line.connection.dataReceived(message(0x10, b"\1\1" * 160))
            line.turn(0.4)
            line.connection.dataReceived(message(0x10, b"\1\1" * 160) * 20)
        self.assertEqual(line.connection.line.stats.filled_frames, 0)
        self.check_time(line, 0.05)

    def test_a_long_mixed_pattern_stays_close_to_the_time(self) -> None:
        for seed in range(4):
            with self.subTest(seed=seed):
                chance = random.Random(seed)
                line = StrictLine(jitter=JITTER)
                line.asterisk.start_audio(numbered())
                for _ in range(120):
                    line.turn(chance.uniform(0.2, 1.0))
                    self.do_something(chance, line)
                    self.check_time(line, 0.6)  # a pause is noticed after 0.5 s and a tick
                line.turn(1.0)
                line.asterisk.hold()
                line.turn(1.0)
                self.check_time(line)
                heard = b"".join(pcm for _, pcm, _ in line.call.heard if any(pcm))
                self.assertEqual(heard, b"".join(frame.payload for frame in line.asterisk.sent))
                self.assertEqual(line.asterisk.faults, [])

    def do_something(self, chance: random.Random, line: Line) -> None:
        what = chance.choice(["hold", "key", "gap", "short"])
        if what == "hold":
            line.asterisk.hold()
            line.turn(chance.uniform(0.1, 3.0))
            line.asterisk.resume()
        elif what == "key":
            line.asterisk.dtmf(chance.choice("0123456789ABCD*#"), held=chance.uniform(0.08, 0.5))
            line.turn(0.6)
        elif what == "gap":
            line.asterisk.hold()
            line.turn(chance.choice([0.02, 0.04, 0.06, 0.08]))
            line.asterisk.resume()
        else:  # the last frame of a sound file
            line.asterisk.send_audio(b"\1" * chance.choice([42, 276]))


class DtmfTests(Case):
    def test_every_key_in_order(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        for key in "0123456789ABCD*#":
            line.asterisk.dtmf(key)
        line.turn(0.1)
        self.assertEqual("".join(line.call.digits), "0123456789ABCD*#")

    def test_while_a_key_is_held_there_is_silence_and_then_the_key(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio(numbered())
        line.turn(1.0)
        line.asterisk.dtmf("5", held=0.8)
        line.turn(0.7)
        self.assertEqual(line.call.digits, [])
        self.assertEqual(line.call.heard[-1][1], bytes(320))
        line.turn(0.2)
        self.assertEqual(line.call.digits, ["5"])
        self.assertNotEqual(line.call.heard[-1][1], bytes(320))

    def test_what_is_no_key_is_dropped_and_told(self) -> None:
        line = StrictLine()
        for byte in (b"e", b"\xff", b"\n", b"\0", b"a"):
            line.asterisk.send(message(0x03, byte))
        line.asterisk.dtmf("1")
        line.turn(0.1)
        self.assertEqual(line.call.digits, ["1"])
        self.assertEqual([kind for kind, _ in line.call.warnings], ["bad-digit"] * 5)
        self.assertIn("'\\xff' was dropped: expected one of 0-9", line.call.warnings[1][1])
        self.assertTrue(all(text.isprintable() for _, text in line.call.warnings))


class RefusalTests(Case):
    """A connection that is not a call: one line of log, closed, and no effect on other calls."""

    CASES = (
        ("audio first", message(0x10, bytes(320)), "0x10 where the call's UUID"),
        ("a key first", message(0x03, b"1"), "0x03 where the call's UUID"),
        ("an error", message(0xFF, b"\1"), "0xff where the call's UUID"),
        ("a short UUID", message(0x01, bytes(15)), "with a length of 15, expected 16"),
        ("a long UUID", message(0x01, bytes(36)), "with a length of 36, expected 16"),
        (
            "a TLS hello",
            bytes.fromhex("16030100f5010000f10303") + bytes(240),
            "0x16 where the call's UUID",
        ),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "0x47 where the call's UUID"),
        ("an unknown kind", message(0x02, b"x"), "0x02 where the call's UUID"),
        ("an absurd length", b"\x01\xff\xff", "with a length of 65535, expected 16"),
    )

    def check_refused(self, place: Place, dumb: Dumb, call_id: str = "-") -> str:
        self.assertTrue(dumb.lost)
        self.assertEqual(dumb.received.replace(SILENCE, b""), b"\0\0\0")
        (logged,) = self.logged
        self.assertTrue(logged.startswith(f"{call_id} connection from 127.0.0.1:40000 closed: "))
        self.assertNotIn("\n", logged)
        return logged

    def test_a_first_message_that_is_not_a_uuid(self) -> None:
        for name, hello, fault in self.CASES:
            for segment in (None, 1):
                with self.subTest(name=name, segment=segment):
                    self.events.clear()
                    place, dumb = Place(), Dumb()
                    place.connect(dumb, segment=segment)
                    dumb.transport.write(hello)
                    place.turn(5 * MS)
                    self.assertIn(fault, self.check_refused(place, dumb))
                    self.assertEqual(place.exchange.calls, {})
                    self.check_gone(place)

    def test_the_calls_beside_it_go_on_undisturbed(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        for _, hello, _ in self.CASES:
            dumb = Dumb()
            line.connect(dumb)
            dumb.transport.write(hello)
            line.turn(0.1)
            self.assertTrue(dumb.lost)
        self.assertEqual(line.asterisk.faults, [])
        self.assertEqual(line.asterisk.gaps(), [])
        self.assertEqual(line.call.gone, 0)
        self.assertEqual(len(self.logged), BURST)
        self.assertEqual(line.factory.open.count, 1)

    def test_many_are_a_few_lines_and_a_count(self) -> None:
        place = Place()
        for seconds in (*[0.0] * 300, 1.0):
            place.turn(seconds)
            dumb = Dumb()
            place.connect(dumb)
            dumb.transport.write(b"GET")
            place.turn(5 * MS)
        self.assertEqual(len(self.logged), BURST + 2)  # 1.5 s pass for the 300 as well
        self.assertRegex(self.logged[-1], r"\(\d+ lines like this one were left out before\)$")

    def test_no_uuid_within_five_seconds(self) -> None:
        for hello in (b"", b"\x01", message(0x01, uuid4().bytes)[:-1]):
            with self.subTest(hello=hello):
                self.events.clear()
                place, dumb = Place(), Dumb()
                place.connect(dumb)
                dumb.transport.write(hello)
                place.turn(4.99)
                self.assertFalse(dumb.lost)
                place.turn(0.02)
                self.assertIn("no call UUID within 5 s", self.check_refused(place, dumb))
                self.check_gone(place)

    def test_a_uuid_just_in_time(self) -> None:
        place = Place()
        asterisk = StrictAsterisk(place.clock, handshake=b"")
        place.connect(asterisk)
        place.turn(4.99)
        asterisk.send(message(0x01, asterisk.call_id.bytes))
        place.turn(10.0)
        self.assertEqual(list(place.exchange.calls), [str(asterisk.call_id)])
        self.assertEqual(asterisk.faults, [])

    def test_what_breaks_the_protocol_in_mid_call(self) -> None:
        for fault, words in (
            (b"\x10\xff\xff", "kind 0x10 with a length of 65535, expected up to 8000"),
            (message(0xFF, b"\4"), "an error (kind 0xff), code 0x04"),
            (message(0xFF, b"\4and more"), "an error (kind 0xff), code 0x04"),
            (message(0xFF), "an error (kind 0xff), without a code"),
        ):
            with self.subTest(fault=fault):
                self.events.clear()
                place, dumb, call_id = Place(), Dumb(), uuid4()
                place.connect(dumb)
                frame = message(0x10, b"\1\1" * 160)
                dumb.transport.write(message(0x01, call_id.bytes) + 3 * frame + fault * 2)
                place.turn(5 * MS)
                self.assertIn(words, self.check_refused(place, dumb, str(call_id)))
                call = place.exchange.calls[str(call_id)]
                self.assertEqual(len(call.heard), 3)
                self.assertEqual(call.ends, [("fault", f"the phone broke the protocol: {words}")])
                self.check_gone(place)

    def test_garbage_after_our_hangup_is_no_news(self) -> None:
        place, dumb = Place(), Dumb()
        connection, transport = place.connect(dumb)
        dumb.transport.write(message(0x01, uuid4().bytes))
        place.turn(1.0)
        connection.line.hang_up()
        for _ in range(5):
            dumb.transport.write(b"\x55\x55\x55\x55")
            place.turn(10 * MS)
        self.assertEqual(self.logged, [])
        self.assertEqual(transport.writes.count(b"\0\0\0"), 1)

    def test_nor_is_what_follows_a_hangup(self) -> None:
        place, dumb, call_id = Place(), Dumb(), uuid4()
        place.connect(dumb)
        dumb.transport.write(message(0x01, call_id.bytes) + b"\0\0\0" + b"\x10\xff\xff")
        place.turn(5 * MS)
        self.assertEqual(self.logged, [])
        self.assertEqual([how for how, _ in place.exchange.calls[str(call_id)].ends], ["hangup"])

    def test_a_phone_that_is_refused_counts_as_one_without_a_call(self) -> None:
        place = Place()
        place.exchange.refuses = True
        for _ in range(5):
            dumb = Dumb()
            place.connect(dumb)
            dumb.transport.write(message(0x01, uuid4().bytes))
        place.clock.advance(0.01)
        self.assertEqual(len(place.factory.unknown), 5)
        place.clock.pump([0.5] * 6)
        self.assertEqual(len(place.factory.unknown), 0)

    def test_a_call_that_the_exchange_refuses(self) -> None:
        place = Place()
        place.exchange.refuses = True
        asterisk = StrictAsterisk(place.clock)
        _, transport = place.connect(asterisk)
        place.turn(10 * MS)
        self.assertTrue(asterisk.hangup_received)
        self.assertEqual(asterisk.faults, [])
        self.assertEqual(transport.writes[-1], b"\0\0\0")
        self.check_gone(place)

    def test_a_uuid_that_is_in_a_call(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        twin = StrictAsterisk(line.clock, call_id=line.asterisk.call_id)
        line.connect(twin)
        line.turn(1.0)
        self.assertTrue(twin.hangup_received)
        self.assertEqual(line.asterisk.faults + twin.faults, [])
        self.assertIsNone(line.asterisk.ended)
        self.assertEqual(line.call.gone, 0)


class UnknownTests(Case):
    """Unknown messages, and messages at the wrong time, are skipped."""

    UNKNOWN = (
        message(0x02),
        message(0x55, bytes(1000)),
        message(0x04, b"1"),
        message(0x03, b"1\0\0\xa0"),
        message(0x03),
        message(0x01, uuid4().bytes),
        message(0x01, b"short"),
    )

    def test_they_are_skipped_and_counted_and_the_call_goes_on(self) -> None:
        for segment in (None, 1, 7):
            with self.subTest(segment=segment):
                line = StrictLine(segment=segment)
                frame = message(0x10, b"\1\1" * 160)
                for number, unknown in enumerate(self.UNKNOWN, 1):
                    line.asterisk.send(unknown + frame)
                    line.turn(len(unknown) * MS / (segment or 1e9) + 0.4)
                    self.assertEqual(line.connection.line.stats.unknown_messages, number)
                    self.assertEqual(line.connection.line.stats.frames_in, number)
                line.asterisk.dtmf("5")
                line.turn(20 * MS)
                self.assertEqual(line.call.digits, ["5"])
                self.assertEqual((line.call.ends, line.asterisk.faults), ([], []))
                self.assertEqual(line.asterisk.gaps(), [])

    def test_they_are_told(self) -> None:
        line = StrictLine()
        line.asterisk.send(message(0x02))
        line.turn(5 * MS)
        line.asterisk.send(message(0x04, b"1") * 1000)
        line.turn(5 * MS)
        (first, second, *_) = line.call.warnings
        self.assertEqual((first[0], second[0]), ("unknown-message", "unknown-message"))
        self.assertIn("kind 0x02 with a length of 0 was skipped", first[1])
        self.assertIn("kind 0x04 with a length of 1 was skipped", second[1])
        self.assertEqual(line.connection.line.stats.unknown_messages, 1001)


class EndTests(Case):
    def test_the_caller_hangs_up_by_fin_or_rst(self) -> None:
        ends = {"hangup": "", "reset": "the phone's connection was reset"}
        for how, reason in ends.items():
            with self.subTest(how=how):
                line = StrictLine()
                line.asterisk.start_audio()
                line.turn(1.0)
                getattr(line.asterisk, how)()
                line.turn(5 * MS)
                self.assertEqual(line.call.ends, [("hangup", reason)])
                self.assertEqual(line.asterisk.faults, [])
                line.connection.line.hang_up()  # the call's answer to it
                self.check_gone(line)

    def test_a_peer_that_says_hangup(self) -> None:
        for payload in (b"", b"\0", bytes(4000)):
            with self.subTest(payload=payload):
                place, dumb, call_id = Place(), Dumb(), uuid4()
                place.connect(dumb)
                hangup, frame = message(0x00, payload), message(0x10, b"\1\1" * 160)
                dumb.transport.write(message(0x01, call_id.bytes) + frame + hangup + frame)
                place.turn(5 * MS)
                call = place.exchange.calls[str(call_id)]
                self.assertEqual(call.ends, [("hangup", "the phone sent a hangup message")])
                self.assertEqual(len(call.heard), 1)
                self.assertTrue(dumb.lost)
                self.assertEqual(dumb.received.replace(SILENCE, b""), b"\0\0\0")
                self.assertEqual(self.logged, [])
                self.check_gone(place)

    def test_a_connection_that_closes_before_it_said_anything(self) -> None:
        for abort in (False, True):
            with self.subTest(abort=abort):
                place, dumb = Place(), Dumb()
                place.connect(dumb)
                if abort:
                    dumb.transport.abortConnection()
                else:
                    dumb.transport.loseConnection()
                place.turn(5 * MS)
                self.assertEqual(self.logged, [])
                self.check_gone(place)

    def test_our_hangup_is_one_write_and_asterisk_closes(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        line.turn(1.0)
        line.connection.line.hang_up()
        line.connection.line.hang_up()
        self.assertEqual(line.writes[-1], b"\0\0\0")
        self.assertEqual(line.writes.count(b"\0\0\0"), 1)
        line.turn(10 * MS)
        self.assertTrue(line.asterisk.hangup_received)
        self.assertEqual(line.asterisk.bytes_after_end, 0)
        self.assertEqual(line.asterisk.faults, [])
        self.assertEqual(line.call.gone, 1)
        self.check_gone(line)

    def test_an_error_instead_hangs_the_channel_up(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        line.turn(1.0)
        line.connection.line.hang_up(cleanly=False)
        line.connection.line.hang_up()
        self.assertEqual(line.writes[-1], message(0xFF, b"\0"))
        line.turn(10 * MS)
        self.assertEqual(line.asterisk.ended, HUNG_UP)
        self.assertEqual(line.asterisk.bytes_after_end, 0)
        self.assertEqual(line.asterisk.faults, [])
        self.assertEqual(line.writes.count(b"\0\0\0"), 0)
        self.assertEqual(line.call.gone, 1)
        self.check_gone(line)

    def test_a_peer_that_does_not_close_upon_an_error_is_closed(self) -> None:
        place, dumb = Place(), Dumb()
        connection, _ = place.connect(dumb)
        dumb.transport.write(message(0x01, uuid4().bytes))
        place.turn(1.0)
        connection.line.hang_up(cleanly=False)
        place.turn(CLOSE_TIMEOUT + 5 * MS)
        self.assertTrue(dumb.lost)
        self.assertEqual(dumb.received.replace(SILENCE, b""), message(0xFF, b"\0"))
        self.check_gone(place)

    def test_audio_on_its_way_meanwhile_is_no_longer_heard(self) -> None:
        line = StrictLine()
        line.connection.line.hang_up()
        line.connection.dataReceived(message(0x10, b"\1\1" * 160))
        self.assertEqual(line.call.heard, [])

    def test_a_call_that_is_over_before_it_was_answered(self) -> None:
        place = Place()
        place.exchange.hangs_up = True
        asterisk = StrictAsterisk(place.clock)
        place.connect(asterisk)
        place.turn(10 * MS)
        self.assertTrue(asterisk.hangup_received)
        self.assertEqual(place.exchange.calls[str(asterisk.call_id)].gone, 1)
        self.check_gone(place)

    def test_a_peer_that_does_not_close_is_closed_after_a_second(self) -> None:
        place, dumb = Place(), Dumb()
        connection, _ = place.connect(dumb)
        dumb.transport.write(message(0x01, uuid4().bytes))
        place.turn(1.0)
        connection.line.hang_up()
        place.turn(CLOSE_TIMEOUT - 2 * MS)
        self.assertFalse(dumb.lost)
        place.turn(5 * MS)
        self.assertTrue(dumb.lost)
        self.check_gone(place)

    def test_a_peer_that_does_not_read_is_cut_off_after_two(self) -> None:
        place, dumb = Place(), Dumb()
        connection, transport = place.connect(dumb, window=100, buffer=1000)
        dumb.transport.write(message(0x01, uuid4().bytes))
        place.turn(10 * MS)
        dumb.transport.pauseProducing()
        place.turn(1.0)
        connection.line.hang_up()
        place.turn(2 * CLOSE_TIMEOUT - 2 * MS)
        self.assertFalse(transport.disconnected)
        place.turn(5 * MS)
        self.assertTrue(transport.disconnected)
        self.assertEqual(next(iter(place.exchange.calls.values())).gone, 1)
        self.check_gone(place)

    def test_lines_leave_nothing_behind_however_they_end(self) -> None:
        line = StrictLine()
        for number in range(200):
            asterisk = StrictAsterisk(line.clock)
            connection, _ = line.connect(asterisk)
            line.turn(5 * MS)
            ends = (
                asterisk.hangup,
                asterisk.reset,
                connection.line.hang_up,
                lambda asterisk=asterisk: asterisk.send(b"\x10\xff\xff"),
            )
            ends[number % len(ends)]()
            line.turn(5 * MS)
        self.assertEqual(line.factory.open.count, 1)
        line.asterisk.hangup()
        line.turn(5 * MS)
        self.check_gone(line)


class NotReadingTests(Case):
    def test_frames_are_skipped_and_counted_and_the_call_recovers(self) -> None:
        line = StrictLine(window=1000, buffer=3000)
        line.asterisk.start_audio()
        line.turn(1.0)
        line.asterisk.stop_reading()
        line.turn(1.0)
        self.assertEqual(line.call.gone, 0)
        waiting, skipped = line.transport.waiting, line.connection.line.stats.frames_skipped
        self.assertLess(waiting, 4000 + 2 * 323)
        line.turn(8.0)
        self.assertEqual(line.transport.waiting, waiting)
        self.assertApproximates(line.connection.line.stats.frames_skipped - skipped, 400, 1)
        self.assertEqual(line.call.gone, 0)
        self.assertApproximates(line.call.seconds, 10.0, 0.1)  # nor is the caller's way held up
        line.asterisk.start_reading()
        line.turn(0.1)
        line.call.say(tone(440, 8000, 0.5))
        line.turn(1.0)
        self.assertIn(tone(440, 8000, 0.5), line.asterisk.pcm())
        self.assertLess(line.asterisk.far_end.lead_max, 20)
        self.assertEqual(line.asterisk.gaps()[1:], [])
        self.assertEqual(line.asterisk.faults, [])
        sent = line.connection.line.stats.frames_out
        self.assertApproximates(len(line.asterisk.frames), sent, 1)

    def test_what_the_bot_says_meanwhile_is_skipped_and_not_played_late(self) -> None:
        line = StrictLine(window=1000, buffer=3000)
        line.asterisk.start_audio()
        line.asterisk.stop_reading()
        line.turn(1.0)
        line.call.say(tone(440, 8000, 2.0))
        line.turn(2.2)
        self.assertTrue(line.call.playout.empty)


class LateTests(Case):
    """Frames that come late to the phone because this machine was busy."""

    def test_none_is_late_on_a_machine_that_keeps_time(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        for pause in (3.003, 2.011, 1.017):  # what a bot says moves the ticks
            line.turn(pause)
            line.call.say(tone(440, 8000, 1.0))
        line.turn(10.0)
        self.assertEqual(line.connection.line.stats.late_frames, 0)

    def test_one_for_each_stall_that_the_phone_hears(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        for late, stall in enumerate((0.04, 0.1, 0.5, 2.0), 1):
            line.turn(1.0)
            line.clock.advance(stall)
            line.turn(1.0)
            self.assertEqual(line.connection.line.stats.late_frames, late)

    def test_a_stall_of_a_few_milliseconds_is_none(self) -> None:
        line = StrictLine()
        line.turn(1.0)
        for _ in range(20):
            line.clock.advance(0.01)
            line.turn(0.1)
        self.assertEqual(line.connection.line.stats.late_frames, 0)

    def test_the_time_before_the_call_does_not_count(self) -> None:
        place = Place()
        asterisk = StrictAsterisk(place.clock)
        connection, _ = place.connect(asterisk)
        place.clock.advance(1.0)  # the phone has told its id, and this machine was busy
        place.turn(1.0)
        self.assertEqual(len(place.exchange.calls), 1)
        self.assertEqual(connection.line.stats.late_frames, 0)

    def test_a_phone_that_does_not_read_makes_none_late(self) -> None:
        line = StrictLine(window=1000, buffer=3000)
        line.asterisk.start_audio()
        line.asterisk.stop_reading()
        line.turn(5.0)
        stats = line.connection.line.stats
        self.assertGreater(stats.frames_skipped, 0)
        self.assertEqual(stats.late_frames, 0)


class ListenTests(Case):
    """Who listens gets what the phone gets."""

    def listening(self, **asterisk: Any) -> tuple[StrictLine, list[tuple[bytes | None, int]]]:
        line = StrictLine(**asterisk)
        sent: list[tuple[bytes | None, int]] = []
        line.connection.line.listen(lambda *frame: sent.append(frame))
        return line, sent

    def test_each_frame_and_none_for_silence(self) -> None:
        line, sent = self.listening()
        before = line.connection.line.stats.frames_out
        said = tone(440, 8000, 0.5)
        line.turn(0.5)
        line.call.say(said)
        line.turn(1.0)
        self.assertEqual(len(sent), line.connection.line.stats.frames_out - before)
        self.assertEqual(b"".join(frame for frame, _ in sent if frame), said)
        self.assertEqual((sent[0], sent[-1]), ((None, 8000), (None, 8000)))

    def test_at_the_rate_of_the_line(self) -> None:
        line, sent = self.listening()
        line.turn(0.1)
        line.asterisk.send(message(0x12, tone(330, 16000, FRAME)))
        line.turn(RATE_STAYS + 0.1)
        line.call.say(tone(440, 16000, 0.1), 16000)
        line.turn(0.3)
        self.assertEqual({rate for _, rate in sent}, {8000, 16000})
        self.assertEqual({len(frame) for frame, _ in sent if frame}, {640})

    def test_silence_in_place_of_what_was_left_out_after_a_stall(self) -> None:
        for stall, told in ((0.05, 0.05), (0.5, 0.5), (2.0, 2.0), (60.0, LONGEST_HOLE * FRAME)):
            line, sent = self.listening()
            line.turn(1.0)
            line.clock.advance(stall)
            line.turn(1.0)
            seconds = sum(len(frame or bytes(320)) / 16000 for frame, _ in sent)
            self.assertApproximates(seconds, 2.0 + told, 2 * FRAME + 1e-6)
            self.assertEqual({rate for _, rate in sent}, {8000})
            self.assertFalse(any(b"".join(frame or b"" for frame, _ in sent)))

    def test_it_comes_before_the_frame_that_was_late(self) -> None:
        line, sent = self.listening()
        said = tone(440, 8000, 3.0)
        line.call.say(said)
        line.turn(1.0)
        before = len(sent)
        line.clock.advance(0.5)
        hole, *frames = [len(frame or b"") for frame, _ in sent[before:]]
        self.assertApproximates(hole / 16000, 0.5, 2 * FRAME)
        self.assertEqual(set(frames), {320})
        line.turn(3.0)
        whole = b"".join(frame for frame, _ in sent if frame and any(frame))
        self.assertEqual(whole, said)

    def test_nothing_after_the_end(self) -> None:
        ends: tuple[Callable[[StrictLine], None], ...] = (
            lambda line: line.asterisk.hangup(),
            lambda line: line.connection.line.hang_up(),
        )
        for end in ends:
            line, sent = self.listening()
            line.turn(0.5)
            end(line)
            line.turn(0.1)
            frames = len(sent)
            line.turn(0.5)
            self.assertEqual(len(sent), frames)


class StallTests(Case):
    """A phone that takes no audio for ten seconds is lost, although its connection stays open."""

    def stalled(self, **options: float) -> Line:
        line = StrictLine(options, window=1000, buffer=3000)
        line.asterisk.start_audio()
        line.turn(1.0)
        line.asterisk.stop_reading()
        line.turn(0.5)  # what fits the buffers
        return line

    def test_it_ends_the_call_with_one_line(self) -> None:
        line = self.stalled()
        line.turn(9.4)
        self.assertEqual(line.call.gone, 0)
        line.turn(0.5)
        self.assertEqual(line.call.ends, [("lost", "the phone took no audio for 10 s")])
        (logged,) = self.logged
        call_id = line.asterisk.call_id
        self.assertEqual(
            logged,
            f"{call_id} connection from 127.0.0.1:40000 closed: the phone took no audio for 10 s",
        )
        self.assertTrue(line.transport.disconnected)
        line.connection.line.hang_up()  # the call's answer to it
        line.turn(1.0)
        self.check_gone(line)

    def test_after_as_long_as_is_said(self) -> None:
        line = self.stalled(stall_timeout=3.0)
        line.turn(2.4)
        self.assertEqual(line.call.gone, 0)
        line.turn(0.5)
        self.assertEqual(line.call.ends, [("lost", "the phone took no audio for 3 s")])

    def test_a_phone_that_takes_a_little_now_and_then_stays(self) -> None:
        line = self.stalled()
        for _ in range(5):
            line.turn(8.0)
            line.asterisk.start_reading()
            line.turn(50 * MS)
            line.asterisk.stop_reading()
        self.assertEqual(line.call.gone, 0)

    def test_a_caller_on_hold_stays(self) -> None:
        line = StrictLine()
        line.asterisk.start_audio()
        line.turn(1.0)
        line.asterisk.hold()
        line.turn(60.0)
        self.assertEqual((line.call.gone, self.logged), (0, []))

    def test_our_own_stall_is_not_the_phones(self) -> None:
        line = self.stalled()
        line.turn(5.0)
        line.clock.advance(30.0)
        line.turn(1.0)
        self.assertEqual(line.call.gone, 0)
        line.turn(5.0)
        self.assertEqual(line.call.gone, 1)

    def test_one_that_is_being_hung_up_is_not_told_of(self) -> None:
        line = self.stalled(stall_timeout=1.0)
        line.connection.line.hang_up()
        line.turn(3.0)
        self.assertEqual((self.logged, line.call.gone), ([], 1))
        self.check_gone(line)

    def test_before_the_uuid_it_ends_too(self) -> None:
        place, dumb = Place(stall_timeout=1.0), Dumb()
        place.connect(dumb, window=100, buffer=1000)
        dumb.transport.pauseProducing()
        place.turn(2.0)
        (logged,) = self.logged
        self.assertIn("- connection from 127.0.0.1:40000 closed: the phone took no audio", logged)
        self.check_gone(place)

    def test_a_reset_after_a_while_without_reading_is_a_loss(self) -> None:
        for seconds, how in ((STALLED + 0.2, "lost"), (STALLED - 0.2, "hangup")):
            with self.subTest(seconds=seconds):
                line = self.stalled()
                line.turn(seconds - 0.5 + 0.2)
                line.asterisk.reset()
                line.turn(5 * MS)
                [(ended, reason)] = line.call.ends
                self.assertEqual(ended, how)
                self.assertIn("connection", reason)


class NetworkTests(Case):
    def allowed(self, host: str, *allow: str) -> bool:
        place = Place()
        factory = AudioSocketFactory(place.clock, place._connection, Networks(allow))
        address = LinkTransport(place.clock, 40000, 0, None).getHost()
        address.host = host
        taken = factory.buildProtocol(address) is not None
        self.assertEqual((factory.open.count, factory.refused), (int(taken), int(not taken)))
        return taken

    def test_any_peer_may_connect_when_nothing_is_said(self) -> None:
        self.assertTrue(self.allowed("203.0.113.9"))

    def test_only_the_networks_named(self) -> None:
        networks = ("10.0.0.0/8", "192.0.2.7", "fd00::/8")
        for host in ("10.255.0.1", "192.0.2.7", "fd12::1", "::ffff:10.1.2.3", "fd00::1%eth0"):
            with self.subTest(host=host):
                self.assertTrue(self.allowed(host, *networks))
        self.assertEqual(self.logged, [])
        for host in ("11.0.0.1", "192.0.2.8", "fe80::1", "::ffff:11.1.2.3", "", "/run/socket"):
            with self.subTest(host=host):
                self.events.clear()
                self.assertFalse(self.allowed(host, *networks))
                (logged,) = self.logged
                self.assertIn("not in [audiosocket] allow", logged)


class OddFrameTests(Case):
    def test_one_that_is_dropped_does_not_change_the_rate_of_the_line(self) -> None:
        line = StrictLine(rate=16000)
        line.asterisk.send(message(0x12, bytes(640)) * 5)
        line.turn(5 * MS)
        self.assertEqual(line.connection.line.rate, 16000)
        line.asterisk.send(message(0x10, bytes(161)))
        line.turn(5 * MS)
        self.assertEqual(line.connection.line.rate, 16000)
        self.assertEqual(line.connection.line.stats.odd_frames, 1)
