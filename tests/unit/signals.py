"""Signals that tests send through audio, and what they measure of what comes out."""

from __future__ import annotations

import io
import math
import random
import wave
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from pipecat_bridge.audio.resample import Resampler

Signal = npt.NDArray[np.float64]


def seconds(rate: int, count: int) -> Signal:
    """Return the times of `count` samples."""
    return np.arange(count) / rate


def to_pcm(signal: Signal) -> bytes:
    """Return a signal whose full scale is 1 as 16-bit samples, saturated."""
    return np.clip(np.rint(signal * 32768), -32768, 32767).astype("<i2").tobytes()


def to_signal(pcm: bytes) -> Signal:
    """Return 16-bit samples as a signal whose full scale is 1."""
    return np.frombuffer(pcm, "<i2") / 32768


def tone(frequency: float, rate: int, duration: float, dbfs: float = -6.0) -> bytes:
    """Return a sine that begins at phase 0."""
    time = seconds(rate, round(rate * duration))
    return to_pcm(10 ** (dbfs / 20) * np.sin(2 * math.pi * frequency * time))


def wav(pcm: bytes, rate: int, channels: int = 1, width: int = 2) -> bytes:
    """Return a WAV file of samples of `width` bytes."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pcm)
    return content.getvalue()


def multitone(frequencies: Iterable[float], time: Signal, dbfs: float = -3.0) -> Signal:
    """Return sines of equal levels and scattered phases; `dbfs` is that of their common peak."""
    parts = [np.sin(2 * math.pi * f * time + 2.4 * n * n) for n, f in enumerate(frequencies)]
    total: Signal = np.sum(parts, axis=0)
    return 10 ** (dbfs / 20) * total / len(parts)


def noise(count: int, seed: int) -> bytes:
    """Return `count` samples of white noise over the full scale."""
    return np.random.default_rng(seed).integers(-32768, 32768, count).astype("<i2").tobytes()


def fit(signal: Signal, frequency: float, rate: int) -> tuple[complex, Signal]:
    """Return the sine of that frequency, as amplitude * exp(j * phase), and all that is not it.

    Phase 0 is that of `tone`. The constant part counts as neither.
    """
    angle = 2 * math.pi * frequency * seconds(rate, len(signal))
    basis = np.stack([np.sin(angle), np.cos(angle), np.ones(len(signal))], axis=1)
    parts = np.linalg.lstsq(basis, signal, rcond=None)[0]
    return complex(parts[0], parts[1]), signal - basis @ parts


def rms(signal: Signal) -> float:
    return float(np.sqrt(np.mean(signal**2)))


def decibels(ratio: float) -> float:
    return 20 * math.log10(max(ratio, 1e-12))


def sinad(signal: Signal, frequency: float, rate: int) -> float:
    """Return the level of a sine against all else, noise and distortion, in dB."""
    sine, rest = fit(signal, frequency, rate)
    return decibels(abs(sine) / math.sqrt(2) / rms(rest))


def stream(resampler: Resampler, pcm: bytes, duration: float = 0.02) -> bytes:
    """Return what comes out when `pcm` goes in, in chunks of `duration` seconds."""
    size = 2 * round(resampler.rate_in * duration)
    return b"".join(resampler.process(chunk) for chunk in chunks(pcm, size))


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def random_chunks(pcm: bytes, longest: int, seed: int) -> Iterator[bytes]:
    """Cut samples into chunks of 1 to `longest` samples; every third is a single one."""
    choose, at = random.Random(seed), 0
    while at < len(pcm):
        count = 1 if choose.random() < 0.33 else choose.randint(1, longest)
        yield pcm[at : at + 2 * count]
        at += 2 * count
