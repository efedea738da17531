"""Signals that callers play, and Asterisk's raw sound files (signed 16-bit little-endian mono)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from pipecat_bridge.embedded.espeak import Espeak

Signal = npt.NDArray[np.float64]
"""Samples between -1 and 1."""

FULL_SCALE = 32768.0


def ending(rate: int) -> str:
    """The ending of Asterisk's raw files at this rate: sln, sln16, sln24, sln48."""
    return "sln" if rate == 8000 else f"sln{rate // 1000}"


def speech_like(seconds: float, rate: int, seed: int = 1, band: float = 3300.0) -> Signal:
    """Noise between 200 Hz and `band` in syllables of changing level.

    Every stretch of it is unlike every other, so a lost or repeated sample shows.
    """
    count = int(seconds * rate)
    noise = np.random.default_rng(seed).standard_normal(count)
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(count, 1 / rate)
    spectrum[(frequencies < 200.0) | (frequencies > band)] = 0
    samples = np.fft.irfft(spectrum, count)
    time = np.arange(count) / rate
    envelope = 0.25 + 0.75 * np.abs(
        np.sin(2 * np.pi * 1.9 * time) * np.sin(2 * np.pi * 0.37 * time)
    )
    samples *= envelope
    return np.asarray(0.5 * samples / np.abs(samples).max())


def speech(text: str, rate: int, band: float = 3300.0) -> Signal:
    """`text` spoken, band-limited to between 60 Hz and `band`, with a peak of 0.5."""
    espeak = Espeak()
    pcm, own_rate = espeak.synthesize(text)
    samples = resampled(np.frombuffer(pcm, dtype="<i2").astype(np.float64), own_rate, rate)
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
    spectrum[(frequencies < 60.0) | (frequencies > band)] = 0
    samples = np.fft.irfft(spectrum, len(samples))
    return np.asarray(0.5 * samples / np.abs(samples).max())


def resampled(samples: Signal, rate: int, to: int) -> Signal:
    """`samples` at another rate, in one piece."""
    return np.asarray(soxr.resample(samples, rate, to, "VHQ"))


def tone(frequency: float, seconds: float, rate: int, level: float = 0.3) -> Signal:
    """A sine."""
    return np.asarray(level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate))


def silence(seconds: float, rate: int) -> Signal:
    """Zeros."""
    return np.zeros(int(seconds * rate))


def pcm(samples: Signal) -> bytes:
    """Signed 16-bit little-endian."""
    return np.clip(np.rint(samples * FULL_SCALE), -32768, 32767).astype("<i2").tobytes()


def write(folder: Path, name: str, rate: int, samples: Signal) -> Path:
    """Write `samples` as a file that Asterisk can play; returns its path without the ending."""
    (folder / f"{name}.{ending(rate)}").write_bytes(pcm(samples))
    return folder / name


def read(path: Path) -> Signal:
    """The samples of a raw file."""
    return np.frombuffer(path.read_bytes(), dtype="<i2").astype(np.float64) / FULL_SCALE
