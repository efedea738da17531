"""AudioSocket: one byte of kind, two bytes of length (big endian), the payload.

Kinds and rates are those of ``res_audiosocket.c`` (Asterisk 18 to 23); audio is signed 16-bit
little-endian mono. The decoder does no I/O: bytes in, messages out, at any split.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn

from pipecat_bridge.errors import FormatError


class Kind(IntEnum):
    """The kinds that are not audio."""

    HANGUP = 0x00
    UUID = 0x01
    DTMF = 0x03
    ERROR = 0xFF


AUDIO_8K: Final = 0x10
AUDIO_RATES: Final[dict[int, int]] = {
    0x10: 8000,
    0x11: 12000,
    0x12: 16000,
    0x13: 24000,
    0x14: 32000,
    0x15: 44100,
    0x16: 48000,
    0x17: 96000,
    0x18: 192000,
}
"""Kind of an audio message -> samples per second."""

AUDIO_KINDS: Final[dict[int, int]] = {rate: kind for kind, rate in AUDIO_RATES.items()}
"""Samples per second -> kind of an audio message."""

HEADER_BYTES: Final = 3
HANGUP: Final = b"\x00\x00\x00"

ERROR: Final = b"\xff\x00\x01\x00"
"""An error. Asterisk ignores the code, fails the application and hangs up the channel
(app_audiosocket.c). After `HANGUP`, the dialplan continues."""

LENGTH_LIMIT: Final = 0xFFFF
"""Longest payload that the length field can express, in bytes."""

_LONGEST_AUDIO: Final[dict[int, int]] = {
    kind: min(rate, 65534) for kind, rate in AUDIO_RATES.items()
}
"""Kind -> most bytes of audio in a message. Asterisk sends one channel frame in each message,
usually 20 ms and never more than 500 ms. So the limit is half a second, but at most the longest
even length."""

_SIZES: Final[dict[int, int]] = {Kind.UUID: 16, Kind.DTMF: 1}
"""Kind -> bytes of its payload, for kinds with a fixed length."""


class AudioSocketMessage(NamedTuple):
    """One AudioSocket message."""

    kind: int
    payload: bytes


_new: Final = tuple.__new__
"""A named tuple's own `__new__` is a function in Python."""


class DecodeError(FormatError):
    """The peer does not speak AudioSocket. The rest of its stream cannot be used.

    `messages` are the complete messages before the fault.
    """

    def __init__(self, text: str, messages: list[AudioSocketMessage]) -> None:
        super().__init__(text)
        self.messages = messages


def encode(kind: int, payload: bytes = b"") -> bytes:
    """The bytes of one message. Raises ValueError for a payload longer than `LENGTH_LIMIT`."""
    if len(payload) > LENGTH_LIMIT:
        raise ValueError(
            f"a payload of {len(payload)} bytes for kind 0x{kind:02x}, at most {LENGTH_LIMIT} fit"
        )
    return _header(kind, len(payload)) + payload


def audio_header(rate: int, size: int) -> bytes:
    """The header of an audio message of `size` bytes at `rate` samples per second."""
    return _header(AUDIO_KINDS[rate], size)


def _header(kind: int, size: int) -> bytes:
    return bytes((kind, size >> 8, size & 0xFF))


