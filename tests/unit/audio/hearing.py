"""A bot whose audio comes as a pattern says, and a phone that hears it, on a turned clock."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipecat_bridge.audio.frame import FRAME, frame_bytes
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.audio.stats import PlayoutStats
from pipecat_bridge.tools.load.patterns import Pattern

Samples = NDArray[np.int16]


class Delay(NamedTuple):
    """At `time` seconds, the frame that was played had come `seconds` before."""

    time: float
    seconds: float


class Heard(NamedTuple):
    """What the phone heard. A frame in which nothing was played is silence."""

    samples: Samples
    delays: list[Delay]
    stats: PlayoutStats

    def delay(self, begin: float, end: float) -> float:
        """Mean delay in seconds from `begin` to `end`."""
        return float(np.mean([each.seconds for each in self.delays if begin <= each.time < end]))

    def settled(self, since: float, limit: float) -> float:
        """Seconds after `since` until the mean delay of 0.4 s stays below `limit` seconds."""
        late = [
            each.time
            for each in self.delays
            if each.time > since and self.delay(each.time - 0.2, each.time + 0.2) > limit
        ]
        return max(late, default=since) - since


def hear(
    sound: Samples,
    pattern: Pattern,
    rate: int = 8000,
    playout: Playout | None = None,
    phase: float = 0.007,
    seed: int = 1,
    ppm: float = 0.0,
) -> Heard:
    """Play `sound` at `rate` to its end. The first message comes `phase` seconds after a tick. The
    phone's clock is slower than the bot's by `ppm` parts in a million."""
    playout = playout or Playout(rate)
    stats, size = playout.stats, round(pattern.chunk * rate)
    count = sound.size // size
    times = [phase + at for at in pattern.arrivals(count, Random(seed))]
    heard: list[bytes] = []
    delays: list[Delay] = []
    silence = bytes(frame_bytes(playout.rate))
    written = tick = 0
    while written < count or not playout.empty:
        now = tick * FRAME * (1 + ppm * 1e-6)
        while written < count and times[written] <= now:
            chunk = sound[written * size : (written + 1) * size]
            playout.write(chunk.tobytes(), rate, 1, times[written])
            written += 1
        before = stats.delays.total, stats.frames_played
        heard.append(playout.read(now) or silence)
        if stats.frames_played > before[1]:
            delays.append(Delay(now, stats.delays.total - before[0]))
        tick += 1
    return Heard(np.frombuffer(b"".join(heard), "<i2"), delays, stats)


def voice(seconds: float, rate: int = 8000) -> Samples:
    """Something like speech: harmonics of a gliding pitch in syllables, hisses between them, and a
    pause of digital silence of 0.3 s in every 2.4 s."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(number * phase) / number for number in range(1, 12))
    syllable = np.clip(1.2 * np.sin(2 * np.pi * 2.2 * time), 0.0, 1.0) ** 0.5
    hiss = np.random.default_rng(2).normal(0.0, 0.15, time.size) * (syllable == 0)
    speaking = (time % 2.4) < 2.1
    return np.rint(5000 * (sound * syllable + hiss) * speaking).astype(np.int16)


def noise(seconds: float, level: float, rate: int = 8000) -> Samples:
    """White noise with an RMS of `level`."""
    count = round(seconds * rate)
    return np.random.default_rng(1).normal(0.0, level, count).astype(np.int16)
