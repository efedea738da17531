"""Converts the sample rate of a stream, without seams between its chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pipecat_bridge import native
from pipecat_bridge.audio.fir import NativeFir, NumpyFir
from pipecat_bridge.audio.pcm import Pcm, check_even
from pipecat_bridge.errors import FormatError

LOWEST_RATE, HIGHEST_RATE = 8000, 192000


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


def _soxr(rate_in: int, rate_out: int) -> Resampler:
    from pipecat_bridge.audio.soxr_resample import SoxrResampler  # few calls need its library

    return SoxrResampler(rate_in, rate_out)


_KINDS: dict[str, Callable[[int, int], Resampler]] = {
    "fir": NativeFir if native.COMPILED else NumpyFir,
    "soxr": _soxr,
}
