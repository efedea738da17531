"""The resampler of libsoxr, for rates for which the FIR resampler has no filter.

It returns audio in blocks, up to a sixth of a second late. Only over seconds does the number of
samples that come out match the number that went in, so the playout needs a long prebuffer.
"""

from __future__ import annotations

import numpy as np
import soxr

from pipecat_bridge.audio.pcm import SAMPLE, Pcm, check_even

# The longest measured delay of a sample, in samples of the lower of the two rates.
_HELD_BACK = 1440


class SoxrResampler:
    """Converts one stream by soxr with its quality HQ.

    `delay` is the largest delay of a sample in seconds. Most samples come out sooner.
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
