"""The frame of 20 ms, in which audio is sent and counted."""

from __future__ import annotations

from typing import Final

FRAMES_PER_SECOND: Final = 50
"""Asterisk sends and expects frames of 20 ms (res_audiosocket.c)."""

FRAME: Final = 1 / FRAMES_PER_SECOND
"""Length of a frame in seconds."""

FRAME_MS: Final = 1000 // FRAMES_PER_SECOND


def frame_bytes(rate: int) -> int:
    """Bytes of a frame of mono PCM16 at `rate` samples per second."""
    return rate // FRAMES_PER_SECOND * 2
