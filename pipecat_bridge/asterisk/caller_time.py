"""How much silence replaces audio that the caller's phone did not send.

A phone sends nothing while it is on hold, while its voice activity detection hears no speech, or
while a key is held down. The bot's VAD and STT count samples and not time, so the bot must get one
second of audio each second.
"""

from __future__ import annotations

import math

from pipecat_bridge.audio.frame import FRAME

MISSED = 4
"""After so many ticks without a frame, a frame is missing and not only late. Asterisk under load
was up to 52 ms late, which is three ticks."""

AHEAD = 0.2
"""Most seconds of surplus audio that are subtracted from later silence. A surplus comes from frames
that arrive after silence has replaced them. The bot's stream pauses for as long."""

JITTER = 2 * FRAME
"""Seconds that a caller may be behind or ahead because of jitter alone."""

FORGIVEN = 0.001
"""A deviation of more than `JITTER` shrinks by this part of the length of each piece of audio. The
caller's clock is not ours, and within an hour the difference must not add up to a gap."""

_ROUNDING = 1e-6


class CallerTime:
    """Finds out when silence is due, so that the bot gets one second of audio each second.

    Times are in seconds. The time without a frame is counted in ticks: while this process stands
    still there are no ticks, and frames are not missing but wait to be read.
    """

    __slots__ = ("_hold_ticks", "_quiet", "_until")

    def __init__(self, hold_after: float) -> None:
        self._hold_ticks = round(hold_after / FRAME)
        self._quiet = 0  # ticks since the last frame
        self._until = 0.0  # the time up to which the bot has audio

    def start(self, now: float) -> None:
        """The caller's audio is due from `now` on."""
        self._quiet = 0
        self._until = now

    def tick(self, now: float) -> int:
        """Count one tick of the clock; return how many frames of silence are due."""
        self._quiet += 1
        if self._quiet <= self._hold_ticks:
            return 0
        # Half a frame is enough, so that a tick a little early or late makes no difference.
        return self._missing(now) or self._missing(now + FRAME / 2)

    def hear(self, duration: float, now: float) -> int:
        """Account for `duration` seconds of audio; return the frames of silence to insert before.

        A duration of 0 means: the caller sends audio, but it cannot be used yet.
        """
        quiet, self._quiet = self._quiet, 0
        if not duration:
            return 0
        silence = self._missing(now - duration) if quiet >= MISSED else 0
        ahead = self._until + duration - now
        if abs(ahead) > JITTER:
            ahead -= math.copysign(FORGIVEN * duration, ahead)
        self._until = now + min(ahead, AHEAD)
        return silence

    def _missing(self, until: float) -> int:
        frames = max(0, int((until - self._until + _ROUNDING) / FRAME))
        self._until += frames * FRAME
        return frames
