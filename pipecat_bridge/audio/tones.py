"""DTMF, the tones of a telephone's keys, for machines at the other end.

ITU-T Q.23 gives the frequencies, exact to 1.8 %, with all distortion 20 dB below them, and leaves
levels and times to national rules. Q.24, table A-1 (quoted in RFC 4733, 2.5.2.1) says what
receivers need: tones and pauses of 40 ms or more, at most 8 to 10 digits a second. The levels
follow BT's SIN 351: -7 to -13 dBm each, the high one louder by 1 to 4 dB, since lines attenuate it
more.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from pipecat_bridge.audio.pcm import SAMPLE, silence
from pipecat_bridge.audio.resample import HIGHEST_RATE, LOWEST_RATE

LOW_GROUP: Final = (697, 770, 852, 941)
HIGH_GROUP: Final = (1209, 1336, 1477, 1633)
"""Frequencies in Hz, of the rows and of the columns of the keypad."""

KEYPAD: Final = ("123A", "456B", "789C", "*0#D")

LOW_LEVEL: Final = -10.0
HIGH_LEVEL: Final = -8.0
"""Levels in dBm0. Together they stay 6 dB below the overload of G.711."""

FULL_SCALE: Final = 3.14
"""Level in dBm0 of a sine that fills 16 bits: Tmax of A-law, 0.03 dB less than that of mu-law
(ITU-T G.711, 5)."""

TONE: Final = 0.1
PAUSE: Final = 0.1
"""Seconds of a tone and of the silence after it: ten frames of 20 ms together."""

RAMP: Final = 0.005
"""Seconds in which a tone rises and falls, as half a cosine: a hard edge would be a click."""

WAITS: Final = {",": 0.5, "w": 0.5, "W": 1.0}
"""Character -> seconds of additional silence."""

_PAIRS: Final = {
    key: (low, high)
    for low, row in zip(LOW_GROUP, KEYPAD, strict=True)
    for high, key in zip(HIGH_GROUP, row, strict=True)
}


def dtmf(digits: str, rate: int) -> bytes:
    """Return the tones of `digits`, each with its pause, as mono PCM16 at `rate` Hz.

    A digit is one of ``0-9 A-D * #`` or of `WAITS`. Times are exact to the nearest sample. They are
    whole frames of 20 ms at every rate with whole frames. Raises ValueError for other digits, and
    for a rate that is out of range.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"DTMF at a sample rate of {rate} Hz: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz"
        )
    return b"".join(_digit(digit, rate) for digit in digits)


def beep(frequency: int, level: float, seconds: float, rate: int) -> bytes:
    """Return one tone of `frequency` Hz at `level` dBm0, as mono PCM16 at `rate` Hz."""
    time = np.arange(round(rate * seconds)) / rate
    tone = _sine(frequency, level, time) * _rise(time) * _rise(time[::-1])
    return np.rint(tone).astype(SAMPLE).tobytes()


@lru_cache(maxsize=len(_PAIRS))
def _digit(digit: str, rate: int) -> bytes:
    if digit in WAITS:
        return silence(rate, WAITS[digit])
    if digit not in _PAIRS:
        raise ValueError(f"DTMF of {digit!r}: expected 0-9 A-D * # or a pause, one of , w W")
    low, high = _PAIRS[digit]
    time = np.arange(round(rate * TONE)) / rate
    tone = _sine(low, LOW_LEVEL, time) + _sine(high, HIGH_LEVEL, time)
    tone *= _rise(time) * _rise(time[::-1])
    return np.rint(tone).astype(SAMPLE).tobytes() + silence(rate, PAUSE)


def _sine(frequency: int, level: float, time: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    amplitude = 32768 * 10 ** ((level - FULL_SCALE) / 20)
    return amplitude * np.sin(2 * math.pi * frequency * time)


def _rise(time: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 0 at the beginning and 1 from `RAMP` seconds on."""
    return (1 - np.cos(math.pi * np.minimum(time / RAMP, 1))) / 2
