"""Plain WebSocket messages (RFC 6455, section 5.2): out of a peer's stream, and for one.

A plain message is one of the kind that carries audio, binary or text, in a single frame. Everything
else is for Autobahn, which takes 20 us for a frame where this takes 2, half of it for a line of log
at a level that is off.
"""

from __future__ import annotations

import os
from typing import Final

import numpy as np

TEXT: Final = 0x1
BINARY: Final = 0x2
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_MASKED: Final = 0x80
_KEY_BYTES: Final = 4
_SHORT: Final = 125  # longest payload whose length stands in the second byte
_CONTROL: Final = 0x8  # opcodes from here on are of control frames, which may stand in a message

LONG: Final = 1024
"""Bytes from which an array is masked faster than one long number (docs/performance.md)."""

KEYS_AT_ONCE: Final = 256
"""Keys drawn from the system at a time: a call of it takes longer than the masking."""


Piece = tuple[bool, bytes]
"""True and a plain message, unmasked; False and bytes of the stream as they came."""


class PlainFrames:
    """Takes the plain messages out of what a peer sends; the rest comes in whole frames.

    A client masks what it sends and a server does not: frames that are not as `masked` says are not
    plain. `opcode` is BINARY or TEXT. From a frame longer than `limit` bytes on, all is passed on
    as it comes: it is for Autobahn to refuse, and nothing is collected for it.
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
        """What is whole now, in the order of the stream."""
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
        """Keep in mind whether a message has begun whose end is still to come."""
        if first & 0x0F < _CONTROL:
            self._fragmented = not first & _FINAL


def pong(frame: bytes, masked: bool) -> bytes | None:
    """The payload of a whole frame when it is a pong as it must be, else None.

    A link pings several times a second, so its pongs are worth a shortcut as well.
    """
    start = 2 + (_KEY_BYTES if masked else 0)
    size = len(frame) - start
    if not 0 <= size <= _SHORT or frame[0] != _FINAL | PONG:
        return None
    if frame[1] != (_MASKED if masked else 0) | size:
        return None
    return mask(frame[start:], frame[2:start]) if masked else frame[start:]


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask, or unmask, with a key of four bytes (RFC 6455, section 5.3).

    Without a compiler nothing is faster for a frame of audio than one operation on long numbers;
    Autobahn's native masker takes twice as long for it, most of that to be set up.
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


def server_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """A final frame from a server, which masks nothing."""
    return _header(len(payload), opcode, 0) + payload


class ClientMask:
    """Frames from a client, each masked with a key of its own that nobody can foresee."""

    __slots__ = ("_at", "_keys")

    def __init__(self) -> None:
        self._keys = b""
        self._at = 0

    def frame(self, payload: bytes, opcode: int = BINARY) -> bytes:
        """A final frame."""
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
