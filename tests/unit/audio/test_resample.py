"""The resampler: its sound, its delay, its exactness, and what it costs in memory."""

from __future__ import annotations

import cmath
import itertools
import math
import tracemalloc
from collections.abc import Iterator
from unittest import skipUnless

import numpy as np
import soxr
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge import native
from pipecat_bridge.audio.filters import exact, low_pass
from pipecat_bridge.audio.fir import NativeFir, NumpyFir
from pipecat_bridge.audio.polyphase import Polyphase
from pipecat_bridge.audio.resample import Resampler, make_resampler
from tests.unit import signals

RATES = (8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
PAIRS = tuple(itertools.permutations(RATES, 2))
HIGH_PAIRS = tuple((high, low) for high in (96000, 192000) for low in (*RATES, 288000 - high))

PASS_BAND, STOP_BAND = 0.425, 0.575  # of the lower rate
LONGEST_DELAY = 0.003
KINDS: tuple[type[NativeFir] | type[NumpyFir], ...] = (
    (NativeFir, NumpyFir) if native.COMPILED else (NumpyFir,)
)
SETTLED = 0.05  # seconds after which no trace of the beginning is left


def settled(resampler: Resampler, pcm: bytes) -> signals.Signal:
    """Return the output without its beginning."""
    skip = round(SETTLED * resampler.rate_out)
    return signals.to_signal(signals.stream(resampler, pcm))[skip:]


def through(rate_in: int, rate_out: int, frequency: float, dbfs: float = -6.0) -> signals.Signal:
    pcm = signals.tone(frequency, rate_in, 0.3, dbfs)
    return settled(make_resampler(rate_in, rate_out), pcm)


class SoundTests(SynchronousTestCase):
    def test_sinad_of_tones_between_all_rates(self) -> None:
        for (rate_in, rate_out), frequency in itertools.product(PAIRS, (1000, 3000)):
            with self.subTest(rate_in=rate_in, rate_out=rate_out, frequency=frequency):
                signal = through(rate_in, rate_out, frequency)
                self.assertGreater(signals.sinad(signal, frequency, rate_out), 80)

    def test_nothing_but_the_tone_comes_out_in_the_whole_pass_band(self) -> None:
        """The output has no images of the tone, and no aliases."""
        for (rate_in, rate_out), part in itertools.product(PAIRS, (0.02, 0.2, 0.33, 0.424)):
            frequency = part * min(rate_in, rate_out)
            with self.subTest(rate_in=rate_in, rate_out=rate_out, frequency=frequency):
                signal = through(rate_in, rate_out, frequency, -1)
                self.assertGreater(signals.sinad(signal, frequency, rate_out), 80)

    def test_what_could_alias_is_gone(self) -> None:
        for rate_in, rate_out in (*PAIRS, *HIGH_PAIRS):
            lowest, highest = STOP_BAND * rate_out, rate_in / 2
            if lowest > highest:
                continue
            for frequency in np.linspace(lowest, highest * 0.999, 7):
                with self.subTest(rate_in=rate_in, rate_out=rate_out, frequency=frequency):
                    signal = through(rate_in, rate_out, frequency, -1)
                    level = signals.decibels(signals.rms(signal) * math.sqrt(2)) + 1
                    self.assertLess(level, -80)

    def test_the_pass_band_is_flat_and_its_gain_is_one(self) -> None:
        for (rate_in, rate_out), part in itertools.product(PAIRS, np.linspace(0.01, PASS_BAND, 6)):
            frequency = part * min(rate_in, rate_out)
            with self.subTest(rate_in=rate_in, rate_out=rate_out, frequency=frequency):
                signal = through(rate_in, rate_out, frequency, -6)
                amplitude = abs(signals.fit(signal, frequency, rate_out)[0])
                self.assertLess(abs(signals.decibels(amplitude) + 6), 0.1)

    def test_a_constant_stays_what_it_is(self) -> None:
        for rate_in, rate_out in PAIRS:
            signal = settled(make_resampler(rate_in, rate_out), signals.to_pcm(np.full(8000, 0.5)))
            self.assertLess(np.abs(signal - 0.5).max(), 3 / 32768)

    def test_full_scale_saturates(self) -> None:
        """The steps of a square wave overshoot by 9 %, which must not wrap around."""
        square = np.where(np.arange(8000) // 40 % 2, 1.0, -1.0)
        for rate_in, rate_out in ((8000, 16000), (16000, 8000), (24000, 8000), (22050, 16000)):
            with self.subTest(rate_in=rate_in, rate_out=rate_out):
                signal = settled(make_resampler(rate_in, rate_out), signals.to_pcm(square))
                self.assertEqual((signal.max(), signal.min()), (32767 / 32768, -1.0))
                # A wrapped sample would jump by the whole scale, from one end to the other.
                at_the_top = np.flatnonzero(signal > 0.999)
                around = signal[np.clip(at_the_top + 1, 0, len(signal) - 1)]
                self.assertGreater(around.min(), -0.9)

    def test_as_the_definition_says(self) -> None:
        """Against the sum over all taps, sample by sample, rounded to nearest."""
        for rate_in, rate_out in (*PAIRS, *HIGH_PAIRS):
            common = math.gcd(rate_in, rate_out)
            up, down = rate_out // common, rate_in // common
            pcm, taps = signals.noise(1500, up + down), low_pass(up, down)
            samples = np.frombuffer(pcm, "<i2")
            got = np.frombuffer(make_resampler(rate_in, rate_out).process(pcm), "<i2")
            for n in range(0, len(got), 1 + len(got) // 40):
                newest, phase = divmod(n * down, up)
                ours = taps[phase::up][: newest + 1]
                exact = float(ours @ samples[newest::-1][: len(ours)])
                with self.subTest(rate_in=rate_in, rate_out=rate_out, n=n):
                    self.assertLess(abs(got[n] - min(max(exact, -32768), 32767)), 0.5001)

    def test_agrees_with_soxr_offline(self) -> None:
        """soxr gets the signal as late as our filter makes it, and has no delay of its own."""
        for rate_in, rate_out in PAIRS:
            resampler = make_resampler(rate_in, rate_out)
            time = signals.seconds(rate_in, rate_in // 2)
            band = np.linspace(0.02, PASS_BAND, 23) * min(rate_in, rate_out)
            ours = settled(resampler, signals.to_pcm(signals.multitone(band, time)))
            late = signals.multitone(band, time - resampler.delay)
            reference = soxr.resample(late, rate_in, rate_out, "VHQ")[-len(ours) :]
            keep = slice(0, -round(SETTLED * rate_out))  # soxr's end differs: it sees no future
            error = signals.rms((ours - reference)[keep]) / signals.rms(reference[keep])
            with self.subTest(rate_in=rate_in, rate_out=rate_out):
                self.assertLess(signals.decibels(error), -70)


class DelayTests(SynchronousTestCase):
    def test_the_delay_is_the_one_named_at_every_frequency(self) -> None:
        for (rate_in, rate_out), frequency in itertools.product(PAIRS, (100, 1000, 3000)):
            resampler = make_resampler(rate_in, rate_out)
            signal = signals.to_signal(
                signals.stream(resampler, signals.tone(frequency, rate_in, 1))
            )
            sine, _ = signals.fit(signal[-rate_out // 2 :], frequency, rate_out)
            start = (len(signal) - rate_out // 2) / rate_out
            late = cmath.exp(2j * math.pi * frequency * (start - resampler.delay))
            error = cmath.phase(sine / late) / (2 * math.pi * frequency)
            with self.subTest(rate_in=rate_in, rate_out=rate_out, frequency=frequency):
                self.assertLess(abs(error), 1e-6)

    def test_the_delay_is_short(self) -> None:
        for rate_in, rate_out in (*PAIRS, *HIGH_PAIRS):
            self.assertLessEqual(make_resampler(rate_in, rate_out).delay, LONGEST_DELAY)

    def test_a_click_comes_out_after_the_delay_and_not_in_a_later_block(self) -> None:
        for rate_in, rate_out in PAIRS:
            resampler = make_resampler(rate_in, rate_out)
            click = np.zeros(rate_in // 50)
            click[0] = 1
            got = signals.to_signal(resampler.process(signals.to_pcm(click)))
            peak = int(np.abs(got).argmax()) / rate_out
            self.assertLessEqual(abs(peak - resampler.delay), 0.5 / rate_out + 1e-9)

    def test_ten_minutes_do_not_drift(self) -> None:
        for rate_in, rate_out in ((8000, 16000), (24000, 8000), (44100, 16000), (16000, 22050)):
            resampler = make_resampler(rate_in, rate_out)
            second = signals.tone(440, rate_in, 1)
            outputs = [resampler.process(second) for _ in range(600)]
            with self.subTest(rate_in=rate_in, rate_out=rate_out):
                self.assertEqual({len(pcm) for pcm in outputs}, {2 * rate_out})
                self.assertEqual(set(outputs[1:]), {outputs[1]})


class StreamTests(SynchronousTestCase):
    def test_counts_are_exact_at_every_moment(self) -> None:
        for rate_in, rate_out in (*PAIRS, *HIGH_PAIRS):
            resampler, taken, given = make_resampler(rate_in, rate_out), 0, 0
            for chunk in signals.random_chunks(bytes(2 * 5000), 700, rate_in - rate_out):
                taken += len(chunk) // 2
                given += len(resampler.process(chunk)) // 2
                self.assertEqual(given, -(-taken * rate_out // rate_in), (rate_in, rate_out))

    def test_every_way_to_cut_the_stream_gives_the_same_bytes(self) -> None:
        for n, (rate_in, rate_out) in enumerate((*PAIRS, *HIGH_PAIRS)):
            pcm = signals.noise(3000, n)
            whole = make_resampler(rate_in, rate_out).process(pcm)
            for longest in (2, 30, 1000):
                resampler = make_resampler(rate_in, rate_out)
                parts = map(resampler.process, signals.random_chunks(pcm, longest, n))
                with self.subTest(rate_in=rate_in, rate_out=rate_out, longest=longest):
                    self.assertEqual(b"".join(parts), whole)

    def test_single_samples_give_the_same_bytes(self) -> None:
        for rate_in, rate_out in ((8000, 16000), (24000, 8000), (24000, 16000), (22050, 8000)):
            pcm = signals.noise(1000, 1)
            resampler = make_resampler(rate_in, rate_out)
            parts = map(resampler.process, signals.chunks(pcm, 2))
            self.assertEqual(b"".join(parts), make_resampler(rate_in, rate_out).process(pcm))

    def test_no_sum_depends_on_its_order(self) -> None:
        """All products and sums fit in the 53 bits of a double."""
        for rate_in, rate_out in (*PAIRS, *HIGH_PAIRS):
            common = math.gcd(rate_in, rate_out)
            up = rate_out // common
            units = exact(low_pass(up, rate_in // common)) * 2.0**32
            self.assertTrue((units == np.rint(units)).all())
            largest = max(np.abs(units[phase::up]).sum() for phase in range(up))
            self.assertLess(largest * 32768, 2.0**53)

    def test_streams_that_share_scratch_memory_do_not_mix(self) -> None:
        pcm = [signals.noise(4000, seed) for seed in (1, 2)]
        for rate_in, rate_out in ((8000, 16000), (24000, 8000), (22050, 8000)):
            both = [NumpyFir(rate_in, rate_out) for _ in pcm]
            got = [b"", b""]
            for turn in zip(*(signals.chunks(one, 640) for one in pcm), strict=True):
                for n, chunk in enumerate(turn):
                    got[n] += both[n].process(chunk)
            alone = [NumpyFir(rate_in, rate_out).process(one) for one in pcm]
            self.assertEqual(got, alone)

    def test_reset_begins_a_new_stream(self) -> None:
        for rate_in, rate_out in ((8000, 16000), (24000, 8000), (22050, 8000)):
            resampler = make_resampler(rate_in, rate_out)
            pcm = signals.noise(1001, 3)
            first = resampler.process(pcm)
            self.assertNotEqual(resampler.process(pcm), first)
            resampler.reset()
            self.assertEqual(resampler.process(pcm), first)

    def test_an_odd_number_of_bytes_is_refused_and_leaves_the_stream_alone(self) -> None:
        for rate_in, rate_out in ((8000, 16000), (24000, 8000), (8000, 8000)):
            resampler, other = (make_resampler(rate_in, rate_out) for _ in range(2))
            pcm = signals.noise(160, 4)
            resampler.process(pcm), other.process(pcm)
            for odd in (pcm[1:], pcm[:1], bytes(400_001)):
                with self.assertRaises(ValueError) as caught:
                    resampler.process(odd)
                for number in (len(odd), len(odd) - 1, len(odd) + 1):
                    self.assertIn(str(number), str(caught.exception))
            self.assertEqual(resampler.process(pcm), other.process(pcm))

    def test_nothing_in_nothing_out(self) -> None:
        self.assertEqual(make_resampler(8000, 16000).process(b""), b"")

    def test_views_are_as_good_as_bytes(self) -> None:
        pcm = signals.noise(160, 5)
        for rate_out in (8000, 16000):
            expected = make_resampler(8000, rate_out).process(pcm)
            for other in (bytearray(pcm), memoryview(pcm)):
                got = make_resampler(8000, rate_out).process(other)
                self.assertEqual((got, type(got)), (expected, bytes))


@skipUnless(native.COMPILED, "installed without a C compiler")
class TwinTests(SynchronousTestCase):
    def test_compiled_and_in_numpy_every_sample_is_the_same(self) -> None:
        for n, (rate_in, rate_out) in enumerate((*PAIRS, *HIGH_PAIRS)):
            compiled, numpy = NativeFir(rate_in, rate_out), NumpyFir(rate_in, rate_out)
            self.assertEqual(compiled.delay, numpy.delay)
            pcm = signals.to_pcm(1.4 * signals.to_signal(signals.noise(9000, n)))  # some too loud
            for longest in (2, 1000, 9000):
                for chunk in signals.random_chunks(pcm, longest, n):
                    expected = numpy.process(chunk)
                    self.assertEqual(compiled.process(chunk), expected, (rate_in, rate_out))


class MemoryTests(SynchronousTestCase):
    PATHS = ((8000, 16000, 320), (16000, 8000, 640), (24000, 8000, 1920), (22050, 16000, 882))

    def test_nothing_is_allocated_beyond_the_result(self) -> None:
        for kind, (rate_in, rate_out, size) in itertools.product(KINDS, self.PATHS):
            resampler, pcm = kind(rate_in, rate_out), bytes(size)
            result = max(len(resampler.process(pcm)) for _ in range(5))
            with self.subTest(kind=kind, rate_in=rate_in, rate_out=rate_out), traced():
                kept_before, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                for _ in range(200):
                    resampler.process(pcm)
                kept, peak = tracemalloc.get_traced_memory()
                self.assertLess(kept - kept_before, 200)
                self.assertLess(peak - kept_before, result + 500)

    def test_a_stream_keeps_less_than_a_kilobyte(self) -> None:
        for kind, (rate_in, rate_out, size) in itertools.product(KINDS, self.PATHS[:3]):
            pcm = bytes(size)
            kind(rate_in, rate_out).process(pcm)
            with self.subTest(kind=kind, rate_in=rate_in, rate_out=rate_out), traced():
                before, _ = tracemalloc.get_traced_memory()
                streams = [kind(rate_in, rate_out) for _ in range(100)]
                for resampler in streams:
                    resampler.process(pcm)
                after, _ = tracemalloc.get_traced_memory()
                self.assertLess((after - before) / len(streams), 1000)

    def test_chunks_of_any_length_do_not_add_up(self) -> None:
        shared = Polyphase(2, 1)
        for count in range(1, 500):
            shared.layout(0, count)
        self.assertLessEqual(shared.layout.cache_info().currsize, 64)


class traced:  # noqa: N801 - used as a statement
    """Measures allocations within a `with` block."""

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *_: object) -> None:
        tracemalloc.stop()


class ChoiceTests(SynchronousTestCase):
    def test_equal_rates_pass_through(self) -> None:
        for kind in ("fir", "soxr"):
            resampler = make_resampler(16000, 16000, kind)
            self.assertEqual(resampler.process(b"\1\2\3\4"), b"\1\2\3\4")
            self.assertEqual(resampler.delay, 0)

    def test_what_cannot_be_done_is_refused_in_a_sentence(self) -> None:
        for arguments, words in (
            ((8000, 16000, "linear"), ("'linear'", "'fir'", "'soxr'")),
            ((7999, 8000), ("7999", "8000", "192000")),
            ((8000, 0), ("0 Hz", "8000", "192000")),
            ((-8000, 8000), ("-8000",)),
            ((44101, 8000), ("44101", "8000", "soxr")),
        ):
            with self.assertRaises(ValueError) as caught:
                make_resampler(*arguments)
            for word in words:
                self.assertIn(word, str(caught.exception))

    def test_rates_are_those_asked_for(self) -> None:
        for kind in ("fir", "soxr"):
            resampler = make_resampler(24000, 8000, kind)
            self.assertEqual((resampler.rate_in, resampler.rate_out), (24000, 8000))


class SoxrTests(SynchronousTestCase):
    def resamplers(self) -> Iterator[Resampler]:
        for rate_in, rate_out in PAIRS:
            yield make_resampler(rate_in, rate_out, "soxr")

    def test_sound(self) -> None:
        for resampler in self.resamplers():
            signal = settled(resampler, signals.tone(1000, resampler.rate_in, 1))
            with self.subTest(rate_in=resampler.rate_in, rate_out=resampler.rate_out):
                self.assertGreater(signals.sinad(signal[4000:], 1000, resampler.rate_out), 80)

    def test_it_holds_back_no_more_than_it_says(self) -> None:
        for resampler in self.resamplers():
            taken, given, held = 0, 0, []
            for chunk in signals.chunks(bytes(4 * resampler.rate_in), resampler.rate_in // 25):
                taken += len(chunk) // 2
                given += len(resampler.process(chunk)) // 2
                held.append(taken / resampler.rate_in - given / resampler.rate_out)
            with self.subTest(rate_in=resampler.rate_in, rate_out=resampler.rate_out):
                self.assertLessEqual(max(held), resampler.delay)

    def test_odd_ratios_are_what_it_is_there_for(self) -> None:
        resampler = make_resampler(44101, 8000, "soxr")
        signal = settled(resampler, signals.tone(1000, 44101, 1))
        self.assertGreater(signals.sinad(signal[2000:], 1000, 8000), 80)

    def test_an_odd_number_of_bytes_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "321 .* 320 or 322"):
            make_resampler(8000, 16000, "soxr").process(bytes(321))

    def test_reset_begins_a_new_stream(self) -> None:
        resampler = make_resampler(8000, 16000, "soxr")
        pcm = signals.noise(4000, 3)
        first = signals.to_signal(resampler.process(pcm))
        resampler.process(pcm)
        resampler.reset()
        again = signals.to_signal(resampler.process(pcm))
        self.assertLess(np.abs(again - first).max(), 4 / 32768)  # soxr adds dither
