"""The client's side of a WebSocket (RFC 6455), as far as the load needs it, without I/O.

Every frame has the same mask, so that a repeated payload is masked only once. The mask is not zero,
so the bridge has the usual work to unmask it.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_MASK: Final = os.urandom(3) + b"\x5a"
_LONG_MASK: Final = _MASK * 256
_WHOLE: Final = bytes((0x80 | BINARY, 126))  # a whole message; two bytes of length follow
_KEY: Final = "cGlwZWNhdC1icmlkZ2UtMQ=="


class WebSocketMessage(NamedTuple):
    """One frame from the bridge, which never fragments messages."""

    opcode: int
    payload: bytes


def request(host: str, target: str) -> bytes:
    """The request of the opening handshake."""
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Version: 13",
    )
    return "\r\n".join([*lines, "", ""]).encode()


def masked(payload: bytes, opcode: int = BINARY) -> bytes:
    """A whole frame, final and masked."""
    size = len(payload)
    if size < 126:
        header = bytes((0x80 | opcode, 0x80 | size))
    elif size < 1 << 16:
        header = bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big")
    mask = _LONG_MASK
    if size > len(mask):
        mask = _MASK * (size // 4 + 1)
    word = int.from_bytes(payload, "big") ^ int.from_bytes(mask[:size], "big")
    return header + _MASK + word.to_bytes(size, "big")


class FrameDecoder:
    """Decodes the messages that a server sends after the handshake."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[WebSocketMessage]:
        """Take data. Returns the messages that are complete now."""
        if self._rest:
            data = self._rest + data
        elif data[:2] == _WHOLE and int.from_bytes(data[2:4], "big") == len(data) - 4:
            return [WebSocketMessage(BINARY, data[4:])]  # as nearly all data comes
        messages = []
        at, end = 0, len(data)
        while end - at >= 2:
            first, size, start = data[at], data[at + 1], at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                start += width
                size = int.from_bytes(data[at + 2 : start], "big")
            if end < start + size or end < start:
                break
            messages.append(WebSocketMessage(first & 0x0F, data[start : start + size]))
            at = start + size
        self._rest = data[at:]
        return messages
