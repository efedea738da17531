"""The protocol on a bot's WebSocket: Pipecat's protobuf frames, or Twilio's JSON."""

from __future__ import annotations

from typing import Protocol

from pipecat_bridge.wire.frames import BotFrame


class Dialect(Protocol):
    """Encodes what a call sends to its bot, and decodes what the bot sends. Each bot has its own.

    A message is the payload of one WebSocket message, binary if `binary`, else text. The caller's
    audio is mono PCM16 at `rate` Hz, in pieces of `frame_bytes` bytes unless that is 0. If
    `awaits_ready`, the bot says when it takes audio, and audio before that may kill it; else it
    takes audio at once.
    """

    @property
    def rate(self) -> int: ...
    @property
    def frame_bytes(self) -> int: ...
    @property
    def binary(self) -> bool: ...
    @property
    def awaits_ready(self) -> bool: ...

    def opening(self) -> list[bytes]:
        """The first messages, sent as soon as the WebSocket is open."""
        ...

    def audio(self, pcm: bytes) -> bytes:
        """The message with a piece of the caller's audio."""
        ...

    def digit(self, digit: str) -> list[bytes]:
        """The messages for a key that the caller pressed."""
        ...

    def text(self, content: str, run_immediately: bool, audio_response: bool) -> list[bytes] | None:
        """The messages for text, as if the caller had typed it; None if there are none for it."""
        ...

    def played(self, mark: str) -> list[bytes]:
        """The messages that say: the audio before the bot's `Mark` has been played or dropped."""
        ...

    def closing(self) -> list[bytes]:
        """The last messages when the call ends, sent before the WebSocket is closed."""
        ...

    def decode(self, payload: bytes) -> BotFrame:
        """The frame in one message from the bot. Raises FormatError."""
        ...
