"""What a caller hears who waits: a recording, in a loop, at the rate of his line."""

from __future__ import annotations

import io
import wave
from typing import NamedTuple

from pipecat_bridge.audio import tones
from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.audio.pcm import Pcm, mix_down, silence
from pipecat_bridge.audio.resample import Resampler, make_resampler

PIECE = FRAME
"""Seconds of a recording that are converted at a time, and the least that there must be."""


class HoldMusic(NamedTuple):
    """Mono PCM16 at `rate` Hz."""

    pcm: bytes
    rate: int


def read_wav(content: bytes) -> HoldMusic:
    """The recording in a WAV file of 16-bit samples, its channels mixed into one.

    Raises ValueError for anything else, for less than 20 ms, and for a rate that cannot be
    converted to that of a phone.
    """
    try:
        with wave.open(io.BytesIO(content), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise ValueError(f"no PCM WAV file: {reason}") from None
    if width != 2:
        raise ValueError(f"a WAV file of {8 * width} bits: expected 16")
    pcm = mix_down(pcm[: len(pcm) - len(pcm) % (2 * channels)], channels)
    HoldLoop(pcm, rate, 8000)
    return HoldMusic(pcm, rate)


def waiting_tone() -> HoldMusic:
    """What plays where no recording is set: a quiet beep each three seconds, so that the caller
    hears that the line is there."""
    rate = 16000
    beep = tones.beep(425, -22.0, 0.2, rate)
    return HoldMusic(silence(rate, 0.8) + beep + silence(rate, 2.0), rate)


class HoldLoop:
    """Plays a recording over and over, converted as it goes: all at once would stop the clock.

    By soxr, which takes any ratio of rates; that it hands out blocks does no harm here.
    """

    __slots__ = ("_at", "_pcm", "_rate", "_ready", "_resampler", "_step")

    def __init__(self, pcm: Pcm, rate: int, rate_out: int) -> None:
        """Raises ValueError for less than 20 ms of audio and for rates that cannot be."""
        self._pcm = memoryview(pcm)
        self._rate = rate
        self._at = 0
        self._step = round(rate * PIECE) * 2
        self.set_rate(rate_out)
        if len(pcm) < self._step:
            raise ValueError(f"{len(pcm)} bytes of audio: expected 20 ms or more, {self._step}")

    def set_rate(self, rate: int) -> None:
        """Play at `rate` from now on."""
        self._resampler: Resampler = make_resampler(self._rate, rate, "soxr")
        self._ready = b""

    def frame(self, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self._ready) < size:
            piece = self._pcm[self._at : self._at + self._step]
            self._at += len(piece)
            if self._at == len(self._pcm):
                self._at = 0
            self._ready += self._resampler.process(piece)
        frame, self._ready = self._ready[:size], self._ready[size:]
        return frame
