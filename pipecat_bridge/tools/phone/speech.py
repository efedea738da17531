"""Finds speech in audio, by the level of windows of 10 ms."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipecat_bridge.tools.phone.microphone import Samples
from pipecat_bridge.tools.phone.recording import Span

WINDOW_SECONDS: Final = 0.01
# RMS in steps of the 16-bit scale, -42 dB under a full-scale square wave: above a quiet room's
# noise (about -60 dB), below the softest vowels of a voice at normal level.
THRESHOLD: Final = 260.0
# A shorter sound is a click, not speech.
SHORTEST_SECONDS: Final = 0.05
# A shorter silence is a pause between two sentences, not the end of speech.
PAUSE_SECONDS: Final = 0.7


def window_levels(samples: Samples, rate: int) -> npt.NDArray[np.float64]:
    """The RMS of every complete window of 10 ms."""
    width = round(rate * WINDOW_SECONDS)
    whole = samples[: samples.size // width * width].reshape(-1, width).astype(np.float64)
    levels: npt.NDArray[np.float64] = np.sqrt((whole * whole).mean(axis=1))
    return levels


def spans(
    samples: Samples,
    rate: int,
    pause: float = PAUSE_SECONDS,
    shortest: float = SHORTEST_SECONDS,
    threshold: float = THRESHOLD,
) -> list[Span]:
    """The periods of speech. Two periods with less than `pause` seconds between them are one."""
    loud = np.flatnonzero(window_levels(samples, rate) > threshold)
    if not loud.size:
        return []
    cuts = np.flatnonzero(np.diff(loud) * WINDOW_SECONDS > pause) + 1
    found = (
        Span(float(part[0]) * WINDOW_SECONDS, float(part[-1] + 1) * WINDOW_SECONDS)
        for part in np.split(loud, cuts)
    )
    return [span for span in found if span.seconds >= shortest]


def trimmed(samples: Samples, rate: int, threshold: float = THRESHOLD) -> Samples:
    """`samples` without the silence before and after the speech."""
    found = spans(samples, rate, threshold=threshold)
    if not found:
        return samples[:0]
    return samples[round(found[0].start * rate) : round(found[-1].end * rate)]


class SpeechDetector:
    """Detects speech in a stream of chunks.

    Speech begins with 50 ms of sound within 200 ms, and ends after `pause` seconds without sound.
    `speaking`: there is speech now. `began`, `ended`: when the sound of the last speech began and
    ended, in the seconds that `feed` gets. They are not the times of the decision.
    """

    def __init__(self, pause: float = PAUSE_SECONDS, threshold: float = THRESHOLD) -> None:
        self.speaking = False
        self.began = 0.0
        self.ended = 0.0
        self._pause = pause
        self._threshold = threshold
        self._sounds: list[float] = []
        self._rest: Samples = np.empty(0, dtype=np.int16)

    def feed(self, at: float, samples: Samples, rate: int) -> None:
        """Take a chunk that arrived at the time `at`, in seconds."""
        at -= self._rest.size / rate
        samples = np.concatenate((self._rest, samples))
        width = round(rate * WINDOW_SECONDS)
        levels = window_levels(samples, rate)
        self._rest = samples[levels.size * width :]
        for number, level in enumerate(levels):
            self._window(at + number * WINDOW_SECONDS, bool(level > self._threshold))

    def _window(self, at: float, loud: bool) -> None:
        if loud and self.speaking:
            self.ended = at + WINDOW_SECONDS
        elif loud:
            self._sounds = [one for one in self._sounds if at - one < 0.2] + [at]
            if len(self._sounds) * WINDOW_SECONDS >= SHORTEST_SECONDS - 1e-9:
                self.speaking, self.began = True, self._sounds[0]
                self.ended = at + WINDOW_SECONDS
        elif self.speaking and at + WINDOW_SECONDS - self.ended > self._pause:
            self.speaking = False
            self._sounds = []
