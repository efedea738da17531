"""Counters of the bot's audio on its way to the caller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PlayoutStats:
    """Counters of one call. `_ms` means milliseconds; delays are in seconds.

    The length of an underrun is the silence that the caller heard, the new prebuffer included.
    """

    frames_played: int = 0
    underruns: int = 0
    underrun_ms: float = 0.0
    flushes: int = 0
    flushed_ms: int = 0
    depth_max_ms: int = 0
    delay_sum: float = 0.0
    delay_max: float = 0.0
    prebuffer_ms: float = 0.0
    filter_ms: float = 0.0

    @property
    def delay_mean(self) -> float:
        """Mean delay of a frame in seconds, from its arrival until it is sent to the phone."""
        return self.delay_sum / self.frames_played if self.frames_played else 0.0
