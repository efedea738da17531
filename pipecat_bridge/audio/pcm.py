"""Raw audio of 16-bit little-endian samples: length checks, channels, WAVE headers, silence."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np

from pipecat_bridge.errors import FormatError

Pcm = bytes | bytearray | memoryview

SAMPLE = np.dtype("<i2")

AUDIBLE: Final = 20
"""Samples from minus this value to this value are silence, as in Pipecat. The dither of a resampler
turns 0 into -8 in mu-law."""


MAX_CHANNELS: Final = 8
"""More than any bot sends. Of half a sample of all channels, bytes are kept for the next frame."""


class Wave(NamedTuple):
    """The audio of a frame, and the rate in Hz and the channels that its header names, if any."""

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
    if not 1 <= channels <= MAX_CHANNELS:
        raise FormatError(f"{channels} channels: expected 1 to {MAX_CHANNELS}")
    size, width = len(pcm), 2 * channels
    if size % width:
        raise FormatError(
            f"{size} bytes of audio: {channels} channels of 16 bits need a multiple of {width}, "
            f"such as {size - size % width}"
        )


def silence(rate: int, seconds: float) -> bytes:
    """Return `seconds` of silence as mono PCM16 at `rate` Hz, to the nearest sample."""
    return bytes(2 * round(rate * seconds))


def is_silent(audio: bytes) -> bool:
    """Return True if a frame, with or without a RIFF header, is silence."""
    pcm = strip_riff(audio).audio
    samples = np.frombuffer(pcm, SAMPLE, len(pcm) // 2)
    return not samples.size or (samples.max() <= AUDIBLE and samples.min() >= -AUDIBLE)


class SampleCarry:
    """Cuts a stream of bytes where samples end, and keeps an incomplete sample for the next chunk.

    With several channels, a sample has one value for each channel.
    """

    __slots__ = ("_channels", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._channels = 1

    def join(self, data: Pcm, channels: int = 1) -> bytes:
        """Return the complete samples of the kept bytes and `data`.

        Another number of channels than before begins a new stream: kept bytes are dropped. Raises
        FormatError for fewer than one channel.
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
        """Drop the kept bytes."""
        self._rest = b""


class FrameCutter:
    """Cuts a stream into frames of `size` bytes. The rest of a piece begins the next frame."""

    __slots__ = ("_rest", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest = b""

    def cut(self, pcm: bytes) -> list[bytes]:
        """Take a piece of the stream; return the frames that are complete now."""
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
_MOST_CHUNKS = 64  # that are looked at; a file has three or four
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<2xHI")  # after the encoding: channels and rate


def strip_riff(data: Pcm) -> Wave:
    """Return the audio of a frame without its RIFF/WAVE header, if it has one.

    Sizes in the header are not trusted: streams are written before their length is known. The
    audio goes to the end of the frame, unless well-formed chunks follow it. Never raises.
    """
    frame = bytes(data)
    if len(frame) < _RIFF_HEADER or frame[:4] != b"RIFF" or frame[8:12] != b"WAVE":
        return Wave(frame)
    rate = channels = None
    at = _RIFF_HEADER
    for _ in range(_MOST_CHUNKS):
        if at + _CHUNK_HEADER > len(frame):
            break
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


def without_header(audio: bytes, rate: int, channels: int) -> tuple[bytes, int, int]:
    """Audio, rate and channels of a frame. A RIFF/WAVE header counts more than `rate` and
    `channels`."""
    body, header_rate, header_channels = strip_riff(audio)
    return body, header_rate or rate, header_channels or channels


def _data_end(frame: bytes, start: int, size: int) -> int:
    """Return `start` + `size` if well-formed chunks follow there, else the end of the frame."""
    at = end = start + size
    at += size & 1
    for _ in range(_MOST_CHUNKS if size else 0):
        if at >= len(frame):
            break
        if at + _CHUNK_HEADER > len(frame):
            return len(frame)
        name, length = _CHUNK.unpack_from(frame, at)
        if not name.strip().isalnum():
            return len(frame)
        at += _CHUNK_HEADER + length + (length & 1)
    return end if size and at == len(frame) else len(frame)


def _search_audio(frame: bytes) -> bytes:
    """Return the audio after the word "data", if the sizes of the chunks do not lead to it."""
    found = frame.find(b"data", _RIFF_HEADER)
    if found >= 0:
        return frame[found + _CHUNK_HEADER :]
    # Without that word it is a header that was cut off, or audio: a click is better than no audio.
    return b"" if len(frame) <= _SHORTEST_HEADER else frame[_RIFF_HEADER:]
