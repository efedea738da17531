"""Hides where audio is missing, and fades what begins or ends abruptly, so that nothing clicks."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipecat_bridge.audio.pcm import SAMPLE
from pipecat_bridge.audio.timescale import OVERLAP, SILENT, Samples, crossfade, level, period_of

HIDDEN: Final = 0.04
"""Seconds that are concealed at most. Then the sound fades out. A longer sound without a change is
heard as a buzz."""

STEADY: Final = 0.01
ATTENUATION: Final = 20.0
"""After `STEADY` seconds the sound loses so much of its amplitude in a second, as in ITU-T G.711
Appendix I: a fifth in 10 ms."""


def is_loud(pcm: bytes) -> bool:
    """True if `pcm` is no silence."""
    return level(np.frombuffer(pcm, SAMPLE)) > SILENT


class Concealment:
    """Continues the audio `past`, mono PCM16 at `rate` Hz: its last period is repeated and fades.

    `past` is 20 ms or more.
    """

    __slots__ = ("_at", "_overlap", "_rate", "_sound")

    def __init__(self, past: bytes, rate: int) -> None:
        samples = np.frombuffer(past, SAMPLE)
        self._at = 0  # samples that were taken
        self._rate = rate
        self._overlap = round(OVERLAP * rate)
        period = period_of(samples, rate) or samples.size
        again = samples[-period:].astype(np.float32)
        if period < samples.size:  # no step to what was played
            step = float(samples[-1]) - float(samples[-period - 1])
            smooth = min(self._overlap, period)
            again[:smooth] += np.linspace(step, 0.0, smooth, dtype=np.float32)
        sound = np.resize(again, round(HIDDEN * rate) + self._overlap) * self._gain(rate)
        self._sound: Samples = np.rint(np.clip(sound, -32768, 32767)).astype(SAMPLE)

    def _gain(self, rate: int) -> NDArray[np.float64]:
        hidden = round(HIDDEN * rate)
        times = np.arange(hidden + self._overlap) / rate
        gain = np.clip(1 - ATTENUATION * (times - STEADY), 0.0, 1.0)
        gain[hidden:] *= np.linspace(1.0, 0.0, self._overlap)
        return np.asarray(gain)

    @property
    def over(self) -> bool:
        """True if it has faded out."""
        return self._at >= self._sound.size

    @property
    def seconds(self) -> float:
        """Seconds of it that were taken."""
        return min(self._at, self._sound.size) / self._rate

    def take(self, count: int) -> bytes:
        """The next `count` bytes; zeros after the end."""
        piece = self._sound[self._at : self._at + count // 2]
        self._at += count // 2
        return piece.tobytes().ljust(count, b"\0")

    def into(self, pcm: bytes) -> bytes:
        """`pcm`, with its first 5 ms faded in over what would have come here."""
        samples = np.frombuffer(pcm, SAMPLE)
        size = min(self._overlap, samples.size)
        old = np.frombuffer(self.take(2 * size), SAMPLE)
        return crossfade(old, samples[:size]).tobytes() + pcm[2 * size :]


def fade_out(pcm: bytes, rate: int) -> bytes:
    """The first 5 ms of `pcm`, faded out."""
    samples = np.frombuffer(pcm, SAMPLE)[: round(OVERLAP * rate)]
    return crossfade(samples, np.zeros_like(samples)).tobytes()
