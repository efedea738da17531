"""Reads plain WebSocket messages (RFC 6455, section 5.2) from a stream, and makes them.

A plain message is of the type that carries audio, binary or text, and in a single frame. Autobahn
handles everything else, and whatever breaks the protocol. Autobahn takes 20 us for a frame, half of
it for a log line at a level that is off; this module takes 1 us.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import numpy as np

from pipecat_bridge import native

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_TEXTS: Final = (TEXT, CONTINUATION)
_OPCODE: Final = 0x0F
_RESERVED: Final = 0x70
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_KEY_BYTES: Final = 4
_LENGTH: Final = 0x7F
_LONGEST_OF_TWO: Final = 0xFFFF
_SHORT: Final = 125  # longest payload whose length fits into the second byte
_CONTROL: Final = 0x8  # from this opcode on: control frames, also between the frames of a message

LONG: Final = 1024
"""Above so many bytes, masking an array is faster than one long number (docs/lab-notes.md)."""

KEYS_AT_ONCE: Final = 256
"""Mask keys that are drawn from the system at a time. One system call takes longer than masking."""


Piece = tuple[bool, bytes]
"""True and an unmasked plain message, or False and unchanged bytes of the stream."""


class PlainFrames:
    """Finds the plain messages in the stream of a peer. Other frames come out as they are.

    They come out whole, but a text of which only a part has come does not wait for the rest, so
    that Autobahn finds a byte that is not UTF-8 at once.

    `masked`: whether frames of the peer are masked, as those of a client are. `opcode` is BINARY or
    TEXT. From the first header that breaks the protocol, or announces more than `limit` bytes, all
    data comes out as it is: Autobahn closes the connection at that header, and nothing is collected
    for it. A text that is not UTF-8 comes out as a frame, which Autobahn refuses as well.

    The cost of a frame is in proportion to its length, in however many pieces it comes.
    """

    __slots__ = (
        "_first",
        "_fragmented",
        "_left",
        "_limit",
        "_mask_bit",
        "_missing",
        "_pieces",
        "_usual",
        "_usual_start",
        "_within",
        "more",
        "passing",
    )

    def __init__(self, limit: int, masked: bool, opcode: int = BINARY) -> None:
        self._limit = limit
        self._mask_bit = _MASKED if masked else 0
        self._first = _FINAL | opcode
        self._pieces: list[bytes] = []  # of a frame that is not complete, or what was not taken yet
        self._missing = 0  # bytes that it needs, at least, before it is worth to look at it again
        self._left = 0  # bytes of a text that has come out in part
        self._fragmented = False
        self.passing = False
        """The peer has broken the protocol: all data comes out as it is."""
        self.more = False
        """True if `feed` has stopped at `most`, and there may be more to take."""
        # Nearly all data is a single plain message with a length of two bytes.
        self._usual = bytes((self._first, self._mask_bit | _SHORT + 1))
        self._usual_start = 4 + (_KEY_BYTES if masked else 0)
        self._within = False  # a frame or a message, or `passing`

    def only(self, data: bytes) -> bytes | None:
        """The payload, if `data` is one plain message with a length of two bytes, as it nearly
        always is. None: `feed` has to take `data`."""
        if data[:2] == self._usual and len(data) > _SHORT and not self._within:
            size, start = data[2] << 8 | data[3], self._usual_start
            if len(data) == start + size and _SHORT < size <= self._limit:
                payload = data[start:]
                if self._mask_bit:
                    payload = mask(payload, data[start - _KEY_BYTES : start])
                if data[0] != _FINAL | TEXT or _is_utf8(payload):
                    return payload
        return None

    def keep(self, data: bytes) -> None:
        """Keep `data` for the next `feed`. Only while `more` is True."""
        self._pieces.append(data)

    def feed(self, data: bytes, most: int = sys.maxsize) -> list[Piece]:
        """Take `data`; return what is complete now, in the order of the stream, `most` pieces at
        most."""
        if self.passing:
            return [(False, data)] if data else []
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = b"".join(self._pieces)
        pieces: list[Piece] = []
        at = min(self._left, len(data))
        if at:
            pieces.append((False, data[:at]))
            self._left -= at
        while len(pieces) < most:
            start, stop = self._measure(data, at)
            if stop < 0:
                self.passing = self._within = True
                self._pieces, self.more = [], False
                pieces.append((False, data[at:]))
                return pieces
            if stop > len(data):
                in_parts = at < len(data) and data[at] & _OPCODE in _TEXTS
                self._missing = (start if in_parts else stop) - len(data)
                if in_parts and self._missing <= 0:
                    pieces.append((False, data[at:]))
                    self._fragmented = not data[at] & _FINAL
                    self._left, at = stop - len(data), len(data)
                break
            pieces.append(self._take(data, at, start, stop))
            at = stop
        else:
            self._missing = 0
        self.more = len(pieces) == most and at < len(data)
        self._pieces = [data[at:]] if at < len(data) else []
        self._within = bool(self._pieces or self._left) or self._fragmented
        return pieces

    def _measure(self, data: bytes, at: int) -> tuple[int, int]:
        """Where the payload of the frame at `at` begins and ends, or will end at least.

        An end of -1: the rest of the stream is for Autobahn.
        """
        start = at + 2
        if start > len(data):
            return start, start
        first, second = data[at], data[at + 1]
        size = second & _LENGTH
        if self._breaks_the_protocol(first, second, size):
            return start, -1
        if size > _SHORT:
            width = 2 if size == _SHORT + 1 else 8
            start += width
            if start > len(data):
                return start, start
            size = int.from_bytes(data[at + 2 : start], "big")
            if size <= (_SHORT if width == 2 else _LONGEST_OF_TWO):
                return start, -1  # not in the shortest form (RFC 6455, section 5.2)
        if size > self._limit:
            return start, -1
        if self._mask_bit:
            start += _KEY_BYTES
        return start, start + size

    def _breaks_the_protocol(self, first: int, second: int, size: int) -> bool:
        if first == self._first and not self._fragmented:  # as nearly all frames
            return second & _MASKED != self._mask_bit
        opcode = first & _OPCODE
        if second & _MASKED != self._mask_bit or first & _RESERVED or opcode not in _OPCODES:
            return True
        if opcode >= _CONTROL:
            return size > _SHORT or not first & _FINAL
        return (opcode == CONTINUATION) != self._fragmented

    def _take(self, data: bytes, at: int, start: int, stop: int) -> Piece:
        first = data[at]
        if first == self._first:
            payload = data[start:stop]
            if self._mask_bit:
                payload = mask(payload, data[start - _KEY_BYTES : start])
            if first != _FINAL | TEXT or _is_utf8(payload):
                return True, payload
        elif first & _OPCODE < _CONTROL:
            self._fragmented = not first & _FINAL
        return False, data[at:stop]


def _is_utf8(payload: bytes) -> bool:
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


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
