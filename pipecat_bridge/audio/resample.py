"""Converts the sample rate of a stream, without seams between its chunks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from pipecat_bridge.audio.pcm import Pcm, check_even
from pipecat_bridge.audio.polyphase import LONGEST_PERIOD, Polyphase
from pipecat_bridge.errors import FormatError

LOWEST_RATE, HIGHEST_RATE = 8000, 192000

# Ratios whose filter stays in memory. A process needs a few; a hostile bot could name thousands.
_RATIOS = 32


class Resampler(Protocol):
    """Converts one stream of audio from one sample rate to another.

    Rates are in Hz. `delay` is in seconds: how much later a sound comes out than it went in.
    """

    @property
    def rate_in(self) -> int: ...
    @property
    def rate_out(self) -> int: ...
    @property
    def delay(self) -> float: ...

    def process(self, pcm: Pcm) -> bytes:
        """Take the next chunk of the stream; return the output that it adds.

        Both are 16-bit little-endian mono samples, in any number. An odd number of bytes raises
        FormatError and leaves the stream as it was.
        """
        ...

    def reset(self) -> None:
        """Forget the past: the next chunk begins a new stream."""
        ...


def make_resampler(rate_in: int, rate_out: int, kind: str = "fir") -> Resampler:
    """Return a resampler for one stream; `kind` is "fir" or "soxr".

    Raises FormatError for an unknown kind and for rates that the kind cannot convert.
    """
    if kind not in _KINDS:
        raise FormatError(f"unknown resampler {kind!r}: expected {' or '.join(map(repr, _KINDS))}")
    for rate in (rate_in, rate_out):
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise FormatError(
                f"sample rate of {rate} Hz: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            )
    if rate_in == rate_out:
        return PassThrough(rate_in)
    return _KINDS[kind](rate_in, rate_out)


class PassThrough:
    """A resampler between equal rates. It returns its input."""

    __slots__ = ("rate_in", "rate_out")
    delay = 0.0

    def __init__(self, rate: int) -> None:
        self.rate_in = self.rate_out = rate

    def process(self, pcm: Pcm) -> bytes:
        check_even(pcm)
        return bytes(pcm)

    def reset(self) -> None:
        pass


class FirResampler:
    """A resampler with a linear-phase filter. Its delay is constant.

    After n samples of input, the output has exactly ceil(n * rate_out / rate_in) samples. They are
    the same however the stream was cut into chunks, rounded to nearest, and limited to full scale.
    """

    __slots__ = ("_history", "_phase", "_shared", "delay", "rate_in", "rate_out")

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in, self.rate_out = rate_in, rate_out
        common = math.gcd(rate_in, rate_out)
        up, down = rate_out // common, rate_in // common
        if max(up, down) > LONGEST_PERIOD:
            raise FormatError(
                f"no filter from {rate_in} to {rate_out} Hz, a ratio of {up} to {down}: "
                f"expected numbers up to {LONGEST_PERIOD}, or the resampler 'soxr'"
            )
        self._shared = _polyphase(up, down)
        self.delay = self._shared.delay / rate_in
        self.reset()

    def reset(self) -> None:
        self._history = memoryview(bytearray(2 * self._shared.history))
        self._phase = 0

    def process(self, pcm: Pcm) -> bytes:
        size = len(pcm)
        if size & 1:
            check_even(pcm)
        if not 0 < size <= 2 * self._shared.longest:
            return self._process_long(pcm)
        layout = self._shared.layout(self._phase, size >> 1)
        self._phase = layout.next_phase
        return layout.run(self._history, pcm)

    def _process_long(self, pcm: Pcm) -> bytes:
        step = 2 * self._shared.longest
        view = memoryview(pcm)
        return b"".join(self.process(view[i : i + step]) for i in range(0, len(pcm), step))


@lru_cache(maxsize=_RATIOS)
def _polyphase(up: int, down: int) -> Polyphase:
    return Polyphase(up, down)


def _soxr(rate_in: int, rate_out: int) -> Resampler:
    from pipecat_bridge.audio.soxr_resample import SoxrResampler  # few calls need its library

    return SoxrResampler(rate_in, rate_out)


_KINDS: dict[str, Callable[[int, int], Resampler]] = {"fir": FirResampler, "soxr": _soxr}
