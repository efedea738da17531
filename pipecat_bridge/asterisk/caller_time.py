"""How much silence replaces audio that the caller's phone did not send.

A phone sends nothing while it is on hold, while its voice activity detection hears no speech, or
while a key is held down. The bot's VAD and STT count samples and not time, so the bot must get one
second of audio each second. But audio may also be late: a network stalls, and then brings it all.
Silence in its place would be a hole in a word. What comes after a gap tells which of both it was.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from pipecat_bridge.audio.frame import FRAME

MISSED: Final = 4
"""After so many ticks without a frame there is a gap. Asterisk under load was up to 52 ms late,
which is three ticks."""

JUDGED_AFTER: Final = 0.3
"""Seconds. What was late has come by then."""

SHORTEST: Final = 0.1
"""Seconds without audio until the bot gets silence, at least."""

LONGEST: Final = 1.0
"""The same, at most, if audio was late."""

LATER: Final = 1.5
"""After late audio, the next may be later by this factor."""

FORGET: Final = 10.0
"""Seconds without a real gap. Then the next gap is taken for late audio again."""

AHEAD: Final = 0.5
"""Most seconds of surplus audio that are subtracted from later silence. A surplus comes from frames
that arrive after silence has replaced them. The bot's stream pauses for as long."""

JITTER: Final = 2 * FRAME
"""Seconds that a caller may be behind or ahead because of jitter alone."""

FORGIVEN: Final = 0.001
"""A deviation of more than `JITTER` shrinks by this part of the length of each piece of audio. The
caller's clock is not ours, and within an hour the difference must not add up to a gap."""

_ROUNDING: Final = 1e-6


class _Gap(NamedTuple):
    """Seconds without audio, and how many of them silence has replaced."""

    length: float
    filled: float


class CallerTime:
    """Finds out when silence is due, so that the bot gets one second of audio each second.

    Times are in seconds. The time without a frame is counted in ticks: while this process stands
    still there are no ticks, and frames are not missing but wait to be read.

    Silence is due after `hold_after` seconds without audio. This time becomes shorter when gaps
    were real, and longer when what came after them had been late.
    """

    __slots__ = (
        "_ahead",
        "_filled",
        "_gap",
        "_hold",
        "_hold_after",
        "_judge_at",
        "_quiet",
        "_real_at",
        "_until",
    )

    def __init__(self, hold_after: float) -> None:
        self._hold_after = self._hold = hold_after
        self.start(0.0)

    def start(self, now: float) -> None:
        """The caller's audio is due from `now` on."""
        self._quiet = 0  # ticks since the last frame
        self._until = now  # the time up to which the bot has audio
        self._ahead = 0.0  # how much that was later than the time, at the last frame
        self._filled = 0.0  # seconds, since the last frame
        self._gap: _Gap | None = None  # not yet judged
        self._judge_at = 0.0
        self._real_at = -math.inf  # the end of the last real gap

    def tick(self, now: float) -> int:
        """Count one tick of the clock; return how many frames of silence are due."""
        self._quiet = quiet = self._quiet + 1
        if quiet < MISSED or not self._is_due(now):
            return 0
        # Half a frame is enough, so that a tick a little early or late makes no difference.
        frames = self._missing(now) or self._missing(now + FRAME / 2)
        self._filled += frames * FRAME
        return frames

    def _is_due(self, now: float) -> bool:
        if now - self._real_at > FORGET:
            self._hold = max(self._hold, self._hold_after)
        if self._quiet * FRAME > self._hold:
            return True
        return now - self._until > LONGEST + self._hold_after

    def hear(self, duration: float, now: float) -> None:
        """Account for `duration` seconds of audio.

        A duration of 0 means: the caller sends audio, but it cannot be used yet.
        """
        quiet, self._quiet = self._quiet, 0
        if not duration:
            return
        if quiet >= MISSED or self._filled:
            self._end_gap(quiet * FRAME, now)
        ahead = self._until + duration - now
        if abs(ahead) > JITTER:
            ahead -= math.copysign(FORGIVEN * duration, ahead)
        self._ahead = ahead = min(ahead, AHEAD)
        self._until = now + ahead
        if self._gap is not None and (now >= self._judge_at or self._is_late(self._gap)):
            self._judge(now)

    def _missing(self, until: float) -> int:
        frames = max(0, int((until - self._until + _ROUNDING) / FRAME))
        self._until += frames * FRAME
        return frames

    def _end_gap(self, length: float, now: float) -> None:
        self._judge(now)
        self._gap, self._filled = _Gap(length, self._filled), 0.0
        self._judge_at = now + JUDGED_AFTER

    def _is_late(self, gap: _Gap) -> bool:
        """After a real gap the bot is behind by what was not filled; if audio was only late, ahead
        by what was filled. In the middle is half the gap."""
        return self._ahead > gap.filled - gap.length / 2

    def _judge(self, now: float) -> None:
        gap, self._gap = self._gap, None
        if gap is None:
            return
        if self._is_late(gap):
            longer = min(gap.length * LATER, LONGEST)
            self._hold = max(self._hold, longer)
        else:
            self._hold = max(self._hold / 2, min(SHORTEST, self._hold_after))
            self._real_at = now
