"""Hold music: which WAV files are accepted, and how they are looped."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.hold import HoldLoop, read_wav
from tests.unit.signals import sinad, to_signal, tone, wav

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 37800, 44100, 48000, 96000)


class ReadTests(SynchronousTestCase):
    def test_mono_at_any_rate(self) -> None:
        for rate in RATES:
            pcm = tone(440, rate, 0.3)
            self.assertEqual(read_wav(wav(pcm, rate)), (pcm, rate))

    def test_stereo_is_mixed(self) -> None:
        left, right = np.full(1000, 100, "<i2"), np.full(1000, 300, "<i2")
        pcm = np.stack([left, right], axis=1).tobytes()
        self.assertEqual(read_wav(wav(pcm, 8000, 2)).pcm, np.full(1000, 200, "<i2").tobytes())

    def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(self) -> None:
        content = wav(tone(440, 8000, 1.0) * 2, 8000, 2)
        self.assertEqual(len(read_wav(content[:-1001]).pcm), 16000 - 502)

    def test_what_is_none(self) -> None:
        good = wav(tone(440, 8000, 0.1), 8000)
        for content, expected in (
            (b"", "not a PCM WAV file: it ends too early"),
            (b"ID3\x04" + bytes(1000), "not a PCM WAV file: "),
            (good[:20], "not a PCM WAV file: "),
            (good[:20] + b"\x07" + good[21:], "not a PCM WAV file: unknown format: 7"),
            (wav(bytes(1000), 8000, 1, 1), "8 bits: expected 16"),
            (wav(bytes(3000), 8000, 1, 3), "24 bits: expected 16"),
            (wav(b"", 8000), "0 bytes of audio: expected 20 ms or more, 320"),
            (wav(bytes(318), 8000), "318 bytes of audio"),
            (wav(bytes(3200), 4000), "sample rate of 4000 Hz"),
            (wav(bytes(32000), 384000), "sample rate of 384000 Hz"),
        ):
            with self.assertRaisesRegex(ValueError, expected):
                read_wav(content)


class LoopTests(SynchronousTestCase):
    def test_every_rate_to_every_rate_in_time(self) -> None:
        """As many samples as the time has, and the pitch of the recording."""
        for rate in RATES:
            for out in (8000, 12000, 16000, 44100, 48000, 192000):
                with self.subTest(rate=rate, out=out):
                    loop = HoldLoop(tone(400, rate, 1.0), rate, out)
                    frames = [loop.frame(out // 25) for _ in range(100)]
                    self.assertEqual({len(frame) for frame in frames}, {out // 25})
                    heard = to_signal(b"".join(frames))[out // 10 :]
                    self.assertGreater(sinad(heard, 400, out), 60)

    def test_no_seam_where_it_begins_again(self) -> None:
        pcm = tone(400, 8000, 0.25)
        loop = HoldLoop(pcm, 8000, 8000)
        heard = b"".join(loop.frame(320) for _ in range(100))
        self.assertEqual(heard, pcm * 8)

    def test_a_length_that_is_no_whole_number_of_frames(self) -> None:
        pcm = tone(400, 8000, 0.0333)
        loop = HoldLoop(pcm, 8000, 8000)
        heard = b"".join(loop.frame(320) for _ in range(50))
        self.assertEqual(heard, (pcm * 40)[: len(heard)])
