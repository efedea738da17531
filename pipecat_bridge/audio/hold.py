"""Hold music: a recording that a waiting caller hears in a loop."""

from __future__ import annotations

import io
import wave
from typing import NamedTuple

from pipecat_bridge.audio import tones
from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.audio.pcm import Pcm, mix_down, silence
from pipecat_bridge.audio.resample import Resampler, make_resampler

PIECE = FRAME
"""Seconds of a recording that are converted at a time. A shorter recording is refused."""


class HoldMusic(NamedTuple):
    """A recording, as mono PCM16 at `rate` Hz."""

    pcm: bytes
    rate: int


def read_wav(content: bytes) -> HoldMusic:
    """The recording in a WAV file of 16-bit samples, with its channels mixed into one.

    Raises ValueError for any other content, for less than 20 ms of audio, and for a rate that
    cannot be converted to the rate of a phone.
    """
    try:
        with wave.open(io.BytesIO(content), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise ValueError(f"not a PCM WAV file: {reason}") from None
    if width != 2:
        raise ValueError(f"a WAV file of {8 * width} bits: expected 16")
    pcm = mix_down(pcm[: len(pcm) - len(pcm) % (2 * channels)], channels)
    HoldLoop(pcm, rate, 8000)
    return HoldMusic(pcm, rate)


def waiting_tone() -> HoldMusic:
    """The sound without a recording: a quiet beep every three seconds.

    From it the caller hears that the line is still connected.
    """
    rate = 16000
    beep = tones.beep(425, -22.0, 0.2, rate)
    return HoldMusic(silence(rate, 0.8) + beep + silence(rate, 2.0), rate)


class HoldLoop:
    """Plays a recording in a loop, at the rate of the phone.

    Each piece is converted when it is due: to convert the whole recording at once would delay the
    frames of other calls. soxr converts, since it takes any ratio of rates. Its output comes in
    blocks, which does no harm here.
    """

    __slots__ = ("_at", "_pcm", "_rate", "_ready", "_resampler", "_step")

    def __init__(self, pcm: Pcm, rate: int, rate_out: int) -> None:
        """Raises ValueError for less than 20 ms of audio and for rates that cannot be converted."""
        self._pcm = memoryview(pcm)
        self._rate = rate
        self._at = 0
        self._step = round(rate * PIECE) * 2
        self.set_rate(rate_out)
        if len(pcm) < self._step:
            least = f"20 ms or more, {self._step} bytes"
            raise ValueError(f"{len(pcm)} bytes of audio: expected {least}")

    def set_rate(self, rate: int) -> None:
        """Play at `rate` from now on."""
        self._resampler: Resampler = make_resampler(self._rate, rate, "soxr")
        self._ready = b""

    def frame(self, size: int) -> bytes:
        """The next `size` bytes of the loop."""
        while len(self._ready) < size:
            piece = self._pcm[self._at : self._at + self._step]
            self._at += len(piece)
            if self._at == len(self._pcm):
                self._at = 0
            self._ready += self._resampler.process(piece)
        frame, self._ready = self._ready[:size], self._ready[size:]
        return frame
