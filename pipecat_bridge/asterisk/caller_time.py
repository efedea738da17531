"""How much silence has to take the place of what the caller did not send.

A caller on hold, behind voice activity detection or with a key held down sends nothing; the bot's
VAD and STT count samples and not time, so it must get a second of audio each second.
"""

from __future__ import annotations

import math

from pipecat_bridge.audio.frame import FRAME

MISSED = 4
"""Ticks without a frame after which one was not late but missing: Asterisk under load was seen to
be 52 ms late, which is three ticks at the most."""

AHEAD = 0.2
"""Seconds of surplus, at the most, that are set off against later silence: of frames that came
after silence had taken their place. The bot's stream pauses for as long."""

JITTER = 2 * FRAME
"""Seconds that a caller may be behind or ahead from jitter alone."""

FORGIVEN = 0.001
"""Part of the audio's length by which more than that is forgiven: the caller's clock is not ours,
and within an hour the difference must not add up to a gap."""

_ROUNDING = 1e-6


class CallerTime:
    """Keeps the bot's count of samples at the clock's. Times are in seconds.

    Ticks are counted and not seconds to find that the caller is silent: while this process stands
    still there are no ticks, and frames are not missing but wait to be read.
    """

    __slots__ = ("_hold_ticks", "_quiet", "_until")

    def __init__(self, hold_after: float) -> None:
        self._hold_ticks = round(hold_after / FRAME)
        self._quiet = 0  # ticks since the last frame
        self._until = 0.0  # up to when the bot has got audio

    def start(self, now: float) -> None:
        """The caller's audio is due from `now` on."""
        self._quiet = 0
        self._until = now

    def tick(self, now: float) -> int:
        """One tick of the clock; the frames of silence that are due."""
        self._quiet += 1
        if self._quiet <= self._hold_ticks:
            return 0
        # From half a frame on, so that a tick a little early or late makes no difference.
        return self._missing(now) or self._missing(now + FRAME / 2)

    def hear(self, duration: float, now: float) -> int:
        """So much audio came; the frames of silence that belong before it.

        A duration of 0 says that the caller is there, and his audio not to be used yet.
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
