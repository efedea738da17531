"""Pipecat's frames, from descriptors built by hand, so that no code of the bridge checks itself.

`pipecat.Frame` is a oneof of five messages; the package here is `pipecat_double`, in a pool of its
own. Names do not travel, numbers and types do.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_FIELD = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "uint64": _FIELD.TYPE_UINT64,
    "uint32": _FIELD.TYPE_UINT32,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
_LAYOUT = {
    "Text": ("uint64 id", "string name", "string text"),
    "Audio": (
        "uint64 id",
        "string name",
        "bytes audio",
        "uint32 sample_rate",
        "uint32 num_channels",
        "uint64 pts",
    ),
    "Transcription": (
        "uint64 id",
        "string name",
        "string text",
        "string user_id",
        "string timestamp",
    ),
    "Message": ("string data",),
    "Interruption": ("uint64 id", "string name"),
}


def _descriptors() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="pipecat_double.proto", package="pipecat_double", syntax="proto3"
    )
    frame = descriptor_pb2.DescriptorProto(name="Frame")
    frame.oneof_decl.add(name="frame")
    for choice, (title, fields) in enumerate(_LAYOUT.items(), 1):
        message = file.message_type.add(name=title)
        for number, field in enumerate(fields, 1):
            kind, name = field.split()
            added = message.field.add(name=name, number=number, type=_TYPES[kind], label=1)
            if name == "pts":  # the one optional field: a oneof of its own, in proto3
                message.oneof_decl.add(name="_pts")
                added.oneof_index, added.proto3_optional = 0, True
        frame.field.add(
            name=title.lower(),
            number=choice,
            type=_FIELD.TYPE_MESSAGE,
            label=1,
            type_name=f".pipecat_double.{title}",
            oneof_index=0,
        )
    file.message_type.append(frame)
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_descriptors())  # type: ignore[no-untyped-call]
Frame: Any = message_factory.GetMessageClass(
    _POOL.FindMessageTypeByName("pipecat_double.Frame")  # type: ignore[no-untyped-call]
)


class Decoded(NamedTuple):
    """`which` of text, audio, transcription, message, interruption; `value` the message in it."""

    which: str
    value: Any


def encode(which: str, **fields: Any) -> bytes:
    """The bytes of a Frame with the one choice `which`."""
    frame = Frame()
    choice = getattr(frame, which)
    choice.SetInParent()
    for name, value in fields.items():
        setattr(choice, name, value)
    encoded: bytes = frame.SerializeToString()
    return encoded


def encode_audio(pcm: bytes, rate: int, channels: int = 1) -> bytes:
    """An audio frame."""
    return encode(
        "audio", name="OutputAudioRawFrame#1", audio=pcm, sample_rate=rate, num_channels=channels
    )


def encode_rtvi(kind: str, data: Any = None, message_id: str = "double-1") -> bytes:
    """A message frame with the RTVI message `kind`."""
    message = {"label": "rtvi-ai", "type": kind, "id": message_id}
    if data is not None:
        message["data"] = data
    return encode("message", data=json.dumps(message))


def decode(data: bytes) -> Decoded:
    """The frame in `data`; ValueError when it is none."""
    frame = Frame()
    try:
        frame.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"not a protobuf frame: {error}") from error
    which = frame.WhichOneof("frame")
    if which is None:
        raise ValueError("a frame with none of the five choices")
    return Decoded(which, getattr(frame, which))
