"""A hole in a word is hidden, and nothing clicks where sound begins or ends."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.conceal import HIDDEN, Concealment, fade_out, is_loud
from pipecat_bridge.audio.timescale import Samples, level
from tests.unit.audio.hearing import noise, voice
from tests.unit.audio.test_timescale import buzz


def sound_of(concealment: Concealment, seconds: float, rate: int) -> Samples:
    return np.frombuffer(concealment.take(round(seconds * rate) * 2), "<i2")


def roughest(sound: Samples) -> int:
    """The largest step from one sample to the next."""
    return int(np.abs(np.diff(sound.astype(int))).max())


class ConcealmentTests(SynchronousTestCase):
    def test_a_vowel_goes_on(self) -> None:
        for rate in (8000, 16000, 48000):
            for frequency in (80, 125, 220, 333):
                with self.subTest(rate=rate, frequency=frequency):
                    whole = buzz(frequency, rate, 0.1)
                    past = whole[: round(0.04 * rate)]
                    hidden = sound_of(Concealment(past.tobytes(), rate), 0.01, rate)
                    wanted = whole[past.size : past.size + hidden.size]
                    wrong = level((hidden.astype(int) - wanted).astype(np.int16))
                    self.assertLess(wrong / level(wanted), 0.15)

    def test_it_fades_and_is_over(self) -> None:
        past = buzz(125, 8000, 0.04)
        concealment = Concealment(past.tobytes(), 8000)
        levels = [level(sound_of(concealment, 0.01, 8000)) for _ in range(4)]
        self.assertEqual(levels, sorted(levels, reverse=True))
        self.assertGreater(levels[3], 0.3 * levels[0])
        self.assertFalse(concealment.over)
        self.assertEqual(concealment.seconds, HIDDEN)
        end = sound_of(concealment, 0.02, 8000)
        self.assertFalse(np.any(end[39:]))
        self.assertTrue(concealment.over)
        self.assertEqual(concealment.seconds, HIDDEN + 0.005)
        self.assertEqual(concealment.take(320), bytes(320))

    def test_nothing_clicks(self) -> None:
        """No step is larger than those of the sound itself."""
        sounds = [buzz(110, 8000, 0.04), voice(2.0)[4000:4320], noise(0.04, 2000)]
        sounds.append((8000 * np.sin(np.arange(320) / 9)).astype(np.int16))
        for past in sounds:
            with self.subTest(past=past[:3]):
                concealment = Concealment(past.tobytes(), 8000)
                heard = np.concatenate((past, sound_of(concealment, 0.06, 8000)))
                self.assertLessEqual(roughest(heard), 1.3 * roughest(past))

    def test_what_comes_then_fades_in_over_it(self) -> None:
        past = buzz(125, 8000, 0.04)
        concealment = Concealment(past.tobytes(), 8000)
        before = concealment.take(160)
        new = np.full(160, 3000, np.int16).tobytes()
        joined = concealment.into(new)
        self.assertEqual((len(joined), joined[80:]), (320, new[80:]))
        heard = np.frombuffer(before + joined, "<i2")
        self.assertLessEqual(roughest(heard), 1.3 * roughest(past))

    def test_after_its_end_what_comes_fades_in_from_silence(self) -> None:
        concealment = Concealment(buzz(125, 8000, 0.04).tobytes(), 8000)
        concealment.take(2000)
        new = np.full(160, 3000, np.int16)
        joined = np.frombuffer(concealment.into(new.tobytes()), "<i2")
        self.assertEqual((joined[0], joined[39], joined[40]), (0, 3000, 3000))
        self.assertTrue(np.all(np.diff(joined.astype(int)) >= 0))

    def test_less_than_5_ms_can_be_joined_too(self) -> None:
        concealment = Concealment(buzz(125, 8000, 0.04).tobytes(), 8000)
        self.assertEqual(len(concealment.into(bytes(20))), 20)

    def test_a_short_past_and_full_scale(self) -> None:
        square = np.where(np.arange(160) // 40 % 2, 32767, -32768).astype(np.int16)
        heard = sound_of(Concealment(square.tobytes(), 8000), 0.045, 8000)
        self.assertGreater(level(heard), 1000)


class FadeTests(SynchronousTestCase):
    def test_a_sound_fades_within_5_ms(self) -> None:
        for rate in (8000, 16000, 48000):
            sound = np.full(rate // 50, -20000, np.int16)
            faded = np.frombuffer(fade_out(sound.tobytes(), rate), "<i2")
            self.assertEqual(faded.size, rate // 200)
            self.assertEqual((faded[0], faded[-1]), (-20000, 0))
        self.assertEqual(fade_out(b"", 8000), b"")

    def test_what_is_loud(self) -> None:
        self.assertFalse(is_loud(b""))
        self.assertFalse(is_loud(bytes(320)))
        self.assertFalse(is_loud(noise(0.02, 20).tobytes()))
        self.assertTrue(is_loud(noise(0.02, 60).tobytes()))
