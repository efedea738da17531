"""Design of the low-pass filter that a change of sample rate needs: a windowed sinc.

All frequencies are fractions of the lower of the two sample rates, so one design serves every
pair of rates with the same ratio. Between 8 kHz and any higher rate the pass band ends at
3.4 kHz, the edge of telephone speech. The stop band begins at 4.6 kHz: frequencies above it would
come back as aliases or images below 3.4 kHz.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

PASS_BAND = 0.425
STOP_BAND = 0.575

# dB by which each image and each alias is weaker. The sum of several is then weaker by 80 dB.
ATTENUATION = 85.0


def low_pass(up: int, down: int) -> npt.NDArray[np.float64]:
    """Return the taps of a linear-phase low-pass at the common rate, `up` times the input rate.

    The shape is (n,) with n odd, so the delay of (n - 1) / 2 samples at the common rate is whole.
    The taps add up to `up`, which makes the gain 1 after the input is spread out by zeros.
    The length and the window's shape follow Kaiser's formulas (J. F. Kaiser, 1974, "Nonrecursive
    digital filter design using the I0-sinh window function").
    """
    lower_rate = 1 / max(up, down)
    width = 2 * math.pi * (STOP_BAND - PASS_BAND) * lower_rate
    half = math.ceil((ATTENUATION - 7.95) / (2.285 * width) / 2)
    cutoff = (STOP_BAND + PASS_BAND) * lower_rate
    window = np.kaiser(2 * half + 1, 0.1102 * (ATTENUATION - 8.7))
    taps: npt.NDArray[np.float64] = np.sinc(np.arange(-half, half + 1) * cutoff) * window
    taps *= up / taps.sum()
    return taps


def exact(taps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The taps as whole multiples of 2**-32.

    Products with samples of 16 bits, and their sums, then need no more than the 53 bits of a
    double. So the result is the same to the bit in any order of the additions.
    """
    rounded: npt.NDArray[np.float64] = np.rint(taps * 2.0**32) / 2.0**32
    return rounded
