"""The playout queue: what is written is played, whole, in order, no later than it has to be."""

from __future__ import annotations

import struct
import sys
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio import playout
from pipecat_bridge.audio.pcm import Pcm
from pipecat_bridge.audio.playout import AT_ONCE, MAX_RATES, Playout
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.errors import FormatError
from tests.doubles.bot import riff_header
from tests.unit.signals import tone

RATES = (8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000, 192000)
FRAME = 0.02
MS = 0.001
START = 100.0


def loud(samples: int, start: int = 0) -> bytes:
    """Samples that are never 0, so that silence can be told from them, and all in order."""
    numbers = np.arange(start, start + samples)
    return bytes((numbers % 32767 + 1).astype("<i2").data)


class Line:
    """A phone that takes a frame every 20 ms from a playout queue."""

    def __init__(self, **options: Any) -> None:
        self.playout = Playout(**options)
        self.ticks = 0
        self.played: list[bytes | None] = []

    @property
    def now(self) -> float:
        """The time of the next tick."""
        return START + self.ticks * FRAME

    def write(self, pcm: bytes, rate: int = 8000, channels: int = 1, before: float = 0.0) -> bool:
        """The bot's audio comes `before` seconds before the next tick. False: it was dropped."""
        return self.playout.write(pcm, rate, channels, self.now - before)

    def tick(self, count: int = 1) -> list[bytes | None]:
        frames = []
        for _ in range(count):
            frames.append(self.playout.read(self.now))
            self.ticks += 1
        self.played += frames
        return frames

    def drain(self, limit: int = 100_000) -> None:
        while not self.playout.empty and limit:
            self.tick()
            limit -= 1

    def pause(self, seconds: float = 1.0) -> None:
        self.tick(round(seconds / FRAME))

    @property
    def heard(self) -> bytes:
        """All that was played, without silence between frames."""
        return b"".join(frame for frame in self.played if frame is not None)


