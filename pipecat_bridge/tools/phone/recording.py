"""Both directions of a call on one time line.

Time is what the wire says: a sample of the caller's stands where its message was due to be sent, a
sample of the bot's where a phone with a small jitter buffer would play it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.tools.phone.microphone import Samples

# A message that comes this much after its turn was late; more, and one before it is missing.
JITTER_SECONDS: Final = 0.01
# For how many messages a delay must last to count as a gap and not as jitter: a message that is
# missing delays all that follow, a stall only those that were due in it.
LASTING_MESSAGES: Final = 5


class Chunk(NamedTuple):
    """One audio message: when it arrived (seconds), its rate, 16-bit little-endian samples."""

    at: float
    rate: int
    pcm: bytes

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return len(self.pcm) / (2 * self.rate)


class Span(NamedTuple):
    """A stretch of time, in seconds from the start of the call."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.end - self.start


class Timeline(NamedTuple):
    """The call as heard: two tracks of equal length, the holes in the bot's, its greatest lead.

    `gaps` are stretches in which the bot's side had nothing to play, `lead` the seconds by which
    its audio was at most ahead of real time.
    """

    rate: int
    caller: Samples
    bot: Samples
    gaps: list[Span]
    lead: float

    @property
    def seconds(self) -> float:
        """How long the call lasted."""
        return self.caller.size / self.rate


class Recording:
    """What was sent and what arrived, as it was, with its times."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.sent_at: list[float] = []
        self.chunks: list[Chunk] = []
        self._caller = bytearray()

    def sent(self, at: float, pcm: bytes) -> None:
        """Note a frame of the caller's that was sent at `at`."""
        self.sent_at.append(at)
        self._caller += pcm

    def received(self, chunk: Chunk) -> None:
        """Note an audio message of the bot's."""
        self.chunks.append(chunk)

    def timeline(self) -> Timeline:
        """Lay both directions on one time line at the rate of the call."""
        caller = np.frombuffer(bytes(self._caller), dtype="<i2").astype(np.int16)
        bot, gaps, lead = _play(self.chunks, self.rate)
        length = max(caller.size, bot.size)
        return Timeline(self.rate, _padded(caller, length), _padded(bot, length), gaps, lead)


def lateness(chunks: list[Chunk]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """By how much each chunk comes after the audio before it would have ended.

    Two arrays of seconds, one value a chunk: the lateness that lasts (a start that was late, and
    every chunk missing since), and the jitter on top of it, which is never negative.
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
    """The bot's track: chunks end to end, with silence where a phone would have run dry."""
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
