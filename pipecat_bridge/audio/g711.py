"""G.711, the 8-bit companding of telephone networks: mu-law ("ulaw") and A-law ("alaw").

The levels are those of ITU-T Recommendation G.711 (11/88), tables 1a to 2b: 14-bit values for
mu-law and 13-bit values for A-law. They are scaled to 16 bits, as in Asterisk.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipecat_bridge.audio.pcm import SAMPLE, Pcm, check_even

CODECS = ("ulaw", "alaw")

_Levels = npt.NDArray[np.int64]


class _Tables(NamedTuple):
    low: bytes  # octet -> low and high byte of its sample
    high: bytes
    octets: npt.NDArray[np.uint8]  # sample, as an unsigned number -> octet


def decode(codec: str, data: Pcm) -> bytes:
    """Return 16-bit little-endian samples, one for each octet; `codec` is "ulaw" or "alaw"."""
    tables = _tables(codec)
    octets = bytes(data)
    pcm = bytearray(2 * len(octets))
    pcm[::2] = octets.translate(tables.low)
    pcm[1::2] = octets.translate(tables.high)
    return bytes(pcm)


def encode(codec: str, pcm: Pcm) -> bytes:
    """Return one octet for each 16-bit little-endian sample, the one of the nearest level.

    Of two levels at the same distance, it is the one farther from zero. Raises ValueError for an
    odd number of bytes and for an unknown codec.
    """
    tables = _tables(codec)
    check_even(pcm)
    return tables.octets.take(np.frombuffer(pcm, "<u2")).tobytes()


@lru_cache(maxsize=len(CODECS))
def _tables(codec: str) -> _Tables:
    if codec not in CODECS:
        raise ValueError(f"unknown codec {codec!r}: expected {' or '.join(map(repr, CODECS))}")
    positive = _ulaw_levels() if codec == "ulaw" else _alaw_levels()
    # Octets are sent with inverted bits (mu-law: all bits, A-law: every other bit). In the inverted
    # octet, a set sign bit means plus.
    inversion = 0x7F if codec == "ulaw" else 0x55
    numbers = np.arange(128)
    levels = np.empty(256, np.int64)
    levels[(numbers ^ inversion) | 0x80] = positive
    levels[numbers ^ inversion] = -positive
    raw = levels.astype(SAMPLE).tobytes()
    return _Tables(raw[::2], raw[1::2], _nearest(positive, inversion))


def _nearest(positive: _Levels, inversion: int) -> npt.NDArray[np.uint8]:
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int64)
    decision = (positive[1:] + positive[:-1]) // 2
    number = np.searchsorted(decision, np.abs(sample), side="right") ^ inversion
    return np.where(sample >= 0, number | 0x80, number).astype(np.uint8)


def _ulaw_levels() -> _Levels:
    segment, step = np.divmod(np.arange(128), 16)
    return (((2 * step + 33) << segment) - 33) << 2


def _alaw_levels() -> _Levels:
    segment, step = np.divmod(np.arange(128), 16)
    first, others = 2 * step + 1, (2 * step + 33) << np.maximum(segment - 1, 0)
    return np.where(segment == 0, first, others) << 3