class BytesTests(SynchronousTestCase):
    def test_every_size_of_write_comes_out_to_the_byte(self) -> None:
        pcm = loud(4000)
        for size in (1, 2, 3, 7, 159, 160, 319, 320, 321, 640, 641, 1000, 7999, 8000):
            with self.subTest(size=size):
                line = Line()
                for start in range(0, len(pcm), size):
                    line.write(pcm[start : start + size])
                line.drain()
                self.assertEqual(line.heard.rstrip(b"\0"), pcm.rstrip(b"\0"))
                self.assertEqual({len(frame) for frame in line.played if frame}, {320})

    def test_every_rate_of_the_phone(self) -> None:
        for rate in RATES:
            with self.subTest(rate=rate):
                line = Line(rate=rate)
                pcm = loud(rate)
                line.write(pcm, rate)
                line.drain()
                self.assertEqual(line.heard, pcm)
                self.assertEqual({len(frame) for frame in line.played if frame}, {rate // 25})

    def test_every_rate_of_the_bot_is_converted_without_seams(self) -> None:
        for rate in (8000, 16000, 22050, 24000, 32000, 44100, 48000):
            with self.subTest(rate=rate):
                pcm = tone(440, rate, 1.0)
                line = Line()
                for start in range(0, len(pcm), 1001):  # odd, and no multiple of anything
                    line.write(pcm[start : start + 1001], rate)
                line.drain()
                whole = make_resampler(rate, 8000).process(pcm)
                self.assertEqual(line.heard[: len(whole)], whole)

    def test_a_riff_header_is_stripped_and_believed(self) -> None:
        pcm = tone(440, 24000, 0.4)
        line = Line(rate=24000)
        for start in range(0, len(pcm), 1920):
            piece = pcm[start : start + 1920]
            line.write(riff_header(len(piece), 24000) + piece, rate=8000)
        line.drain()
        self.assertEqual(line.heard, pcm)

    def test_a_riff_header_between_two_halves_of_a_sample(self) -> None:
        pcm = loud(640)
        line = Line()
        for start in range(0, len(pcm), 321):
            piece = pcm[start : start + 321]
            line.write(riff_header(len(piece), 8000) + piece)
        line.drain()
        self.assertEqual(line.heard, pcm)

    def test_a_header_that_lies_about_its_size_is_not_trusted(self) -> None:
        pcm = loud(800)
        for claim in (0, 1, 320, 0xFFFFFFFF):
            with self.subTest(claim=claim):
                header = bytearray(riff_header(len(pcm), 8000))
                struct.pack_into("<I", header, 40, claim)
                line = Line()
                line.write(bytes(header) + pcm)
                line.drain()
                self.assertEqual(line.heard, pcm)

    def test_stereo_is_mixed_down_even_when_it_is_cut_within_a_sample(self) -> None:
        left, right = np.arange(0, 1600), np.arange(1000, 2600)
        both = np.column_stack([left, right]).astype("<i2").tobytes()
        mean = ((left + right) // 2).astype("<i2").tobytes()
        for size in (1, 3, 642, 6400):
            with self.subTest(size=size):
                line = Line()
                for start in range(0, len(both), size):
                    line.write(both[start : start + size], channels=2)
                line.drain()
                self.assertEqual(line.heard, mean)

    def test_one_frame_of_64_kb(self) -> None:
        line = Line(rate=16000)
        pcm = loud(32000)
        line.write(pcm, 16000)
        self.assertApproximates(line.playout.depth, 2.0, 1e-9)
        line.drain()
        self.assertEqual(line.heard, pcm)

    def test_nothing_written_is_nothing_played(self) -> None:
        line = Line()
        line.write(b"")
        line.write(riff_header(0, 8000))
        line.pause()
        self.assertEqual(line.heard, b"")
        self.assertEqual(line.playout.stats.frames_played, 0)


class RateChangeTests(SynchronousTestCase):
    def test_the_bot_changes_its_rate_in_mid_stream(self) -> None:
        line = Line()
        want = b""
        for rate in (24000, 8000, 16000, 24000):
            pcm = tone(440, rate, 0.4)
            line.write(pcm, rate)
            want += make_resampler(rate, 8000).process(pcm)
        line.drain()
        self.assertEqual(line.heard, want)

    def test_half_a_sample_does_not_shift_what_comes_at_another_rate(self) -> None:
        line = Line()
        line.write(tone(440, 24000, 0.2) + b"\x55", 24000)
        pcm = loud(1600)
        line.write(pcm, 8000)
        line.drain()
        self.assertEqual(line.heard[-len(pcm) :], pcm)

    def test_a_bad_frame_is_refused_and_harms_nothing(self) -> None:
        for good in (8000, 24000):
            with self.subTest(good=good):
                line = Line()
                pcm = tone(440, good, 0.2)
                line.write(pcm[:641], good)
                for rate in (0, -1, 7999, 192001, 4_000_000_000):
                    with self.assertRaisesRegex(ValueError, "Hz: expected 8000 to 192000"):
                        line.write(bytes(64), rate)
                line.write(pcm[641:], good)
                line.drain()
                self.assertEqual(line.heard, make_resampler(good, 8000).process(pcm))

    def test_a_number_of_channels_that_cannot_be_is_refused(self) -> None:
        line = Line()
        for channels in (0, -1, 9, 65535, 4_000_000_000):
            with self.assertRaisesRegex(ValueError, "channels: expected 1 to 8"):
                line.write(bytes(64), channels=channels)
        with self.assertRaisesRegex(ValueError, "channels: expected 1 to 8"):
            line.write(riff_header(64, 8000, 32767) + bytes(64))
        pcm = loud(800)
        line.write(pcm)
        line.drain()
        self.assertEqual(line.heard, pcm)

    def test_bots_of_one_call_have_a_few_rates(self) -> None:
        """A filter for a rate that is new takes milliseconds to make, and all calls wait."""
        line = Line()
        rates = range(16000, 16000 + 1000 * MAX_RATES, 1000)
        for rate in (*rates, *rates):
            line.write(bytes(64), rate)
        with self.assertRaisesRegex(FormatError, f"of 9000 Hz, after {MAX_RATES} others"):
            line.write(bytes(64), 9000)

    def test_the_phone_changes_its_rate_while_audio_waits(self) -> None:
        for new in (16000, 44100, 48000, 12000):
            with self.subTest(new=new):
                line = Line()
                pcm = tone(440, 8000, 1.0)
                line.write(pcm)
                first = line.tick(10)
                self.assertEqual(b"".join(frame or b"" for frame in first), pcm[: 10 * 320])
                line.playout.set_rate(new)
                self.assertEqual(line.playout.silence, bytes(new // 25))
                self.assertApproximates(line.playout.depth, 0.8, 0.021)
                line.played.clear()
                line.drain()
                rest = make_resampler(8000, new).process(pcm[10 * 320 :])
                self.assertEqual(line.heard[: len(rest)], rest)
                self.assertLess(line.playout.stats.delays.longest, 1.1)

    def test_the_phone_changes_its_rate_while_much_waits(self) -> None:
        """No call of the resampler takes long, and the sound is as if all was converted at once."""
        longest = self._longest_conversion()
        for new in (16000, 44100, 192000):
            with self.subTest(new=new):
                line = Line()
                pcm = tone(440, 8000, 10.0)
                line.write(pcm)
                line.tick(10)
                line.playout.set_rate(new)
                self.assertEqual(line.playout.silence, bytes(new // 25))
                self.assertApproximates(line.playout.depth, 9.8, 0.021)
                line.played.clear()
                line.drain()
                self.assertEqual({len(frame or b"") for frame in line.played}, {new // 25})
                rest = make_resampler(8000, new).process(pcm[10 * 320 :])
                self.assertEqual(line.heard[: len(rest)], rest)
                line.write(pcm[:3200])
                [frame] = line.tick()
                self.assertEqual(len(frame or b""), new // 25)
        self.assertLessEqual(max(longest), AT_ONCE * 16000)

    def _longest_conversion(self) -> list[int]:
        """Bytes that each call of a resampler for the phone gets from now on."""
        sizes = [0]

        class Counted:
            def __init__(self, resampler: Resampler) -> None:
                self._resampler = resampler

            def __getattr__(self, name: str) -> Any:
                return getattr(self._resampler, name)

            def process(self, pcm: Pcm) -> bytes:
                sizes.append(len(pcm))
                return self._resampler.process(pcm)

        def counted(old: int, new: int, kind: Any = "fir") -> Counted:
            return Counted(make_resampler(old, new, kind))

        self.patch(playout, "make_resampler", counted)
        return sizes

    def test_a_phone_that_goes_back_and_forth_while_much_waits(self) -> None:
        longest = self._longest_conversion()
        line = Line()
        line.write(tone(440, 8000, 10.0))
        for number in range(20):
            line.playout.set_rate((192000, 8000)[number % 2])
            line.tick()
            self.assertEqual(len(line.played[-1] or b""), (7680, 320)[number % 2])
        self.assertLessEqual(max(longest), 320)
        line.drain()
        self.assertEqual(line.heard[-320 * 400 :], tone(440, 8000, 10.0)[-320 * 400 :])

    def test_an_interruption_while_the_voice_has_another_rate_than_the_phone(self) -> None:
        line = Line()
        line.write(tone(440, 8000, 10.0))
        line.tick(10)
        line.playout.set_rate(16000)
        line.tick()
        line.playout.flush()
        self.assertEqual(line.playout.stats.flushed_ms, 10_000 - 11 * 20)
        tail, after = line.tick(2)
        self.assertEqual((len(tail or b""), after), (640, None))
        pcm = tone(440, 16000, 1.0)
        line.played.clear()
        line.write(pcm, 16000)
        line.drain()
        self.assertEqual(line.heard, pcm)

    def test_the_phone_changes_its_rate_with_less_than_a_frame_waiting(self) -> None:
        for old, new in ((8000, 16000), (44100, 8000), (16000, 8000)):
            for missing in range(1, 4):
                with self.subTest(old=old, new=new, missing=missing):
                    line = Line(rate=old)
                    line.write(loud(old // 50 - missing), old)
                    line.playout.set_rate(new)
                    line.pause(0.2)
                    self.assertEqual(line.playout.stats.frames_played, 1)
                    self.assertLess(line.playout.stats.delays.longest, 0.2)

    def test_the_same_rate_again_changes_nothing(self) -> None:
        line = Line()
        pcm = loud(8000)
        line.write(pcm)
        line.playout.set_rate(8000)
        line.drain()
        self.assertEqual(line.heard, pcm)


class RestTests(SynchronousTestCase):
    """Less than a frame is left: at the end of an utterance, or because the bot is late."""

    def test_at_the_end_it_follows_at_once_padded_with_silence(self) -> None:
        for samples in (1, 80, 159):
            with self.subTest(samples=samples):
                line = Line(prebuffer=0.0)
                pcm = loud(480 + samples)
                line.write(pcm, before=1 * MS)
                line.tick(6)
                self.assertEqual(line.played[4:], [None, None])
                self.assertEqual(line.played[3], pcm[960:].ljust(320, b"\0"))
                self.assertEqual(line.heard[: len(pcm)], pcm)

    def test_no_silence_in_its_midst_while_the_bot_is_writing(self) -> None:
        """One write of 10 ms is late, without a prebuffer: the sound before goes on."""
        line = Line(prebuffer=0.0)
        pcm = loud(160 * 100)
        for number in range(200):
            late = 15 * MS if number == 81 else 0.0
            at = START + number * 10 * MS + 7 * MS + late
            while line.now <= at:
                line.tick()
            line.playout.write(pcm[number * 160 : (number + 1) * 160], 8000, 1, at)
        line.drain()
        stats = line.playout.stats
        self.assertEqual(stats.underruns, 1)
        self.assertApproximates(stats.concealed_ms, stats.underrun_ms, 1e-9)
        end = 20 - (len(line.heard) - len(pcm)) // 16 % 20  # at the end the sound fades
        self.assertGreater(end, 0)
        self.assertNotIn(0, np.frombuffer(line.heard, "<i2"))

    def test_a_bot_that_is_late_after_a_rest_is_an_underrun(self) -> None:
        line = Line(prebuffer=0.0)
        line.write(loud(480 + 40), before=1 * MS)
        line.tick(5)
        line.write(loud(1600))
        line.drain()
        self.assertEqual(line.playout.stats.underruns, 1)
        # 5 ms of the padded frame were audio; then 15 ms, and a tick of nothing.
        self.assertApproximates(line.playout.stats.underrun_ms, 35, 1e-6)

    def test_it_counts_as_played_with_its_delay(self) -> None:
        line = Line()
        line.write(loud(80), before=10 * MS)
        line.pause()
        self.assertEqual(line.played[1], loud(80).ljust(320, b"\0"))
        self.assertEqual(line.playout.stats.frames_played, 1)
        self.assertApproximates(line.playout.stats.delays.mean, 30 * MS, 1e-9)


class FlushTests(SynchronousTestCase):
    def test_what_was_before_is_gone_and_what_comes_after_is_whole(self) -> None:
        for rate in (8000, 16000, 24000):
            for waiting in (0, 1, 159, 160, 16000):
                with self.subTest(rate=rate, waiting=waiting):
                    line = Line()
                    line.write(tone(440, rate, 3.0)[: 2 * waiting] + b"\x55", rate)
                    line.tick(3)
                    line.playout.flush()
                    self.assertTrue(line.playout.empty)
                    self.assertEqual(line.tick(10)[1:], [None] * 9)  # the first one may fade
                    line.played.clear()
                    pcm = tone(330, rate, 0.5)
                    line.write(pcm, rate)
                    line.drain()
                    want = make_resampler(rate, 8000).process(pcm)
                    self.assertEqual(line.heard, want)

    def test_the_sound_fades_out_in_5_ms(self) -> None:
        for waiting in (40, 160, 8000):
            line = Line(prebuffer=0.0)
            line.write(struct.pack("<h", 8000) * (160 + waiting))
            line.tick()
            line.playout.flush()
            tail, *rest = line.tick(3)
            samples = np.frombuffer(tail or b"", "<i2")
            self.assertEqual((samples[0], samples[39], samples.size), (8000, 0, 160))
            self.assertTrue(np.all(np.diff(samples[:40]) < 0))
            self.assertFalse(np.any(samples[40:]))
            self.assertEqual(rest, [None, None])
            self.assertEqual(line.playout.stats.frames_played, 1)

    def test_where_nothing_sounds_nothing_fades(self) -> None:
        for pcm in (b"", bytes(3200)):
            line = Line(prebuffer=0.0)
            line.write(pcm)
            line.tick()
            line.playout.flush()
            self.assertEqual(line.tick(3), [None, None, None])

    def test_its_cost_does_not_depend_on_the_depth(self) -> None:
        steps = {samples: self.count_steps(samples) for samples in (8000, 80_000, 480_000)}
        self.assertEqual(len(set(steps.values())), 1, steps)

    def count_steps(self, samples: int) -> int:
        """Lines of Python and calls into C that a flush takes."""
        line = Line()
        line.write(loud(samples))
        line.tick(2)
        steps = 0

        def traced(frame: Any, event: str, argument: Any) -> Any:
            nonlocal steps
            steps += 1
            return traced

        before = sys.gettrace(), sys.getprofile()
        sys.settrace(traced)
        sys.setprofile(traced)
        try:
            line.playout.flush()
        finally:
            sys.settrace(before[0])
            sys.setprofile(before[1])
        return steps

    def test_it_is_counted(self) -> None:
        line = Line()
        line.write(loud(8000 + 80))
        line.tick(10)
        line.playout.flush()
        line.playout.flush()
        stats = line.playout.stats
        self.assertEqual((stats.flushes, stats.flushed_ms), (2, 810))


class DepthTests(SynchronousTestCase):
    def test_what_comes_at_the_bound_is_dropped_and_counted(self) -> None:
        line = Line(max_queue=2.0)
        pcm = loud(24000)
        self.assertTrue(line.write(pcm[:31998]))
        self.assertTrue(line.write(pcm[31998:32000]))
        self.assertFalse(line.write(pcm[32000:40000]))
        self.assertEqual(line.playout.stats.dropped_ms, 500)
        self.assertApproximates(line.playout.depth, 2.0, 1e-9)
        line.tick()
        self.assertTrue(line.write(pcm[40000:]))
        self.assertFalse(line.write(pcm))
        line.playout.flush()
        self.assertTrue(line.write(pcm))
        line.drain()
        self.assertEqual(line.heard[-len(pcm) :], pcm)

    def test_a_minute_at_once_is_played_whole(self) -> None:
        line = Line()
        pcm = loud(60 * 8000)
        line.write(pcm)
        line.drain()
        self.assertEqual(line.heard, pcm)
        self.assertNotIn(None, line.played[:3000])
        self.assertEqual(line.playout.stats.depth_max_ms, 60_000)

    def test_delays_are_those_from_arrival_to_the_phone(self) -> None:
        line = Line(prebuffer=0.0)
        line.write(loud(320), before=5 * MS)  # waits 5, and 25 ms
        line.tick()
        line.write(loud(160), before=15 * MS)  # comes while the second waits: 35 ms
        line.tick(2)
        stats = line.playout.stats
        self.assertEqual(stats.frames_played, 3)
        self.assertApproximates(stats.delays.total, 65 * MS, 1e-9)
        self.assertApproximates(stats.delays.mean, 65 * MS / 3, 1e-9)
        self.assertApproximates(stats.delays.longest, 35 * MS, 1e-9)

    def test_the_filters_delay_is_told(self) -> None:
        line = Line()
        line.write(bytes(960), 24000)
        self.assertEqual(line.playout.stats.filter_ms, make_resampler(24000, 8000).delay * 1000)
        self.assertEqual(Playout().stats.delays.mean, 0.0)


Step = tuple[str, int]


def steps() -> st.SearchStrategy[list[Step]]:
    write = st.tuples(st.just("write"), st.integers(0, 1500))
    tick = st.tuples(st.just("tick"), st.integers(1, 30))
    return st.lists(st.one_of(write, tick, tick), max_size=80)


def soft(size: int, start: int) -> bytes:
    """Samples of 1 to 20, so soft that nothing is concealed or fades."""
    return bytes(0 if n % 2 else n // 2 % 20 + 1 for n in range(start, start + size))


class InterleavingTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(steps(), st.sampled_from([0.0, 0.02, 0.04, 0.1]), st.sampled_from([8000, 16000]))
    def test_what_is_played_is_what_was_written(
        self, plan: list[Step], prebuffer: float, rate: int
    ) -> None:
        line = Line(rate=rate, prebuffer=prebuffer, time_scaling=False)
        written = b""
        for what, count in plan:
            if what == "write":
                piece = soft(count, len(written))
                written += piece
                line.write(piece, rate)
            else:
                line.tick(count)
        line.drain()
        whole = written[: len(written) // 2 * 2]
        self.assertEqual(line.heard.replace(b"\0", b""), whole.replace(b"\0", b""))
        self.assertEqual({len(frame) for frame in line.played if frame} - {rate // 25}, set())

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 5), st.booleans()), max_size=40))
    def test_nothing_of_before_a_flush_is_played_after_it(
        self, plan: list[tuple[int, int, bool]]
    ) -> None:
        line = Line()
        for number, (size, ticks, flush) in enumerate(plan):
            mark = number % 250 + 1
            line.write(bytes([mark]) * (size // 2 * 2))
            if flush:
                line.playout.flush()
            for tick, frame in enumerate(line.tick(ticks)):
                if flush and tick:
                    self.assertIsNone(frame)
                elif flush and frame is not None:
                    self.assertFalse(any(frame[80:]))  # fades within 5 ms
