"""The delay comes back: silence and background first, and speech by 8 % at most."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.audio.frame_queue import FrameQueue
from pipecat_bridge.audio.stats import PlayoutStats
from pipecat_bridge.audio.tempo import LASTING, MUCH, SPEECH, Tempo
from pipecat_bridge.audio.timescale import Samples
from tests.unit.audio.hearing import noise, voice
from tests.unit.audio.test_timescale import buzz


class Played:
    """Plays a sound from a queue in which all of it waits, with a debt of `surplus` seconds."""

    def __init__(self, sound: Samples, surplus: float, voice_level: Samples | None = None) -> None:
        self.stats = PlayoutStats()
        queue = FrameQueue(8000)
        queue.append(sound.tobytes(), 0.0)
        self.tempo = Tempo(queue, self.stats)
        self.tempo.listen((sound if voice_level is None else voice_level).tobytes())
        for _ in range(LASTING):
            self.tempo.aim(surplus)
        frames = []
        self.ticks = 0  # until the debt was paid
        while queue.frames:
            if self.tempo.debt:
                self.tempo.work()
                self.ticks += 1
            frames.append(queue.take(320))
        self.heard = np.frombuffer(b"".join(frames) + queue.take_all(), "<i2")


class TempoTests(SynchronousTestCase):
    def test_speech_is_changed_by_8_percent_at_most(self) -> None:
        vowel = buzz(125, 8000, 4.0)
        for surplus in (1.0, -1.0):
            played = Played(vowel, surplus)
            changed = abs(played.heard.size - vowel.size) / 8000
            self.assertApproximates(changed / 4.0, SPEECH, 0.01)

    def test_silence_and_background_go_first(self) -> None:
        loud = buzz(125, 8000)
        for pause in (np.zeros(8000, np.int16), noise(1.0, 200)):
            played = Played(pause, 0.3, voice_level=loud)
            self.assertLess(played.ticks, 40)
            self.assertApproximates(played.stats.shortened_ms, 280, 3)

    def test_quiet_noise_alone_is_no_background(self) -> None:
        """Nobody has spoken, so it may be the voice."""
        played = Played(noise(1.0, 200), 0.3)
        self.assertLess(played.stats.shortened_ms, 120)

    def test_what_is_paid_is_told(self) -> None:
        sound = voice(5.0) + noise(5.0, 40)
        for surplus in (0.1, -0.1):
            played = Played(sound, surplus)
            stats = played.stats
            moved = (played.heard.size - sound.size) / 8
            self.assertApproximates(stats.stretched_ms - stats.shortened_ms, moved, 1e-6)
            self.assertEqual(stats.scaled_ms, played.ticks * 20)
            self.assertEqual(played.tempo.debt, 0.0)

    def test_never_more_is_left_out_than_the_surplus(self) -> None:
        """It would make the next chunk late for its frame."""
        sound = voice(20.0)
        for surplus in (0.0225, 0.03, 0.045, 0.1, 0.21):
            played = Played(sound, surplus)
            whole = (surplus - 0.002) // 0.02 * 20
            self.assertLessEqual(played.stats.shortened_ms, whole)
            self.assertGreater(played.stats.shortened_ms, whole - 3)

    def test_a_hiss_waits_and_then_goes_too(self) -> None:
        hiss = noise(6.0, 3000)
        played = Played(hiss, 0.06)
        self.assertGreater(played.ticks, 25)
        self.assertEqual(played.tempo.debt, 0.0)

    def test_a_small_surplus_must_last_for_two_seconds(self) -> None:
        queue = FrameQueue(8000)
        tempo = Tempo(queue, PlayoutStats())
        for surplus in (0.03, 0.03, 0.0, 0.03, 0.03, 0.03, 0.03):
            tempo.aim(surplus)
            self.assertEqual(tempo.debt, 0.0)
        tempo.aim(0.03)
        self.assertEqual(tempo.debt, FRAME)
        tempo.aim(0.024)  # and then it goes on until the end
        self.assertEqual(tempo.debt, FRAME)
        tempo.aim(None)
        tempo.aim(MUCH + 0.02)
        self.assertGreaterEqual(tempo.debt, MUCH)

    def test_a_small_surplus_is_left(self) -> None:
        for surplus in (0.0, 0.001, 0.01, 0.021, -0.002):
            played = Played(voice(2.0), surplus)
            self.assertEqual(played.ticks, 0)
        self.assertEqual(Played(voice(2.0), None).ticks, 0)  # type: ignore[arg-type]

    def test_a_rest_that_is_never_used_is_left_out(self) -> None:
        """All frames but the last are whole; the rest makes each sample later."""
        for rest, gone in ((0, False), (100, False), (130, True)):
            played = Played(voice(4.0)[: 30000 // 160 * 160 + rest], 0.001)
            self.assertEqual(bool(played.ticks), gone, rest)

    def test_a_short_queue_waits_for_more(self) -> None:
        queue = FrameQueue(8000)
        tempo = Tempo(queue, PlayoutStats())
        tempo.aim(0.05)
        for _ in range(10):
            queue.append(bytes(320), 0.0)
            self.assertEqual(tempo.work(), 0)
            queue.clear()

    def test_no_seam_is_heard(self) -> None:
        sound = voice(10.0)
        played = Played(sound, 0.4)
        step = np.abs(np.diff(sound.astype(int))).max()
        self.assertLessEqual(np.abs(np.diff(played.heard.astype(int))).max(), 1.1 * step)
