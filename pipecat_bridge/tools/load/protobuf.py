"""A small encoder and decoder of Pipecat's frames (proto/frames.proto), only for the load."""

from __future__ import annotations

from typing import NamedTuple

_AUDIO, _MESSAGE = 2, 4
_LENGTH_DELIMITED = 2


class AudioFields(NamedTuple):
    """The audio of a frame: PCM16, and samples per second."""

    pcm: bytes
    rate: int


def audio_frame(pcm: bytes, rate: int) -> bytes:
    """A frame with mono PCM16 (Frame.audio)."""
    body = field(3, pcm) + b"\x20" + varint(rate) + b"\x28\x01"
    return field(_AUDIO, body)


def message_frame(text: str) -> bytes:
    """A frame with a message (Frame.message)."""
    return field(_MESSAGE, field(1, text.encode()))


def read(data: bytes) -> AudioFields | str | None:
    """The audio of a frame, or the text of its message; None for any other frame."""
    for number, body in _fields(data):
        if number == _AUDIO and isinstance(body, bytes):
            fields = dict(_fields(body))
            pcm, rate = fields.get(3, b""), fields.get(4, 0)
            assert isinstance(pcm, bytes)
            assert isinstance(rate, int)
            return AudioFields(pcm, rate)
        if number == _MESSAGE and isinstance(body, bytes):
            text = dict(_fields(body)).get(1, b"")
            assert isinstance(text, bytes)
            return text.decode()
    return None


def field(number: int, body: bytes) -> bytes:
    """A field with a length."""
    return bytes((number << 3 | _LENGTH_DELIMITED,)) + varint(len(body)) + body


def varint(value: int) -> bytes:
    """A number in protobuf's form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: bytes) -> list[tuple[int, bytes | int]]:
    """The numbers and values of all fields: bytes if length-delimited, int for wire type 0."""
    fields: list[tuple[int, bytes | int]] = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if key & 7 == _LENGTH_DELIMITED:
            fields.append((key >> 3, data[at : at + value]))
            at += value
        elif key & 7 == 0:
            fields.append((key >> 3, value))
        else:
            raise ValueError(f"wire type {key & 7} is in none of Pipecat's frames")
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
