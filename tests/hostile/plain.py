"""Bytes of all protocols, well-formed and not, for plain sockets. No code of the daemon."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
from typing import Any, Final

from pipecat_bridge.tools.load.protobuf import field, varint

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY: Final = b"\x11\x22\x33\x44"
FINAL: Final = 0x80

HANGUP, UUID, DTMF, AUDIO, AUDIO_192K = 0x00, 0x01, 0x03, 0x10, 0x18

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(
    payload: bytes = b"", opcode: int = BINARY, first: int = FINAL, masks: bool = True
) -> bytes:
    """A WebSocket frame. `first`: what is set in the first byte beside the opcode."""
    size, mask = len(payload), 0x80 if masks else 0
    if size < 126:
        length = bytes((mask | size,))
    elif size < 1 << 16:
        length = bytes((mask | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((mask | 127,)) + size.to_bytes(8, "big")
    key = KEY if masks else b""
    return bytes((first | opcode,)) + length + key + (_masked(payload) if masks else payload)


def frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Opcode and payload of all whole frames, of a client or of a server, and the rest."""
    found = []
    at = 0
    while len(data) - at >= 2:
        size, masks, start = data[at + 1] & 0x7F, data[at + 1] & 0x80, at + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, start = int.from_bytes(data[start : start + width], "big"), start + width
        key = data[start : start + 4] if masks else b""
        start += len(key)
        if start + size > len(data):
            break
        payload = data[start : start + size]
        found.append((data[at] & 0x0F, _masked(payload, key) if masks else payload))
        at = start + size
    return found, data[at:]


def _masked(payload: bytes, key: bytes = KEY) -> bytes:
    pattern = (key * (len(payload) // 4 + 1))[: len(payload)]
    word = int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")
    return word.to_bytes(len(payload), "big")


def dial(url: str) -> socket.socket:
    """A connection to the host of `url`, ws://HOST:PORT/PATH."""
    host, _, port = url.removeprefix("ws://").partition("/")[0].partition(":")
    return socket.create_connection((host, int(port)), 10.0)


def request(url: str) -> bytes:
    """The opening handshake of a client, for `url`."""
    host, _, path = url.removeprefix("ws://").partition("/")
    return (
        f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: cGlwZWNhdC1icmlkZ2UtMQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def answer(request: bytes) -> bytes:
    """A server's answer to the opening handshake."""
    [key] = [
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    ]
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


# Pipecat's frames


def text(content: str) -> bytes:
    """A text frame."""
    return field(1, field(3, content.encode()))


def audio(pcm: bytes, rate: int = 16000, channels: int = 1) -> bytes:
    """An audio frame."""
    numbers = b"\x20" + varint(rate) + b"\x28" + varint(channels)
    return field(2, field(3, pcm) + numbers)


def message(data: Any) -> bytes:
    """A message frame with JSON, or with a string as it is."""
    return field(4, field(1, (data if isinstance(data, str) else json.dumps(data)).encode()))


def transcript(content: str) -> bytes:
    """A transcription frame."""
    return field(3, field(3, content.encode()))


INTERRUPTION: Final = field(5, b"")
READY: Final = message({"label": "rtvi-ai", "type": "bot-ready", "id": "1", "data": {}})


def wave(channels: int, chunks: bytes = b"", pcm: bytes = bytes(640)) -> bytes:
    """A WAVE file, with `chunks` before the audio."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, 16000, 32000, 2, 16)
    body = b"WAVE" + form + chunks + b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", len(body)) + body


# AudioSocket


def phone(kind: int, payload: bytes = b"") -> bytes:
    """A message of AudioSocket."""
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload
