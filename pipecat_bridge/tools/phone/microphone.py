"""The caller's sound, in frames."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]


class Utterance(NamedTuple):
    """Something that the caller says. `start`, `end`: in samples from the start of the call."""

    text: str
    start: int
    end: int


class Microphone:
    """Plays utterances one after the other, and the noise of the room all the time.

    `noise`: RMS of the noise in steps of the 16-bit scale; 0 is digital silence. With the same
    `seed` the noise is the same in every call.
    """

    def __init__(self, noise: float = 0.0, seed: int = 1) -> None:
        self.position = 0
        self.utterances: list[Utterance] = []
        self._noise = noise
        self._random = np.random.default_rng(seed)
        self._waiting = np.empty(0, dtype=np.int16)

    @property
    def speaking(self) -> bool:
        """Whether a part of an utterance has not been read yet."""
        return bool(self._waiting.size)

    def say(self, samples: Samples, text: str = "") -> Utterance:
        """Speak `samples`, at the rate of the call, after all earlier utterances."""
        start = self.position + self._waiting.size
        utterance = Utterance(text, start, start + samples.size)
        self.utterances.append(utterance)
        self._waiting = np.concatenate((self._waiting, samples))
        return utterance

    def read(self, count: int) -> Samples:
        """The next `count` samples."""
        frame = np.zeros(count, dtype=np.int32)
        spoken, self._waiting = self._waiting[:count], self._waiting[count:]
        frame[: spoken.size] = spoken
        if self._noise:
            frame += self._random.normal(0.0, self._noise, count).astype(np.int32)
        self.position += count
        return np.clip(frame, -32768, 32767).astype(np.int16)
