"""Plain WebSocket messages (RFC 6455, section 5.2): out of a client's stream, and for one.

A plain message is a binary one in a single frame, as audio is. Everything else is for Autobahn,
which takes 20 us for a frame where this takes 2, half of it for a line of log at a level that is
off.
"""

from __future__ import annotations

from typing import Final, NamedTuple

BINARY: Final = 0x2
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_MASKED: Final = 0x80
_MASK_BYTES: Final = 4
_SHORT: Final = 125  # longest payload whose length stands in the second byte
_CONTROL: Final = 0x8  # opcodes from here on are of control frames, which may stand in a message


class Piece(NamedTuple):
    """A plain message, unmasked, or bytes of the stream as they came."""

    message: bool
    data: bytes


class ClientFrames:
    """Takes the plain messages out of what a client sends; the rest comes in whole frames.

    From a frame longer than `limit` bytes on, all is passed on as it comes: it is for Autobahn to
    refuse, and nothing is collected for it.
    """

    __slots__ = ("_fragmented", "_limit", "_passing", "_rest")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = b""
        self._fragmented = False
        self._passing = False

    def feed(self, data: bytes) -> list[Piece]:
        """What is whole now, in the order of the stream."""
        if self._passing:
            return [Piece(False, data)]
        if self._rest:
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
                pieces.append(Piece(False, data[at:]))
                return pieces
            masked = data[at + 1] & _MASKED
            if masked:
                start += _MASK_BYTES
            stop = start + size
            if stop > end:
                break
            if masked and data[at] == _FINAL | BINARY and not self._fragmented:
                mask = data[start - _MASK_BYTES : start]
                pieces.append(Piece(True, unmask(data[start:stop], mask)))
            else:
                self._follow(data[at])
                pieces.append(Piece(False, data[at:stop]))
            at = stop
        self._rest = data[at:]
        return pieces

    def _follow(self, first: int) -> None:
        """Keep in mind whether a message has begun whose end is still to come."""
        if first & 0x0F < _CONTROL:
            self._fragmented = not first & _FINAL


def pong(frame: bytes) -> bytes | None:
    """The payload of a whole frame from a client when it is a pong as it must be, else None.

    A link pings several times a second, so its pongs are worth a shortcut as well.
    """
    size = len(frame) - 2 - _MASK_BYTES
    if not 0 <= size <= _SHORT or frame[0] != _FINAL | PONG or frame[1] != _MASKED | size:
        return None
    return unmask(frame[2 + _MASK_BYTES :], frame[2 : 2 + _MASK_BYTES])


def unmask(payload: bytes, mask: bytes) -> bytes:
    """One operation on long numbers is the fastest there is without a compiler."""
    size = len(payload)
    pattern = (mask * (size // _MASK_BYTES + 1))[:size]
    word = int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")
    return word.to_bytes(size, "little")


def server_header(size: int, opcode: int = BINARY) -> bytes:
    """What stands before a final frame of `size` bytes from a server, which masks nothing."""
    first = _FINAL | opcode
    if size <= _SHORT:
        return bytes((first, size))
    if size <= 0xFFFF:
        return bytes((first, _SHORT + 1, size >> 8, size & 0xFF))
    return bytes((first, _SHORT + 2)) + size.to_bytes(8, "big")
