"""AudioSocket: one byte of kind, two bytes of length (big endian), the payload.

Kinds and rates are those of ``res_audiosocket.c`` (Asterisk 18 to 23); audio is signed 16-bit
little-endian mono. The decoder does no I/O: bytes in, messages out, at any split.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


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
"""An error, of no particular code: Asterisk reads none and fails the application, and so hangs the
channel up (app_audiosocket.c) where `HANGUP` would let its dialplan go on."""

LENGTH_LIMIT: Final = 0xFFFF
"""Longest payload that the length field can say, in bytes."""

# Shortest and longest payload of each kind. Audio: Asterisk sends one channel frame a message, 20
# ms as a rule and 500 ms at the very most, so half a second is the limit, up to the longest even
# length. 0xff carries a code; app_audiosocket never sends it.
_LIMITS: Final[dict[int, tuple[int, int]]] = {
    Kind.HANGUP: (0, 0),
    Kind.UUID: (16, 16),
    Kind.DTMF: (1, 1),
    Kind.ERROR: (0, 16),
    **{kind: (0, min(rate, 65534)) for kind, rate in AUDIO_RATES.items()},
}


class Message(NamedTuple):
    """One AudioSocket message."""

    kind: int
    payload: bytes


class DecodeError(ValueError):
    """The peer does not speak AudioSocket; nothing after this can be trusted.

    `messages` are those that came whole before the fault.
    """

    def __init__(self, text: str, messages: list[Message]) -> None:
        super().__init__(text)
        self.messages = messages


def encode(kind: int, payload: bytes = b"") -> bytes:
    """The bytes of one message. ValueError for a payload longer than `LENGTH_LIMIT`."""
    if len(payload) > LENGTH_LIMIT:
        raise ValueError(
            f"a payload of {len(payload)} bytes for kind 0x{kind:02x}, at most {LENGTH_LIMIT} fit"
        )
    return bytes((kind, len(payload) >> 8, len(payload) & 0xFF)) + payload


def audio_header(rate: int, size: int) -> bytes:
    """The header of an audio message of `size` bytes at `rate` samples per second."""
    return bytes((AUDIO_KINDS[rate], size >> 8, size & 0xFF))


class Decoder:
    """Turns a byte stream into messages.

    `feed` returns the messages that became whole. It raises `DecodeError` for an unknown kind or
    a length that the kind cannot have, as soon as the three bytes of the header are there, and
    again for whatever is fed after that. Odd audio lengths are not its business.
    """

    __slots__ = ("_buffer", "_fault")

    def __init__(self) -> None:
        self._buffer = b""
        self._fault = ""

    def feed(self, data: bytes) -> list[Message]:
        """Take `data`; return the messages that are whole now."""
        if self._fault:
            raise DecodeError(self._fault, [])
        if self._buffer:
            data = self._buffer + data
        messages: list[Message] = []
        offset, end = 0, len(data)
        while end - offset >= HEADER_BYTES:
            kind = data[offset]
            size = data[offset + 1] << 8 | data[offset + 2]
            low, high = _LIMITS.get(kind, (1, 0))
            if not low <= size <= high:
                self._fault = _fault(kind, size)
                raise DecodeError(self._fault, messages)
            stop = offset + HEADER_BYTES + size
            if stop > end:
                break
            messages.append(Message(kind, data[offset + HEADER_BYTES : stop]))
            offset = stop
        self._buffer = data[offset:]
        return messages


def _fault(kind: int, size: int) -> str:
    limits = _LIMITS.get(kind)
    if limits is None:
        return f"kind 0x{kind:02x} is not one of AudioSocket's"
    return f"kind 0x{kind:02x} with a length of {size}, expected {limits[0]} to {limits[1]}"
