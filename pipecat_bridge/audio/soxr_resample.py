"""The resampler of libsoxr as a stream, for rates that the FIR resampler has no filter for.

It hands out audio in blocks of its own, up to a sixth of a second late, and the number of
samples out follows the number in only over seconds: the playout needs a deep prebuffer with it.
"""

from __future__ import annotations

import numpy as np
import soxr

from pipecat_bridge.audio.pcm import SAMPLE, Pcm, check_even

# Longest time that a sample was seen to be held back, in samples of the lower of both rates.
_HELD_BACK = 1440


class SoxrResampler:
    """A stream through soxr at its HQ quality.

    `delay`, in seconds, is how late a sample comes out at the most; most come out sooner.
    """

    __slots__ = ("_stream", "delay", "rate_in", "rate_out")

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in, self.rate_out = rate_in, rate_out
        self.delay = _HELD_BACK / min(rate_in, rate_out)
        self._stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="int16", quality="HQ")

    def process(self, pcm: Pcm) -> bytes:
        check_even(pcm)
        return bytes(self._stream.resample_chunk(np.frombuffer(pcm, SAMPLE)).data)

    def reset(self) -> None:
        self._stream.clear()
