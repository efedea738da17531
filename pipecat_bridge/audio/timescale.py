"""Makes audio a little shorter or longer and keeps its pitch: one period is left out or repeated.

This is WSOLA, "waveform similarity based overlap-add" (Verhelst and Roelands, ICASSP 1993): where a
sound resembles itself a few milliseconds later, the two are faded into each other.
"""

from __future__ import annotations

from math import sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipecat_bridge.audio.pcm import SAMPLE

Samples = NDArray[np.int16]

OVERLAP: Final = 0.005
"""Seconds in which one piece is faded into the next."""

SHORTEST: Final = 0.0025
LONGEST: Final = 0.015
"""The periods that are looked for, in seconds: voices of 66 to 400 Hz."""

NEEDED: Final = LONGEST + 2 * OVERLAP
"""Seconds of audio that `shorten` and `lengthen` need."""

ALIKE: Final = 0.8
"""Correlation from which on two pieces are alike."""

SILENT: Final = 33.0
"""What is quieter than this RMS level (60 dB below full scale) is silence."""

_SEARCH_RATE: Final = 8000


class Scaled(NamedTuple):
    """The audio, and by how many samples it is shorter or longer than it was."""

    samples: Samples
    changed: int


def level(samples: Samples) -> float:
    """The RMS level of `samples`."""
    if not samples.size:
        return 0.0
    floating = samples.astype(np.float32)
    return sqrt(float(floating @ floating) / samples.size)


def shorten(
    samples: Samples,
    rate: int,
    alike: float = ALIKE,
    least: float = SHORTEST,
    most: float = LONGEST,
) -> Scaled | None:
    """Leave out one period near the beginning, of `least` to `most` seconds. None if no two pieces
    are `alike`.

    The first and the last samples stay what they were, so there is no seam to what surrounds them.
    """
    period = _period(samples, rate, alike, least, most)
    if not period:
        return None
    overlap = round(OVERLAP * rate)
    joined = crossfade(samples[:overlap], samples[period : period + overlap])
    return Scaled(np.concatenate((joined, samples[period + overlap :])), period)


def lengthen(samples: Samples, rate: int, alike: float = ALIKE) -> Scaled | None:
    """Repeat one period near the beginning. None if no two pieces are `alike`."""
    period = _period(samples, rate, alike)
    if not period:
        return None
    overlap = round(OVERLAP * rate)
    again = crossfade(samples[period : period + overlap], samples[:overlap])
    return Scaled(np.concatenate((samples[:period], again, samples[overlap:])), period)


def period_of(samples: Samples, rate: int) -> int:
    """The length in samples after which the end of `samples` resembles itself most; 0 if there are
    too few samples."""
    return _period(samples[::-1], rate, -1.0)


def _period(
    samples: Samples,
    rate: int,
    alike: float,
    least: float = SHORTEST,
    most: float = LONGEST,
) -> int:
    step = max(1, rate // _SEARCH_RATE)  # a coarse search first, at any rate
    coarse = samples[::step].astype(np.float32)
    scale = rate / step
    first, last = round(least * scale), round(most * scale)
    overlap = round(OVERLAP * scale)
    last = min(last, coarse.size - overlap)
    if last <= first:
        return 0
    lags = _correlations(coarse, first, last, overlap)
    best = lags.size - 1 - int(np.argmax(lags[::-1]))  # of equals, such as in silence, the longest
    if lags[best] < alike:
        return 0
    lag = (first + best) * step
    return lag if step == 1 else _refined(samples, lag, step, round(OVERLAP * rate))


def _correlations(samples: NDArray[np.float32], first: int, last: int, size: int) -> Samples:
    """How the first `size` samples resemble those that are `first` to `last` samples later."""
    head = samples[:size]
    pieces = np.lib.stride_tricks.sliding_window_view(samples[first : last + size], size)
    energy = np.einsum("ij,ij->i", pieces, pieces) * float(head @ head)
    return pieces @ head / np.sqrt(np.maximum(energy, 1.0))  # type: ignore[no-any-return]


def _refined(samples: Samples, lag: int, step: int, size: int) -> int:
    exact = samples.astype(np.float32)
    first, last = max(lag - step + 1, 1), min(lag + step - 1, samples.size - size)
    if last < first:
        return 0
    return first + int(np.argmax(_correlations(exact, first, last, size)))


def crossfade(old: Samples, new: Samples) -> Samples:
    """`old` fades into `new`, of the same length."""
    rising = np.linspace(0.0, 1.0, old.size, dtype=np.float32)
    return np.rint(old + (new.astype(np.float32) - old) * rising).astype(SAMPLE)
