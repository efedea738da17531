"""Puts both directions of a call on one time line.

A sample of the caller is at the time when its message was due to be sent. A sample of the bot is at
the time when a phone with a small jitter buffer would play it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.tools.phone.microphone import Samples

# A delay that lasts and is longer than this is a gap: a message before it is missing.
JITTER_SECONDS: Final = 0.01
# For how many messages a delay must last to count as a gap and not as jitter. A missing message
# delays all messages after it. A stall delays only the messages that were due in it.
LASTING_MESSAGES: Final = 5


class Chunk(NamedTuple):
    """One audio message. `at`: when it arrived, in seconds. `pcm`: 16-bit little-endian samples."""

    at: float
    rate: int
    pcm: bytes

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return len(self.pcm) / (2 * self.rate)


class Span(NamedTuple):
    """A period of the call, in seconds from its start."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.end - self.start


class Timeline(NamedTuple):
    """The call as it was heard, in two tracks of equal length.

    `gaps`: periods in which the phone had nothing to play from the bot. `lead`: the most seconds by
    which the bot's audio was ahead of real time.
    """

    rate: int
    caller: Samples
    bot: Samples
    gaps: list[Span]
    lead: float

    @property
    def seconds(self) -> float:
        """The length of the call in seconds."""
        return self.caller.size / self.rate


class Recording:
    """Keeps what was sent and what arrived, with the times."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.sent_at: list[float] = []
        self.chunks: list[Chunk] = []
        self._caller = bytearray()

    def sent(self, at: float, pcm: bytes) -> None:
        """Keep a frame of the caller that was sent at the time `at`, in seconds."""
        self.sent_at.append(at)
        self._caller += pcm

    def received(self, chunk: Chunk) -> None:
        """Keep an audio message of the bot."""
        self.chunks.append(chunk)

    def timeline(self) -> Timeline:
        """Both directions on one time line, at the rate of the call."""
        caller = np.frombuffer(bytes(self._caller), dtype="<i2").astype(np.int16)
        bot, gaps, lead = _play(self.chunks, self.rate)
        length = max(caller.size, bot.size)
        return Timeline(self.rate, _padded(caller, length), _padded(bot, length), gaps, lead)


def lateness(chunks: list[Chunk]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How late each chunk came, compared with the end of the audio before it.

    Two arrays in seconds, with one value for each chunk. The first is the lateness that lasts: from
    a late start, and from missing chunks. The second is the jitter above it, never negative.
    """
    if not chunks:
        return np.zeros(0), np.zeros(0)
    lengths = np.array([chunk.seconds for chunk in chunks])
    media = np.concatenate(([0.0], np.cumsum(lengths)[:-1]))
    delay = np.array([chunk.at for chunk in chunks]) - media
    width = min(LASTING_MESSAGES, delay.size)
    lasting = np.lib.stride_tricks.sliding_window_view(delay, width).min(axis=1)
    lasting = np.concatenate((lasting, np.full(width - 1, lasting[-1])))
    return lasting, np.maximum(delay - lasting, 0.0)


def _play(chunks: list[Chunk], rate: int) -> tuple[Samples, list[Span], float]:
    """The bot's track, its gaps and its lead. Gaps are filled with silence."""
    lasting, _ = lateness(chunks)
    resamplers = {one: make_resampler(one, rate) for one in {c.rate for c in chunks} - {rate}}
    pieces: list[Samples] = []
    gaps: list[Span] = []
    played = media = lead = 0.0
    for chunk, late in zip(chunks, lasting, strict=True):
        due = media + float(late)
        if due - played > JITTER_SECONDS:
            if pieces:
                gaps.append(Span(played, due))
            pieces.append(np.zeros(round(due * rate) - round(played * rate), dtype=np.int16))
            played = due
        lead = max(lead, played - chunk.at)
        pcm = chunk.pcm if chunk.rate == rate else resamplers[chunk.rate].process(chunk.pcm)
        pieces.append(np.frombuffer(pcm, dtype="<i2").astype(np.int16))
        media += chunk.seconds
        played += chunk.seconds
    track = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int16)
    return track, gaps, lead


def _padded(samples: Samples, length: int) -> Samples:
    return np.concatenate((samples, np.zeros(length - samples.size, dtype=np.int16)))
