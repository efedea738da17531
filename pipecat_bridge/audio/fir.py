"""Resamplers with a linear-phase filter, whose delay is constant: compiled, and in NumPy.

After n samples of input, the output of both has exactly ceil(n * rate_out / rate_in) samples. They
are the same to the bit, however the stream was cut into chunks, rounded to nearest, and limited to
full scale.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from pipecat_bridge import native
from pipecat_bridge.audio.filters import exact, low_pass
from pipecat_bridge.audio.pcm import Pcm, check_even
from pipecat_bridge.audio.polyphase import Polyphase
from pipecat_bridge.errors import FormatError

LONGEST_PERIOD: Final = 1280
"""Longer periods, from rates like 44101 Hz, need megabytes of taps; 192 to 22.05 kHz has 1280."""

_RATIOS: Final = 32
"""Ratios whose filter stays in memory. A process needs a few; a hostile bot could name thousands.
"""

_LANES: Final = 4  # numbers that a processor multiplies at once: rows of taps are multiples of it


class NativeFir:
    """Resamples one stream in a single call of compiled code (`native.fir`)."""

    __slots__ = ("_filter", "_history", "_phase", "_resample", "delay", "rate_in", "rate_out")

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in, self.rate_out = rate_in, rate_out
        self._filter = _filter(*_ratio(rate_in, rate_out))
        self.delay = self._filter.delay / rate_in
        assert native.fir is not None
        self._resample = native.fir
        self.reset()

    def reset(self) -> None:
        self._history = bytearray(2 * self._filter.history)
        self._phase = 0

    def process(self, pcm: Pcm) -> bytes:
        size = len(pcm)
        if size & 1:
            check_even(pcm)
        _, taps, _, up, down = self._filter
        output = self._resample(self._history, pcm, taps, up, down, self._phase)
        self._phase = (self._phase + (size >> 1)) % down
        return output


class _Filter(NamedTuple):
    """`delay`: in samples of the input. `taps`: as `native.fir` takes them. `history`: how many
    past samples of the input a stream keeps. `up` / `down`: the ratio in lowest terms."""

    delay: float
    taps: bytes
    history: int
    up: int
    down: int


@lru_cache(maxsize=_RATIOS)
def _filter(up: int, down: int) -> _Filter:
    taps = exact(low_pass(up, down))
    width = -(-len(taps) // (up * _LANES)) * _LANES
    rows = np.zeros((up, width))
    for phase, row in enumerate(rows):
        ours = taps[phase::up]
        row[width - len(ours) :] = ours[::-1]
    return _Filter((len(taps) - 1) / 2 / up, rows.tobytes(), width - 1, up, down)


class NumpyFir:
    """Resamples one stream by `Polyphase`. It needs no compiler, and up to three times as long."""

    __slots__ = ("_history", "_phase", "_shared", "delay", "rate_in", "rate_out")

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in, self.rate_out = rate_in, rate_out
        self._shared = _polyphase(*_ratio(rate_in, rate_out))
        self.delay = self._shared.delay / rate_in
        self.reset()

    def reset(self) -> None:
        self._history = memoryview(bytearray(2 * self._shared.history))
        self._phase = 0

    def process(self, pcm: Pcm) -> bytes:
        size = len(pcm)
        if size & 1:
            check_even(pcm)
        if not 0 < size <= 2 * self._shared.longest:
            return self._process_long(pcm)
        layout = self._shared.layout(self._phase, size >> 1)
        self._phase = layout.next_phase
        return layout.run(self._history, pcm)

    def _process_long(self, pcm: Pcm) -> bytes:
        step = 2 * self._shared.longest
        view = memoryview(pcm)
        return b"".join(self.process(view[i : i + step]) for i in range(0, len(pcm), step))


@lru_cache(maxsize=_RATIOS)
def _polyphase(up: int, down: int) -> Polyphase:
    return Polyphase(up, down)


def _ratio(rate_in: int, rate_out: int) -> tuple[int, int]:
    """Up and down, in lowest terms. Raises FormatError if the filter would be too long."""
    common = math.gcd(rate_in, rate_out)
    up, down = rate_out // common, rate_in // common
    if max(up, down) > LONGEST_PERIOD:
        raise FormatError(
            f"no filter from {rate_in} to {rate_out} Hz, a ratio of {up} to {down}: "
            f"expected numbers up to {LONGEST_PERIOD}, or the resampler 'soxr'"
        )
    return up, down