class Decoder:
    """Turns a byte stream into messages.

    `feed` returns the messages that are complete, at most `most` of them; then `more` is True if
    there may be others, which `feed(b"")` returns. Messages of an unknown kind, or with a length
    that their kind cannot have, are skipped: `skipped` counts them, and `last_skipped` is the kind
    and the length of the last one. A hangup may have any length. Of an error only the code is kept,
    the first byte.

    `feed` raises `DecodeError` for audio that is too long, and from then on for all data. It does
    not check whether the length of audio is even.

    With `uuid_first`, the first message must be the call's UUID or a hangup. Any other first
    message is a DecodeError. A second UUID is skipped.
    """

    __slots__ = (
        "_awaits_uuid",
        "_buffer",
        "_fault",
        "_skip",
        "_takes_uuid",
        "_usual",
        "_usual_bytes",
        "last_skipped",
        "more",
        "skipped",
    )

    def __init__(self, uuid_first: bool = False) -> None:
        self._awaits_uuid = uuid_first
        self._takes_uuid = True
        self._buffer = b""
        self._skip = 0  # bytes of a skipped payload that are still to come
        # Nearly all data is one message of audio, as long as the one before. -1: it cannot be now.
        self._usual = b""
        self._usual_bytes = -1
        self._fault = ""
        self.more = False
        self.skipped = 0
        self.last_skipped = (0, 0)

    def only(self, data: bytes) -> bytes | None:
        """The audio, if `data` is one message of the kind and the length of the last one, as it
        nearly always is. None: `feed` has to take `data`."""
        if len(data) == self._usual_bytes and data[:HEADER_BYTES] == self._usual:
            return data[HEADER_BYTES:]
        return None

    def feed(self, data: bytes, most: int = sys.maxsize) -> list[AudioSocketMessage]:
        """Take `data`; return the messages that are complete now, or `most` of them."""
        self._usual_bytes = -1
        messages = self._feed(data, most)
        if messages and messages[-1].kind in AUDIO_RATES and not (self._buffer or self._skip):
            kind, payload = messages[-1]
            self._usual = _header(kind, len(payload))
            self._usual_bytes = HEADER_BYTES + len(payload)
        return messages

    def keep(self, data: bytes) -> None:
        """Keep `data` for the next `feed`. Only while `more` is True."""
        self._buffer += data

    def _feed(self, data: bytes, most: int) -> list[AudioSocketMessage]:
        if self._fault:
            raise DecodeError(self._fault, [])
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        messages: list[AudioSocketMessage] = []
        offset, end, taken = self._skip, len(data), 0
        while end - offset >= HEADER_BYTES and taken < most:
            kind = data[offset]
            size = data[offset + 1] << 8 | data[offset + 2]
            longest = _LONGEST_AUDIO.get(kind)
            if self._awaits_uuid:
                self._check_first(kind, size, messages)
            if longest is not None and size > longest:
                self._fail(kind, size, f"up to {longest}", messages)
            start = offset + HEADER_BYTES
            kept = self._kept(kind, size) if longest is None else size
            if kept is None:
                self.skipped += 1
                self.last_skipped = (kind, size)
            elif start + kept > end:
                break
            else:
                messages.append(AudioSocketMessage(kind, data[start : start + kept]))
                if self._awaits_uuid:
                    self._awaits_uuid = self._takes_uuid = False
            offset = start + size
            taken += 1  # what is skipped takes time as well
        self.more = taken == most and end - offset >= HEADER_BYTES
        self._skip = max(0, offset - end)
        self._buffer = data[offset:]
        return messages

    def _kept(self, kind: int, size: int) -> int | None:
        """How many bytes of a payload other than audio to keep. None: skip the message."""
        if kind == Kind.HANGUP:
            return 0
        if kind == Kind.ERROR:
            return min(size, 1)
        if _SIZES.get(kind) != size or (kind == Kind.UUID and not self._takes_uuid):
            return None
        return size

    def _check_first(self, kind: int, size: int, messages: list[AudioSocketMessage]) -> None:
        if kind not in (Kind.UUID, Kind.HANGUP):
            self._fault = f"0x{kind:02x} where the call's UUID (kind 0x01) is expected"
            raise DecodeError(self._fault, messages)
        if kind == Kind.UUID and size != _SIZES[kind]:
            self._fail(kind, size, str(_SIZES[kind]), messages)

    def _fail(
        self, kind: int, size: int, expected: str, messages: list[AudioSocketMessage]
    ) -> NoReturn:
        self._fault = f"kind 0x{kind:02x} with a length of {size}, expected {expected}"
        raise DecodeError(self._fault, messages)
