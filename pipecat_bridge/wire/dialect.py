"""What a bot's WebSocket speaks: Pipecat's protobuf frames, or Twilio's JSON."""

from __future__ import annotations

from typing import Protocol

from pipecat_bridge.wire.frames import BotFrame


class Dialect(Protocol):
    """Turns what a call has to say to its bot into messages, and back; one for each bot.

    A message is the payload of one WebSocket message, binary or text as `binary` says. The
    caller's audio is mono PCM16 at `rate` Hz, in pieces of `frame_bytes` where that is not 0.
    `awaits_ready`: the bot says when it takes audio,
    and audio that comes before that may kill it; else it takes audio at once.
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
        """What is sent first, as soon as the WebSocket is open."""
        ...

    def audio(self, pcm: bytes) -> bytes:
        """A piece of the caller's audio."""
        ...

    def digit(self, digit: str) -> list[bytes]:
        """A key that the caller pressed."""
        ...

    def text(self, content: str, run_immediately: bool, audio_response: bool) -> list[bytes] | None:
        """Text, as if the caller had typed it; None where there is no way to say it."""
        ...

    def played(self, mark: str) -> list[bytes]:
        """The audio that the bot sent before its `Mark` has been played, or was dropped."""
        ...

    def closing(self) -> list[bytes]:
        """The call ends: what is sent before the WebSocket is closed."""
        ...

    def decode(self, payload: bytes) -> BotFrame:
        """The frame in one message of the bot's; raises FormatError with what is wrong."""
        ...
