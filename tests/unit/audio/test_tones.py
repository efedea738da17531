"""DTMF tones against Q.23 and Q.24, and as a detector hears them.

Levels are in dBm0: a sine that fills 16 bits has 3.14 dBm0 in A-law (ITU-T G.711, 5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio import g711, tones
from pipecat_bridge.audio.resample import make_resampler
from tests.unit import signals
from tests.unit.signals import Signal

RATES = (8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 192000)
KEYS = "123A456B789C*0#D"
LOW = (697, 770, 852, 941)
HIGH = (1209, 1336, 1477, 1633)
PAIRS = {key: (LOW[at // 4], HIGH[at % 4]) for at, key in enumerate(KEYS)}


def dbm0(signal: Signal, frequency: float, rate: int) -> float:
    return signals.decibels(abs(signals.fit(signal, frequency, rate)[0])) + 3.14


def steady(pcm: bytes, rate: int) -> Signal:
    """The tone of a digit without its beginning and end: 80 ms."""
    return signals.to_signal(pcm)[rate // 100 : rate // 100 + rate * 8 // 100]


def through(codec: str, pcm: bytes) -> bytes:
    return g711.decode(codec, g711.encode(codec, pcm))


class Heard(NamedTuple):
    """A signal as the detector heard it; times in seconds."""

    digit: str
    start: float
    end: float


class Detector:
    """Hears DTMF with Goertzel's algorithm, by what Q.24 asks of receivers.

    A signal is two frequencies, each at -25 dBm0 or more, the high one between 4 dB louder and
    8 dB softer than the low one, 20 ms of sound after 20 ms; all else must be 10 dB softer. It
    must last for 40 ms. Windows of 20 ms, one every 5 ms.
    """

    WINDOW, STEP = 0.02, 0.005
    LEAST, SHORTEST = -25.0, 0.04

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.count = round(rate * self.WINDOW)
        self.shape = np.hanning(self.count)

    def hear(self, pcm: bytes) -> list[Heard]:
        signal = signals.to_signal(pcm)
        step = round(self.rate * self.STEP)
        seen = [
            self.digit(signal[at : at + self.count])
            for at in range(0, len(signal) - self.count + 1, step)
        ]
        heard, start = [], 0
        for at in range(1, len(seen) + 1):
            if at == len(seen) or seen[at] != seen[start]:
                # A window sees a tone once half of it is in the tone.
                begin, end = (time * self.STEP + self.WINDOW / 2 for time in (start, at - 1))
                if seen[start] is not None and end - begin + self.WINDOW / 2 >= self.SHORTEST:
                    heard.append(Heard(str(seen[start]), begin, end))
                start = at
        return heard

    def digit(self, window: Signal) -> str | None:
        low, high = ([self.power(window, one) for one in group] for group in (LOW, HIGH))
        row, column = low.index(max(low)), high.index(max(high))
        levels = [10 * math.log10(max(power, 1e-12)) + 3.14 for power in (low[row], high[column])]
        twist = levels[1] - levels[0]
        # Of a Hanning window 3/8 of the power is left, and both powers are of peaks.
        rest = np.mean((window * self.shape) ** 2) * 2 / 0.375 - low[row] - high[column]
        clear = rest < (low[row] + high[column]) / 10
        if min(levels) < self.LEAST or not -8 <= twist <= 4 or not clear:
            return None
        return KEYS[4 * row + column]

    def power(self, window: Signal, frequency: float) -> float:
        """The square of the amplitude, full scale being 1."""
        turn = 2 * math.cos(2 * math.pi * frequency / self.rate)
        last = before = 0.0
        for sample in window * self.shape:
            last, before = sample + turn * last - before, last
        power = last**2 + before**2 - turn * last * before
        return float(power / (self.shape.sum() / 2) ** 2)


def two_tones(low: float, high: float, twist: float, level: float, duration: float) -> bytes:
    """A signal of other frequencies and levels than ours, in silence; `level` in dBm0."""
    time = signals.seconds(8000, round(8000 * duration))
    parts = [
        10 ** ((at - 3.14) / 20) * np.sin(2 * math.pi * frequency * time)
        for frequency, at in ((low, level), (high, level + twist))
    ]
    quiet = bytes(1600)
    return quiet + signals.to_pcm(parts[0] + parts[1]) + quiet


class DetectorTests(SynchronousTestCase):
    """The detector refuses wrong tones. Else its result for our tones would prove nothing."""

    def digits(self, pcm: bytes) -> list[str]:
        return [one.digit for one in Detector(8000).hear(pcm)]

    def test_it_hears_what_is_within_the_limits(self) -> None:
        for twist, level, duration in ((0, -10, 0.1), (3, -20, 0.1), (-7, -15, 0.1), (0, -3, 0.06)):
            self.assertEqual(self.digits(two_tones(697, 1209, twist, level, duration)), ["1"])

    def test_it_refuses_what_is_not(self) -> None:
        for low, high, twist, level, duration in (
            (697, 1209, 6, -12, 0.1),
            (697, 1209, -10, -8, 0.1),
            (697, 1209, 0, -30, 0.1),
            (697, 1209, 0, -10, 0.02),
            (560, 1209, 0, -10, 0.1),
            (697, 1050, 0, -10, 0.1),
            (697, 0, 0, -10, 0.1),
        ):
            self.assertEqual(self.digits(two_tones(low, high, twist, level, duration)), [])
        self.assertEqual(self.digits(signals.noise(16000, 1)), [])
        self.assertEqual(self.digits(bytes(16000)), [])


class ToneTests(SynchronousTestCase):
    def test_frequencies_are_exact(self) -> None:
        """The bins of the spectrum are 1 Hz wide. Q.23 allows 1.8 %, which is 12 Hz and more."""
        for rate in (8000, 16000, 44100):
            for key, pair in PAIRS.items():
                tone = steady(tones.dtmf(key, rate), rate)
                spectrum = np.abs(np.fft.rfft(tone * np.hanning(len(tone)), rate))
                peaks = [
                    at
                    for at in range(1, 4000)
                    if spectrum[at] == max(spectrum[at - 1 : at + 2]) > spectrum.max() / 5
                ]
                for peak, frequency in zip(peaks, pair, strict=True):
                    self.assertLessEqual(abs(peak - frequency), 1, (key, rate))

    def test_levels(self) -> None:
        for rate in RATES:
            for key, (low, high) in PAIRS.items():
                tone = steady(tones.dtmf(key, rate), rate)
                for frequency, other, level in ((low, high, -10), (high, low, -8)):
                    alone = signals.fit(tone, other, rate)[1]
                    self.assertLess(abs(dbm0(alone, frequency, rate) - level), 0.1, (key, rate))

    def test_there_is_nothing_else_in_them(self) -> None:
        """Q.23: distortion is 20 dB below. Ours is the rounding; that of G.711 comes on top."""
        for codec, margin in ((None, 70), ("alaw", 33), ("ulaw", 33)):
            for key, (low, high) in PAIRS.items():
                pcm = tones.dtmf(key, 8000)
                tone = steady(through(codec, pcm) if codec else pcm, 8000)
                angles = 2 * math.pi * np.outer((low, high), signals.seconds(8000, len(tone)))
                basis = np.concatenate([np.sin(angles), np.cos(angles)]).T
                rest = tone - basis @ np.linalg.lstsq(basis, tone, rcond=None)[0]
                ratio = signals.rms(tone) / signals.rms(rest)
                self.assertGreater(signals.decibels(ratio), margin, (codec, key))

    def test_they_stay_far_from_full_scale(self) -> None:
        for key in KEYS:
            peak = np.abs(signals.to_signal(tones.dtmf(key, 48000))).max()
            self.assertLess(peak, 0.51)
            self.assertGreater(peak, 0.4)

    def test_they_rise_and_fall_without_a_click(self) -> None:
        """Above 2 kHz the whole of a digit, its edges too, is 40 dB below the tone."""
        for rate in (8000, 16000, 48000):
            for key in KEYS:
                sound = signals.to_signal(tones.dtmf(key, rate))
                power = np.abs(np.fft.rfft(sound)) ** 2
                above = round(2000 * len(sound) / rate)
                ratio = 10 * math.log10(power[:above].sum() / power[above:].sum())
                self.assertGreater(ratio, 40, (key, rate))
                self.assertEqual((sound[0], sound[-1]), (0, 0))

    def test_edges_are_ramps_of_5_ms(self) -> None:
        """Half of the way up after half of the time, at both ends alike."""
        rate = 192000
        tone = signals.to_signal(tones.dtmf("D", rate))[: rate // 10]
        angles = 2 * math.pi * np.outer(PAIRS["D"], signals.seconds(rate, len(tone)))
        whole = 10 ** (-13.14 / 20) * np.sin(angles[0]) + 10 ** (-11.14 / 20) * np.sin(angles[1])
        for edge in (slice(None), slice(None, None, -1)):
            sound, loud = tone[edge], whole[edge]
            for ms, share in ((0, 0), (1.25, 0.146), (2.5, 0.5), (3.75, 0.854), (5, 1), (9, 1)):
                near = slice(max(0, round(rate * ms / 1000) - 20), round(rate * ms / 1000) + 20)
                found = sound[near] @ loud[near] / (loud[near] @ loud[near])
                self.assertLess(abs(found - share), 0.02, ms)


class TimeTests(SynchronousTestCase):
    def test_a_tone_and_its_pause_are_ten_frames(self) -> None:
        for rate in RATES:
            for digits in ("5", "12#", KEYS):
                pcm = tones.dtmf(digits, rate)
                self.assertEqual(len(pcm), len(digits) * 10 * (rate // 50) * 2)
                tone, pause = pcm[: rate // 10 * 2], pcm[rate // 10 * 2 : rate // 5 * 2]
                self.assertFalse(any(pause))
                self.assertTrue(any(tone[-rate // 250 :]))

    def test_waits(self) -> None:
        for rate in (8000, 16000):
            for wait, seconds in {",": 0.5, "w": 0.5, "W": 1.0}.items():
                one, two = tones.dtmf("1", rate), tones.dtmf("2", rate)
                silence = bytes(round(2 * rate * seconds))
                self.assertEqual(tones.dtmf(f"1{wait}2", rate), one + silence + two)

    def test_a_rate_without_whole_frames(self) -> None:
        self.assertEqual(len(tones.dtmf("12", 11025)), 2 * 2 * (1102 + 1102))

    def test_no_digits_are_no_sound(self) -> None:
        self.assertEqual(tones.dtmf("", 8000), b"")

    def test_what_has_no_tone(self) -> None:
        for digits in ("E", "12a", " ", "1-2", "\N{ARABIC-INDIC DIGIT ONE}"):
            with self.assertRaisesRegex(ValueError, "^DTMF of '.': expected 0-9 A-D "):
                tones.dtmf(digits, 8000)

    def test_rates_that_cannot_be(self) -> None:
        for rate in (0, -8000, 4000, 7999, 192001):
            with self.assertRaisesRegex(ValueError, f"rate of {rate} Hz: expected 8000 to 192000"):
                tones.dtmf("1", rate)


class HeardTests(SynchronousTestCase):
    def check(self, pcm: bytes, rate: int, digits: str = KEYS) -> list[Heard]:
        heard = Detector(rate).hear(pcm)
        self.assertEqual("".join(one.digit for one in heard), digits)
        return heard

    def test_every_digit_with_its_time(self) -> None:
        for rate in (8000, 16000):
            for at, one in enumerate(self.check(tones.dtmf(KEYS, rate), rate)):
                self.assertLess(abs(one.start - 0.2 * at), 0.011)
                self.assertLess(abs(one.end - 0.2 * at - 0.1), 0.011)

    def test_at_other_rates(self) -> None:
        for rate in (22050, 24000):
            self.check(tones.dtmf("159D", rate), rate, "159D")

    def test_digits_that_repeat(self) -> None:
        self.check(tones.dtmf("1100w00,#", 8000), 8000, "110000#")

    def test_after_g711(self) -> None:
        for codec in g711.CODECS:
            self.check(through(codec, tones.dtmf(KEYS, 8000)), 8000)

    def test_from_a_wideband_call_to_a_narrowband_line(self) -> None:
        pcm = make_resampler(16000, 8000, "fir").process(tones.dtmf(KEYS, 16000) + bytes(640))
        self.check(through("alaw", pcm), 8000)

    def test_on_a_line_that_is_12_db_softer_and_noisy(self) -> None:
        line = signals.to_signal(tones.dtmf(KEYS, 8000)) * 10 ** (-12 / 20)
        noise = np.random.default_rng(3).normal(0, 10 ** (-48 / 20), len(line))
        self.check(through("ulaw", signals.to_pcm(line + noise)), 8000)
