"""Gaps in a bot's audio: was it missing, or had the bot paused?"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from pipecat_bridge.audio.arrivals import Arrivals
from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.audio.stats import PlayoutStats

PAUSE: Final = 0.3
"""Seconds. Audio that comes within this time after the queue became empty was missing within an
utterance: an underrun. If it comes later, it begins an utterance, or a bot that sends in real time
was cut off. What comes next tells which of both."""

AGAIN: Final = 2.0
"""Seconds. If audio is missing again so soon, more and more must wait before playing goes on: a few
longer gaps are easier to understand than many short ones."""


class _Gap(NamedTuple):
    """`since`, `until`: in seconds of a monotonic clock; `until` is None before playing goes on.
    `concealed`: seconds of sound. `missing`: it is known that it was no pause."""

    since: float
    missing: bool
    concealed: float = 0.0
    until: float | None = None


class Gaps:
    """Counts underruns. Times are in seconds of a monotonic clock.

    `dry_since`: when the queue became empty; None if it is not, or if nothing was missing since.
    """

    __slots__ = ("_arrivals", "_extra", "_gap", "_resumed_at", "_stats", "dry_since")

    def __init__(self, arrivals: Arrivals, stats: PlayoutStats) -> None:
        self._arrivals = arrivals
        self._stats = stats
        self._extra = 0.0  # seconds that must wait because audio was often missing
        self._resumed_at = -inf  # after audio was missing
        self.forget()

    def forget(self) -> None:
        """The time until audio comes is no gap."""
        self.dry_since: float | None = None
        self._gap: _Gap | None = None  # not counted yet

    def end(self, now: float) -> float | None:
        """Audio comes again. Returns how long it must wait because audio was missing before as
        well, mostly 0; None if an utterance begins."""
        since, self.dry_since = self.dry_since, None
        self._gap = None
        if since is None or (now - since > PAUSE and not self._arrivals.real_time):
            return None
        self._arrivals.gap(now)
        self._gap = _Gap(since, missing=now - since <= PAUSE)
        again = since - self._resumed_at < AGAIN
        self._extra = min(2 * self._extra + 2 * FRAME, self._arrivals.most) if again else 0.0
        return self._extra

    def resumed(self, now: float, concealed: float) -> None:
        """Playing goes on; `concealed` seconds were hidden."""
        if self._gap is not None:
            self._gap = self._gap._replace(until=now, concealed=concealed)
            self.judge()

    def judge(self) -> None:
        """Count the gap if it is known that it was no pause, and playing goes on."""
        gap = self._gap
        if gap is None or gap.until is None or (self._arrivals.judging and not gap.missing):
            return
        self._gap = None
        if gap.missing or self._arrivals.came_back:
            stats = self._stats
            stats.underruns += 1
            # The rest of a frame may end a moment after a tick that came early, to catch up.
            stats.underrun_ms += max(0.0, gap.until - gap.since) * 1000
            stats.concealed_ms += gap.concealed * 1000
            self._resumed_at = gap.until
