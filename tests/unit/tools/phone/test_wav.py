"""WAV files of every kind that people have."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.wav import WavError, at_rate, read_wav, write_wav
from tests.unit.files import scratch

pytestmark = pytest.mark.tools


class ReadTests(SynchronousTestCase):
    def write(self, width: int, channels: int, data: bytes) -> Path:
        path = scratch(self)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(width)
            file.setframerate(22050)
            file.writeframes(data)
        return path

    def test_widths_come_out_on_one_scale(self) -> None:
        cases = {
            1: bytes([0, 128, 192]),
            2: np.array([-32768, 0, 16384], dtype="<i2").tobytes(),
            3: bytes([0, 0, 0x80, 0, 0, 0, 0, 0, 0x40]),
            4: np.array([-(2**31), 0, 2**30], dtype="<i4").tobytes(),
        }
        for width, data in cases.items():
            with self.subTest(width=width):
                samples, rate = read_wav(self.write(width, 1, data))
                self.assertEqual((samples.tolist(), rate), ([-32768, 0, 16384], 22050))

    def test_channels_are_mixed(self) -> None:
        data = np.array([1000, 3000, -200, 200], dtype="<i2").tobytes()
        self.assertEqual(read_wav(self.write(2, 2, data))[0].tolist(), [2000, 0])

    def test_what_is_no_wav_file_is_told_in_one_sentence(self) -> None:
        text = scratch(self)
        text.write_bytes(b"RIFF and so on")
        empty = scratch(self)
        empty.write_bytes(b"")
        for path, words in (
            (Path("nowhere/in.wav"), "cannot be read: No such file"),
            (text, "is not a PCM WAV file"),
            (empty, "is not a PCM WAV file: it ends too early"),
        ):
            with self.subTest(words=words), self.assertRaisesRegex(WavError, words):
                read_wav(path)

    def test_round_trip(self) -> None:
        path = scratch(self)
        left = np.array([1, -2, 32767], dtype=np.int16)
        right = np.array([3, 4, -32767], dtype=np.int16)
        write_wav(path, [left, right], 8000)
        with wave.open(str(path)) as file:
            self.assertEqual((file.getnchannels(), file.getframerate()), (2, 8000))
            self.assertEqual(
                np.frombuffer(file.readframes(3), dtype="<i2").tolist(),
                [1, 3, -2, 4, 32767, -32767],
            )


class RateTests(SynchronousTestCase):
    def test_the_end_of_the_sound_is_kept(self) -> None:
        for rate, wanted in ((22050, 8000), (44100, 16000), (8000, 16000)):
            with self.subTest(rate=rate, wanted=wanted):
                samples = np.zeros(rate, dtype=np.int16)
                tail = np.arange(rate // 10) / rate
                samples[-tail.size :] = np.sin(2 * np.pi * 500 * tail) * 8000
                changed = at_rate(samples, rate, wanted).astype(float)
                energy = float((changed**2).sum()) / wanted
                self.assertLess(abs(energy / (0.1 * 8000**2 / 2) - 1), 0.005)
