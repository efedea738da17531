"""Raw audio of 16-bit little-endian samples: length checks, channels, WAVE headers, silence."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np

from pipecat_bridge.errors import FormatError

Pcm = bytes | bytearray | memoryview

SAMPLE = np.dtype("<i2")

AUDIBLE: Final = 20
"""Samples up to here are silence, as for Pipecat: a resampler's dither makes -8 of 0 in mu-law."""


class Wave(NamedTuple):
    """Audio of a frame, and what its header says of it (None where there is no such header).

    `rate` is in Hz.
    """

    audio: bytes
    rate: int | None = None
    channels: int | None = None


def check_even(pcm: Pcm) -> None:
    """Raise FormatError when `pcm` is not a whole number of 16-bit samples."""
    size = len(pcm)
    if size & 1:
        raise FormatError(
            f"{size} bytes of audio: 16-bit samples need an even number, {size - 1} or {size + 1}"
        )


def mix_down(pcm: Pcm, channels: int) -> bytes:
    """Return the average of `channels` interleaved channels, rounded to nearest (halves up).

    Raises FormatError when `pcm` does not end on a whole sample of all channels.
    """
    check_channels(pcm, channels)
    if channels == 1:
        return bytes(pcm)
    samples = np.frombuffer(pcm, SAMPLE).reshape(-1, channels)
    sums = samples.sum(axis=1, dtype=np.int32)
    mean = (sums + channels // 2) // channels
    return bytes(mean.astype(SAMPLE).data)


def check_channels(pcm: Pcm, channels: int) -> None:
    """Raise FormatError when `pcm` is not a whole number of samples of all channels."""
    if channels < 1:
        raise FormatError(f"{channels} channels: expected 1 or more")
    size, width = len(pcm), 2 * channels
    if size % width:
        raise FormatError(
            f"{size} bytes of audio: {channels} channels of 16 bits need a multiple of {width}, "
            f"such as {size - size % width}"
        )


def silence(rate: int, seconds: float) -> bytes:
    """Return silence, to the nearest sample."""
    return bytes(2 * round(rate * seconds))


def is_silent(audio: bytes) -> bool:
    """Whether nothing can be heard in a frame, with or without a RIFF header."""
    pcm = strip_riff(audio).audio
    samples = np.frombuffer(pcm, SAMPLE, len(pcm) // 2)
    return not samples.size or (samples.max() <= AUDIBLE and samples.min() >= -AUDIBLE)


class SampleCarry:
    """Cuts a stream of bytes where samples end, and carries the rest over to the next chunk.

    With several channels a sample is one value of each of them.
    """

    __slots__ = ("_channels", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._channels = 1

    def join(self, data: Pcm, channels: int = 1) -> bytes:
        """Return the whole samples of what was carried over and `data`.

        A number of channels other than before begins a new stream: half a sample of the old one
        is of no use to it. Raises FormatError for fewer than one.
        """
        if channels != self._channels:
            check_channels(b"", channels)
            self._rest, self._channels = b"", channels
        joined = self._rest + data if self._rest else bytes(data)
        beyond = len(joined) % (2 * channels)
        if not beyond:
            self._rest = b""
            return joined
        self._rest = joined[-beyond:]
        return joined[:-beyond]

    def reset(self) -> None:
        """Drop what was carried over."""
        self._rest = b""


class FrameCutter:
    """Cuts a stream into frames of `size` bytes; what is left of a piece begins the next frame."""

    __slots__ = ("_rest", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest = b""

    def cut(self, pcm: bytes) -> list[bytes]:
        """Return the frames that are whole now."""
        if self._rest:
            pcm = self._rest + pcm
        elif len(pcm) == self._size:
            return [pcm]
        size, end = self._size, len(pcm)
        whole = end - end % size
        self._rest = pcm[whole:]
        return [pcm[start : start + size] for start in range(0, whole, size)]


# RIFF: "RIFF", size, "WAVE", then chunks of a four-letter name, a size and that many bytes,
# padded to an even number (IBM and Microsoft, 1991, "Multimedia Programming Interface and Data
# Specifications 1.0").
_RIFF_HEADER = 12
_CHUNK_HEADER = 8
_SHORTEST_HEADER = 44
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<2xHI")  # after the encoding: channels and rate


def strip_riff(data: Pcm) -> Wave:
    """Return the audio of a frame without the RIFF/WAVE header that it may begin with.

    Sizes in the header are not trusted: streams are written before their length is known. The
    audio goes to the end of the frame, unless a well-formed chunk stands behind it. Never raises.
    """
    frame = bytes(data)
    if len(frame) < _RIFF_HEADER or frame[:4] != b"RIFF" or frame[8:12] != b"WAVE":
        return Wave(frame)
    rate = channels = None
    at = _RIFF_HEADER
    while at + _CHUNK_HEADER <= len(frame):
        name, size = _CHUNK.unpack_from(frame, at)
        at += _CHUNK_HEADER
        if name == b"data":
            return Wave(frame[at : _data_end(frame, at, size)], rate, channels)
        if at + size > len(frame):
            break
        if name == b"fmt " and size >= _FORMAT.size:
            channels, rate = (value or None for value in _FORMAT.unpack_from(frame, at))
        at += size + (size & 1)
    return Wave(_search_audio(frame), rate, channels)


def _data_end(frame: bytes, start: int, size: int) -> int:
    """Return where `size` ends when well-formed chunks follow it, else the end of the frame."""
    at = end = start + size
    at += size & 1
    while size and at < len(frame):
        if at + _CHUNK_HEADER > len(frame):
            return len(frame)
        name, length = _CHUNK.unpack_from(frame, at)
        if not name.strip().isalnum():
            return len(frame)
        at += _CHUNK_HEADER + length + (length & 1)
    return end if size and at == len(frame) else len(frame)


def _search_audio(frame: bytes) -> bytes:
    """Return what follows the word "data" where the sizes before it do not lead there."""
    found = frame.find(b"data", _RIFF_HEADER)
    if found >= 0:
        return frame[found + _CHUNK_HEADER :]
    # No such word: a header that was cut short, or audio, which is better heard with a click.
    return b"" if len(frame) <= _SHORTEST_HEADER else frame[_RIFF_HEADER:]
