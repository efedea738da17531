"""Messages on the WebSocket that no bot should send, and some do."""

from __future__ import annotations

from tests.doubles import protobuf

GARBAGE: dict[str, tuple[bytes, bool]] = {
    "random": (bytes.fromhex("ff9c0d77e1003bd2a85e41c6f90b64"), True),
    "empty": (b"", True),
    "text": ("a text message, not a binary one: \N{SNOWMAN}".encode(), False),
    "protobuf": (b"\x12\x05\x07\xff\xff\xff\xff", True),
    "truncated": (protobuf.encode_audio(bytes(640), 16000)[:100], True),
    "unknown": (b"\x7a\x04\x0a\x02hi", True),  # field 15 of the oneof, from some later version
    "not-json": (protobuf.encode("message", data='{"label": "rtvi-ai", '), True),
    "not-object": (protobuf.encode("message", data='["rtvi-ai", 1]'), True),
    "no-type": (protobuf.encode("message", data='{"label": "rtvi-ai"}'), True),
    "odd-types": (protobuf.encode("message", data='{"label": 1, "type": [], "data": 2}'), True),
    "rate-zero": (protobuf.encode_audio(bytes(64), 0), True),
    "rate-huge": (protobuf.encode_audio(bytes(64), 4_000_000_000), True),
    "no-channels": (protobuf.encode_audio(bytes(64), 16000, 0), True),
    "many-channels": (protobuf.encode_audio(bytes(64), 16000, 4_000_000), True),
}
"""Name -> (payload, binary?) of messages that no bot should send."""
