"""Pipecat's frames. Each WebSocket message is one protobuf message, of one of five kinds.

The layout is that of Pipecat's `ProtobufFrameSerializer` (proto/frames.proto). Package names are
not sent, so our package name may differ from Pipecat's, and one process can have both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError as _DecodeError

from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire.frames_pb2 import AudioRawFrame, Frame

LONGEST_TEXT: Final = 65536
"""Bytes of a message without audio. To read a megabyte of JSON takes 0.1 s, and all calls wait.
What a bot tells or orders is a hundred times shorter."""


BESIDE: Final = 1024
"""Bytes of a frame of more than `LONGEST_TEXT` that may be something else than audio."""

# Protobuf: the tags of Frame.audio and AudioRawFrame.audio, and the wire types (encoding guide).
_AUDIO: Final = 2 << 3 | 2
_PCM: Final = 3 << 3 | 2
_TYPE: Final = 7
_BYTES: Final = 2


class Audio(NamedTuple):
    """PCM16, little endian, with `channels` interleaved. It may begin with a RIFF header."""

    audio: bytes
    rate: int
    channels: int


class Text(NamedTuple):
    """A piece of text. Bots on the client transport send `FLUSH_MEDIA` at a barge-in."""

    text: str


class Transcription(NamedTuple):
    """What a speaker said, as the bot understood it."""

    text: str
    user_id: str
    timestamp: str


class Message(NamedTuple):
    """A message beside the audio: JSON, usually RTVI."""

    data: str


class Interruption(NamedTuple):
    """A barge-in: audio before this message is stale, audio after it is new."""


class Mark(NamedTuple):
    """The bot wants to know when the audio before this message has been played."""

    name: str


class Nothing(NamedTuple):
    """A message that the bridge ignores."""


BotFrame = Audio | Text | Transcription | Message | Interruption | Mark | Nothing

FLUSH_MEDIA = "FLUSH_MEDIA"


class FrameError(FormatError):
    """Bytes that are not a Pipecat frame."""


def decode(data: bytes) -> BotFrame:
    """The frame in one binary WebSocket message. Raises `FrameError`."""
    if len(data) > LONGEST_TEXT and not _is_audio(data):
        check_length(len(data))
    try:
        frame = Frame.FromString(data)
    except _DecodeError:
        raise FrameError(f"{len(data)} bytes that are not a protobuf frame") from None
    kind = frame.WhichOneof("frame")
    if kind == "audio":
        audio = frame.audio
        return Audio(audio.audio, audio.sample_rate, audio.num_channels or 1)
    if kind == "message":
        return Message(frame.message.data)
    if kind == "interruption":
        return Interruption()
    if kind == "text":
        return Text(frame.text.text)
    if kind == "transcription":
        said = frame.transcription
        return Transcription(said.text, said.user_id, said.timestamp)
    raise FrameError(f"{len(data)} bytes that are none of Pipecat's five frames")


def _is_audio(data: bytes) -> bool:
    """Whether a long frame is audio but for `BESIDE` bytes. To parse a megabyte of anything else
    takes 20 ms."""
    if data[0] != _AUDIO:
        return False
    at, _ = _varint(data, 1)
    while at < BESIDE:
        tag = data[at]
        at, number = _varint(data, at + 1)
        if tag & _TYPE == _BYTES:
            if tag == _PCM:
                return at + number >= len(data) - BESIDE
            at += number
        elif tag & _TYPE:
            return False
    return False


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Where the varint at `at` ends, and its value."""
    value = shift = 0
    while shift < 64 and at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            break
    return at, value


def check_length(size: int) -> None:
    """Raise FrameError if a message without audio has more than `LONGEST_TEXT` bytes."""
    if size > LONGEST_TEXT:
        raise FrameError(f"{size} bytes without audio, expected up to {LONGEST_TEXT}")


def audio_encoder(rate: int) -> Callable[[bytes], bytes]:
    """Return a function that encodes mono PCM16 at `rate` Hz as a frame."""

    def encode(audio: bytes) -> bytes:
        head, tail = _around(len(audio), rate)
        return head + audio + tail

    return encode


@lru_cache(maxsize=64)
def _around(size: int, rate: int) -> tuple[bytes, bytes]:
    """The bytes before and after the audio of a frame, the same for all frames of `size` bytes."""
    tail = AudioRawFrame(sample_rate=rate, num_channels=1).SerializeToString()
    body = AudioRawFrame(audio=bytes(size), sample_rate=rate, num_channels=1)
    frame = Frame(audio=body).SerializeToString()
    # Fields are written in the order of their numbers, and audio comes before these two.
    return frame[: len(frame) - len(tail) - size], tail


def encode_message(data: str) -> bytes:
    """A frame that carries `data`, a JSON string."""
    return Frame(message={"data": data}).SerializeToString()
