"""Brings the delay of a bot's audio back: what waits is made shorter or longer until it is right.

Silence and background are changed first, since nobody hears it. Speech is changed by 8 % at most.
"""

from __future__ import annotations

from math import floor
from typing import Final

import numpy as np

from pipecat_bridge.audio.frame import FRAME, FRAME_MS
from pipecat_bridge.audio.frame_queue import FrameQueue
from pipecat_bridge.audio.pcm import SAMPLE
from pipecat_bridge.audio.stats import PlayoutStats
from pipecat_bridge.audio.timescale import (
    ALIKE,
    LONGEST,
    NEEDED,
    SHORTEST,
    SILENT,
    lengthen,
    level,
    shorten,
)

SPARE: Final = 0.002
SHORT: Final = 0.003
"""Seconds. Audio that would still wait longer than it must by `SPARE` with a frame less is made
shorter. Audio that waits too short by `SHORT` is made longer. In between it is left as it is."""

MUCH: Final = 0.1
LASTING: Final = 5
"""A surplus of less than `MUCH` seconds may be gone with the next change of the jitter: it is made
shorter only when it has lasted for so many reports, 2 s."""

IDLE: Final = 0.015
"""Seconds. If the rest of the queue is longer, it is left out: it never fills a frame of its own,
and only makes the delay longer."""

SPEECH: Final = 0.08
BACKGROUND: Final = 0.75
"""The part of speech, and of silence and background, that is left out or repeated at most."""

UNUSED: Final = 0.25
"""Seconds. Where no two pieces are alike, such as in an "s", nothing is changed for a while. The
next change may come earlier by so much."""

BELOW_VOICE: Final = 0.1
"""What is quieter than the voice by this factor (20 dB) is background."""

FADING: Final = 0.98
"""The level of the voice is remembered, and sinks by this factor with each report."""

LESS_ALIKE: Final = 0.97
"""With each frame in which no two pieces were alike, less likeness is demanded."""

_HEAD: Final = 3  # frames that are looked at
_ANYHOW: Final = -1.0
_ROUNDING: Final = 1e-9


class Tempo:
    """Changes the time of what waits in a `FrameQueue`.

    `debt`: seconds that are still to be left out; less than 0: to be added. `work` is to be called
    before each frame while it is not 0.
    """

    __slots__ = ("_alike", "_excess", "_long", "_queue", "_since", "_stats", "_voice", "debt")

    def __init__(self, queue: FrameQueue, stats: PlayoutStats) -> None:
        self._queue = queue
        self._stats = stats
        self._voice = 0.0
        self.stop()

    def stop(self) -> None:
        """Leave everything as it is."""
        self.debt = 0.0
        self._excess = 0.0  # seconds of the last period that was repeated which were too much
        self._long = 0  # reports in a row of a surplus
        self._since = 0.0  # seconds that must be played before the next change
        self._alike = ALIKE

    def listen(self, pcm: bytes) -> None:
        """Learn the level of the voice from a piece of the bot's audio."""
        self._voice = max(self._voice * FADING, level(np.frombuffer(pcm, SAMPLE)))

    def aim(self, surplus: float | None) -> None:
        """Audio waits `surplus` seconds longer than it must; None: nobody knows.

        Audio must be there at the tick of its frame. So only whole frames change how long it waits,
        and the best queue has no rest.
        """
        before, self.debt = self.debt, 0.0
        if surplus is None:
            return
        rest = self._queue.rest * self._queue.seconds_per_byte
        frames = max(0, floor((surplus - SPARE) / FRAME))
        if surplus < -SHORT:
            self._excess = 0.0
            self.debt = rest + FRAME * floor(surplus / FRAME)
        elif frames or rest > IDLE:
            self._long += 1
            if before > 0.0 or surplus > MUCH or self._long >= LASTING:
                self.debt = rest + FRAME * frames
            return
        else:
            self.debt = self._excess
        self._long = 0

    def work(self) -> int:
        """Change what is played next, if it is time for it. Returns by how many frames the queue is
        longer; less than 0: shorter."""
        self._stats.scaled_ms += FRAME_MS
        self._since = max(self._since - FRAME, -UNUSED)
        if self._since > 0.0:
            return 0
        queue = self._queue
        if queue.seconds < NEEDED:
            return 0
        head = queue.head(_HEAD * queue.frame_bytes)
        samples = np.frombuffer(head, SAMPLE)
        background = level(samples) < max(SILENT, self._voice * BELOW_VOICE)
        alike = _ANYHOW if background else self._alike
        if self.debt > 0:
            most = min(self.debt, LONGEST)
            least = most / 2 if background else SHORTEST
            scaled = shorten(samples, queue.rate, alike, least, most)
        else:
            scaled = lengthen(samples, queue.rate, alike)
        if scaled is None:
            self._alike *= LESS_ALIKE
            return 0
        seconds = scaled.changed / queue.rate
        self._since += seconds / (BACKGROUND if background else SPEECH)
        self._alike = ALIKE
        before = queue.end
        queue.replace_head(len(head), scaled.samples.tobytes())
        self._pay(seconds)
        return queue.end - before

    def _pay(self, seconds: float) -> None:
        if self.debt > 0:
            self.debt -= seconds
            self._stats.shortened_ms += seconds * 1000
            self._excess = min(self._excess, self.debt)
        else:
            self.debt += seconds
            self._stats.stretched_ms += seconds * 1000
            self._excess = max(0.0, self.debt)
        if 0 <= self.debt + _ROUNDING < SHORTEST:
            self.debt = self._excess = 0.0
