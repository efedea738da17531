"""Numbered marks in the audio, which can be found again within a fraction of a millisecond, at any
sample rate.

A mark is a row of ten pulses, 1 ms apart. The first is positive and shows the position. The signs
of the next eight are the bits of the number. The last one is for even parity. The pulses are
narrower than the telephone band, so a resampler keeps their shape. Between the marks is a soft
tone, so that audio differs from the silence that a bridge inserts.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

NUMBERS: Final = 256
"""Number of different marks. After the last one the numbers begin again at 0."""

LEAD: Final = 0.003
"""Seconds from the beginning of a marked chunk to its mark."""

EVERY: Final = 10
"""Chunks from one mark to the next."""

_PULSES = 10
_SPACING = 0.001
_HALF_WIDTH = 0.0004
_LOUD = 16000.0
_THRESHOLD = 6000
_TONE, _TONE_LEVEL = 1000.0, 400.0

Tag = TypeVar("Tag")
_Samples = npt.NDArray[np.int16]


class Speaker:
    """Makes audio with a mark in every tenth chunk: PCM16 at `rate`, chunks of `seconds`."""

    def __init__(self, rate: int, seconds: float = 0.02) -> None:
        self.rate = rate
        self.seconds = seconds
        self.count = round(rate * seconds)
        self.plain = self._chunk(None)
        self.marked = [self._chunk(number) for number in range(NUMBERS)]

    def chunk(self, index: int) -> bytes:
        """The chunk with this index, from 0. Chunks 0, 10, 20 and so on have a mark."""
        return self.plain if index % EVERY else self.marked[index // EVERY % NUMBERS]

    def _chunk(self, number: int | None) -> bytes:
        time = np.arange(self.count) / self.rate
        samples = _TONE_LEVEL * np.sin(2 * np.pi * _TONE * time)
        if number is not None:
            for pulse, sign in enumerate(_signs(number)):
                distance = np.abs(time - LEAD - pulse * _SPACING)
                shape = np.where(
                    distance < _HALF_WIDTH, 1 + np.cos(np.pi * distance / _HALF_WIDTH), 0.0
                )
                samples += sign * _LOUD / 2 * shape
        return bytes(np.rint(samples).astype("<i2").data)


def _signs(number: int) -> list[int]:
    bits = [number >> bit & 1 for bit in range(8)]
    return [1, *(1 if bit else -1 for bit in [*bits, sum(bits) & 1])]


class HeardMark(NamedTuple, Generic[Tag]):
    """A mark that was found. `offset`: seconds from the beginning of the chunk that came with `tag`
    to the mark. `sample`: position of the mark in the stream."""

    number: int
    offset: float
    tag: Tag
    sample: int


class Ear(Generic[Tag]):
    """Finds the marks of one stream, with chunks of any length.

    `damaged`: number of loud places that are no valid mark. `quiet`: no mark is unfinished.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.damaged = 0
        self.quiet = True
        self._length = round((_PULSES * _SPACING + _HALF_WIDTH) * rate)
        self._pulses = np.rint(np.arange(_PULSES) * _SPACING * rate).astype(int)
        self._kept: _Samples = np.empty(0, np.int16)  # the beginning of an unfinished mark
        self._chunks: deque[tuple[int, Tag]] = deque()  # (first sample, tag) of its chunks
        self._end = 0
        self._plain = b""  # the last chunk without a mark; most chunks are equal to it

    def pass_over(self, samples: int) -> None:
        """Skip samples that have no mark. Allowed only if `quiet` is True."""
        self._end += samples

    def hear(self, pcm: bytes, tag: Tag) -> list[HeardMark[Tag]]:
        """Take a chunk of PCM16. Returns the marks that are complete now."""
        if pcm == self._plain and self.quiet:
            self.pass_over(len(pcm) // 2)
            return []
        samples: _Samples = np.frombuffer(pcm, "<i2")
        start, self._end = self._end, self._end + len(samples)
        if self.quiet:
            self._chunks.clear()
            if not len(samples) or max(samples.max(), -int(samples.min())) < _THRESHOLD:
                self._plain = pcm
                return []
        else:
            start -= len(self._kept)
            samples = np.concatenate([self._kept, samples])
        self._chunks.append((self._end - len(pcm) // 2, tag))
        return self._search(samples, start)

    def _search(self, samples: _Samples, start: int) -> list[HeardMark[Tag]]:
        loud = np.flatnonzero(np.abs(samples.astype(np.int32)) >= _THRESHOLD)
        heard: list[HeardMark[Tag]] = []
        at = 0
        while True:
            index = int(np.searchsorted(loud, at))
            if index == len(loud):
                self._kept, self.quiet = samples[:0], True
                return heard
            first = int(loud[index])
            if first + self._length > len(samples):
                self._kept, self.quiet = samples[first:].copy(), False
                return heard
            at = first + self._length
            mark = self._read(samples[first:at], start + first)
            if mark is None:
                self.damaged += 1
            else:
                heard.append(mark)

    def _read(self, mark: _Samples, start: int) -> HeardMark[Tag] | None:
        peak = int(np.argmax(mark[: round(2 * _HALF_WIDTH * self.rate) + 1]))
        levels = mark[np.minimum(peak + self._pulses, len(mark) - 1)].astype(int)
        bits = [int(level > 0) for level in levels[1:]]
        if levels[0] < _THRESHOLD or sum(bits) & 1 or np.abs(levels).min() < _THRESHOLD // 2:
            return None
        sample = start + peak
        while len(self._chunks) > 1 and self._chunks[1][0] <= sample:
            self._chunks.popleft()
        begin, tag = self._chunks[0]
        number = sum(bit << index for index, bit in enumerate(bits[:8]))
        return HeardMark(number, (sample - begin) / self.rate, tag, sample)
