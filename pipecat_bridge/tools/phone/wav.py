"""Reads and writes WAV files, as 16-bit samples in memory."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.tools.phone.microphone import Samples


class WavError(ValueError):
    """The file is not a WAV file that can be used. The text is one sentence that says why."""


def read_wav(path: Path) -> tuple[Samples, int]:
    """The samples of a PCM WAV file, with all channels mixed into one, and the sample rate.

    Raises `WavError` if the file is missing, is not a WAV file, or is not PCM of 8 to 32 bits.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except OSError as error:
        raise WavError(f"{path} cannot be read: {error.strerror or error}") from error
    except (wave.Error, EOFError) as error:
        text = str(error) or "it ends too early"
        raise WavError(f"{path} is not a PCM WAV file: {text}") from error
    data = data[: len(data) // (width * channels) * (width * channels)]
    mixed = _decoded(data, width).reshape(-1, channels).mean(axis=1)
    return np.rint(mixed).clip(-32768, 32767).astype(np.int16), rate


def write_wav(path: Path, channels: list[Samples], rate: int) -> None:
    """Write channels of equal length as a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.stack(channels, axis=1).astype("<i2").tobytes())


def at_rate(samples: Samples, rate: int, wanted: int) -> Samples:
    """`samples` at the rate `wanted`. 10 ms of silence are added, so that the resampler's delay
    does not cut off the end."""
    if rate == wanted:
        return samples
    pcm = samples.astype("<i2").tobytes() + bytes(2 * (rate // 100))
    pcm = make_resampler(rate, wanted).process(pcm)
    return np.frombuffer(pcm, dtype="<i2").astype(np.int16)


def _decoded(data: bytes, width: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Decode samples of `width` bytes to the 16-bit scale."""
    raw = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    if width == 1:
        return (raw[:, 0].astype(np.float64) - 128.0) * 256.0
    wide = np.zeros((raw.shape[0], 4), dtype=np.uint8)
    wide[:, 4 - width :] = raw
    return wide.view("<i4")[:, 0].astype(np.float64) / 65536.0
