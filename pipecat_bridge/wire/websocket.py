"""Reads plain WebSocket messages (RFC 6455, section 5.2) from a stream, and makes them.

A plain message is of the type that carries audio, binary or text, and in a single frame. Autobahn
handles everything else. Autobahn takes 20 us for a frame, half of it for a log line at a level that
is off; this module takes 2 us.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np

from pipecat_bridge import native

TEXT: Final = 0x1
BINARY: Final = 0x2
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_MASKED: Final = 0x80
_KEY_BYTES: Final = 4
_SHORT: Final = 125  # longest payload whose length fits into the second byte
_CONTROL: Final = 0x8  # from this opcode on: control frames, also between the frames of a message

LONG: Final = 1024
"""Above so many bytes, masking an array is faster than one long number (docs/lab-notes.md)."""

KEYS_AT_ONCE: Final = 256
"""Mask keys that are drawn from the system at a time. One system call takes longer than masking."""


Piece = tuple[bool, bytes]
"""True and an unmasked plain message, or False and unchanged bytes of the stream."""


class PlainFrames:
    """Finds the plain messages in the stream of a peer. Other frames come out whole.

    `masked`: whether frames of the peer are masked, as those of a client are; other frames are not
    plain. `opcode` is BINARY or TEXT. From the first frame of more than `limit` bytes on, all data
    comes out as it is: Autobahn refuses that frame, and nothing is collected for it.
    """

    __slots__ = ("_first", "_fragmented", "_limit", "_mask_bit", "_passing", "_rest")

    def __init__(self, limit: int, masked: bool, opcode: int = BINARY) -> None:
        self._limit = limit
        self._mask_bit = _MASKED if masked else 0
        self._first = _FINAL | opcode
        self._rest = b""
        self._fragmented = False
        self._passing = False

    def feed(self, data: bytes) -> list[Piece]:
        """Take `data`; return what is complete now, in the order of the stream."""
        if self._passing:
            return [(False, data)]
        data = self._rest + data
        pieces: list[Piece] = []
        at, end = 0, len(data)
        while end - at >= 2:
            start = at + 2
            size = data[at + 1] & 0x7F
            if size > _SHORT:
                start += 2 if size == _SHORT + 1 else 8
                if start > end:
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
            if size > self._limit:
                self._passing = True
                pieces.append((False, data[at:]))
                return pieces
            mask_bit = data[at + 1] & _MASKED
            if mask_bit:
                start += _KEY_BYTES
            stop = start + size
            if stop > end:
                break
            if data[at] == self._first and mask_bit == self._mask_bit and not self._fragmented:
                payload = data[start:stop]
                if mask_bit:
                    payload = mask(payload, data[start - _KEY_BYTES : start])
                pieces.append((True, payload))
            else:
                self._follow(data[at])
                pieces.append((False, data[at:stop]))
            at = stop
        self._rest = data[at:]
        return pieces

    def _follow(self, first: int) -> None:
        """Remember whether a message in several frames has begun and not ended."""
        if first & 0x0F < _CONTROL:
            self._fragmented = not first & _FINAL


def pong(frame: bytes, masked: bool) -> bytes | None:
    """The payload of `frame`, a whole frame, if it is a valid pong, else None.

    A link pings several times a second, so a shortcut for pongs is worth it.
    """
    start = 2 + (_KEY_BYTES if masked else 0)
    size = len(frame) - start
    if not 0 <= size <= _SHORT or frame[0] != _FINAL | PONG:
        return None
    if frame[1] != (_MASKED if masked else 0) | size:
        return None
    return mask(frame[start:], frame[2:start]) if masked else frame[start:]


def mask_in_python(payload: bytes, key: bytes) -> bytes:
    """Mask or unmask `payload` with a key of four bytes (RFC 6455, section 5.3).

    For a frame of audio, one operation on long numbers is the fastest way without a compiler.
    Autobahn's native masker takes twice as long, most of it to set itself up.
    """
    size = len(payload)
    if size > LONG:
        return _mask_long(payload, key)
    pattern = (key * (size // _KEY_BYTES + 1))[:size]
    word = int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")
    return word.to_bytes(size, "little")


def _mask_long(payload: bytes, key: bytes) -> bytes:
    words = len(payload) // _KEY_BYTES
    masked = np.frombuffer(payload, np.uint32, words) ^ np.frombuffer(key, np.uint32)
    rest = payload[words * _KEY_BYTES :]
    return masked.tobytes() + bytes(one ^ two for one, two in zip(rest, key, strict=False))


mask: Final = native.mask or mask_in_python
"""Masks or unmasks a payload with a key of four bytes (RFC 6455, section 5.3)."""


def server_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A final frame of a server. Servers do not mask."""
    return _header(len(payload), opcode, 0) + payload


class ClientMask:
    """Makes frames of a client. Each is masked with a new key that cannot be predicted."""

    __slots__ = ("_at", "_keys")

    def __init__(self) -> None:
        self._keys = b""
        self._at = 0

    def frame(self, payload: bytes, opcode: int = BINARY) -> bytes:
        """A final frame with `payload`."""
        if self._at == len(self._keys):
            self._keys, self._at = os.urandom(_KEY_BYTES * KEYS_AT_ONCE), 0
        key = self._keys[self._at : self._at + _KEY_BYTES]
        self._at += _KEY_BYTES
        return _header(len(payload), opcode, _MASKED) + key + mask(payload, key)


def _header(size: int, opcode: int, mask_bit: int) -> bytes:
    first = _FINAL | opcode
    if size <= _SHORT:
        return bytes((first, mask_bit | size))
    if size <= 0xFFFF:
        return bytes((first, mask_bit | _SHORT + 1, size >> 8, size & 0xFF))
    return bytes((first, mask_bit | _SHORT + 2)) + size.to_bytes(8, "big")
