"""How much of an utterance waits before it is played; it follows how the audio comes."""

from __future__ import annotations

from typing import Final

from pipecat_bridge.audio.frame import FRAME, FRAMES_PER_SECOND
from pipecat_bridge.audio.stats import PlayoutStats

STEP: Final = FRAME
"""By how much the prebuffer grows at least, and shrinks, in seconds."""

CALM: Final = 10.0
"""Seconds of playing without an underrun after which the prebuffer shrinks by a step.

It does so where the next utterance begins: in the midst of one, audio would have to be cut."""

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
        self._calm_from = 0  # frames that were played by the last underrun
        self._set(least)

    def grow(self, missing: float) -> None:
        """Audio was missing for so many seconds in the midst of an utterance."""
        self._calm_from = self._stats.frames_played
        self._set(self.seconds + max(STEP, missing))

    def settle(self) -> None:
        """An utterance begins: shrink by what the time without an underrun allows."""
        steps = (self._stats.frames_played - self._calm_from) // _CALM_FRAMES
        if steps:
            self._calm_from += steps * _CALM_FRAMES
            self._set(self.seconds - steps * STEP)

    def _set(self, seconds: float) -> None:
        self.seconds = min(max(seconds, self._least), self._most)
        self._stats.prebuffer_ms = self.seconds * 1000
