"""How much of an utterance must wait before it is played. The length adapts to underruns."""

from __future__ import annotations

from typing import Final

from pipecat_bridge.audio.frame import FRAME, FRAMES_PER_SECOND
from pipecat_bridge.audio.stats import PlayoutStats

STEP: Final = FRAME
"""Seconds by which the prebuffer shrinks, and by which it grows at least."""

CALM: Final = 10.0
"""After so many seconds of playing without an underrun, the prebuffer shrinks by one step.

It shrinks at the beginning of the next utterance. Within one, audio would have to be cut."""

_CALM_FRAMES: Final = int(CALM * FRAMES_PER_SECOND)


class Prebuffer:
    """Grows by the length of each underrun up to `most` seconds, and shrinks back to `least`.

    `seconds` is its length now. Times are counted in frames played.
    """

    __slots__ = ("_calm_from", "_least", "_most", "_stats", "seconds")

    def __init__(self, least: float, most: float, stats: PlayoutStats) -> None:
        self._least = least
        self._most = max(least, most)
        self._stats = stats
        self._calm_from = 0  # frames played up to the last underrun
        self._set(least)

    def grow(self, missing: float) -> None:
        """An underrun: within an utterance, audio was missing for `missing` seconds."""
        self._calm_from = self._stats.frames_played
        self._set(self.seconds + max(STEP, missing))

    def settle(self) -> None:
        """An utterance begins: shrink by one step for each `CALM` seconds without an underrun."""
        steps = (self._stats.frames_played - self._calm_from) // _CALM_FRAMES
        if steps:
            self._calm_from += steps * _CALM_FRAMES
            self._set(self.seconds - steps * STEP)

    def _set(self, seconds: float) -> None:
        self.seconds = min(max(seconds, self._least), self._most)
        self._stats.prebuffer_ms = self.seconds * 1000
