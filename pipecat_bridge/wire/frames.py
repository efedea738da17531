"""Pipecat's frames: one protobuf message each WebSocket message, five kinds and no more.

The layout is that of Pipecat's `ProtobufFrameSerializer` (proto/frames.proto); the wire carries no
package name, so ours may differ from Pipecat's and both can live in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError as _DecodeError

from pipecat_bridge.errors import FormatError
from pipecat_bridge.wire.frames_pb2 import AudioRawFrame, Frame


class Audio(NamedTuple):
    """PCM16 little endian, `channels` interleaved; a RIFF header may come before it."""

    audio: bytes
    rate: int
    channels: int


class Text(NamedTuple):
    """A piece of text; `FLUSH_MEDIA` is the barge-in of bots on the client transport."""

    text: str


class Transcription(NamedTuple):
    """What a speaker said, as the bot understood it."""

    text: str
    user_id: str
    timestamp: str


class Message(NamedTuple):
    """A message beside the audio: JSON, by custom RTVI."""

    data: str


class Interruption(NamedTuple):
    """Audio before it is stale, audio after it is new."""


class Mark(NamedTuple):
    """The bot wants to know when the audio before this has been played."""

    name: str


class Nothing(NamedTuple):
    """A message that says nothing to the bridge."""


BotFrame = Audio | Text | Transcription | Message | Interruption | Mark | Nothing

FLUSH_MEDIA = "FLUSH_MEDIA"


class FrameError(FormatError):
    """Bytes that are not one of Pipecat's frames."""


def decode(data: bytes) -> BotFrame:
    """The frame in one binary WebSocket message; raises `FrameError`."""
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


def audio_encoder(rate: int) -> Callable[[bytes], bytes]:
    """Makes frames of mono PCM16 at `rate`."""

    def encode(audio: bytes) -> bytes:
        head, tail = _around(len(audio), rate)
        return head + audio + tail

    return encode


@lru_cache(maxsize=64)
def _around(size: int, rate: int) -> tuple[bytes, bytes]:
    """What stands before and after the audio of a frame: the same for all frames of a length."""
    tail = AudioRawFrame(sample_rate=rate, num_channels=1).SerializeToString()
    body = AudioRawFrame(audio=bytes(size), sample_rate=rate, num_channels=1)
    frame = Frame(audio=body).SerializeToString()
    # Fields are written in the order of their numbers, and audio comes before these two.
    return frame[: len(frame) - len(tail) - size], tail


def encode_message(data: str) -> bytes:
    """A frame that carries `data`, a JSON string."""
    return Frame(message={"data": data}).SerializeToString()
