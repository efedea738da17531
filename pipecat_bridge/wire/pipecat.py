"""Pipecat's own dialect: protobuf frames, and RTVI messages in them."""

from __future__ import annotations

from typing import Any

from pipecat_bridge.wire import frames, rtvi
from pipecat_bridge.wire.frames import audio_encoder, encode_message


class PipecatDialect:
    """The dialect of bots with `ProtobufFrameSerializer` and RTVI.

    `metadata` is for bots that did not get it at their start: Pipecat's stock runner drops the body
    of `/start`. It is sent as an RTVI client-message of type `call-metadata`, right after
    `client-ready`. If `disconnects`, `disconnect-bot` asks the bot to end.
    """

    frame_bytes = 0
    binary = True
    awaits_ready = True

    def __init__(
        self,
        rate: int,
        library_version: str,
        metadata: dict[str, Any] | None = None,
        disconnects: bool = False,
    ) -> None:
        self.rate = rate
        self.audio = audio_encoder(rate)
        self._library_version = library_version
        self._metadata = metadata
        self._disconnects = disconnects

    def opening(self) -> list[bytes]:
        """RTVI `client-ready`, which the bot answers with `bot-ready`, and the call's metadata."""
        messages = [rtvi.client_ready(self._library_version)]
        if self._metadata is not None:
            messages.append(rtvi.client_message("call-metadata", self._metadata))
        return [encode_message(message) for message in messages]

    def digit(self, digit: str) -> list[bytes]:
        """RTVI `dtmf`."""
        return [encode_message(rtvi.dtmf(digit))]

    def text(self, content: str, run_immediately: bool, audio_response: bool) -> list[bytes]:
        """RTVI `send-text`."""
        message = rtvi.send_text(
            content, run_immediately=run_immediately, audio_response=audio_response
        )
        return [encode_message(message)]

    def played(self, mark: str) -> list[bytes]:
        """No messages: Pipecat's frames have no marks."""
        return []

    def closing(self) -> list[bytes]:
        """RTVI `disconnect-bot` if `disconnects`."""
        return [encode_message(rtvi.disconnect_bot())] if self._disconnects else []

    decode = staticmethod(frames.decode)
