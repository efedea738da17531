"""A stream of caller audio to a bot, and a socket of the bot that a test controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from pipecat_bridge.options import CallerAudioOptions
from pipecat_bridge.runner.link.caller_stream import CallerStream
from pipecat_bridge.runner.link.sockets import SocketPair


class PlainDialect:
    """Sends audio as it is, at the phone's rate."""

    rate = 8000
    frame_bytes = 0

    def audio(self, pcm: bytes) -> bytes:
        return pcm


class SocketSide:
    """Passes frames and pings to the test. It is its own outlet."""

    def __init__(
        self, send: Callable[[bytes], None], ping: Callable[[bytes], None], congested: bool = False
    ) -> None:
        self.send = send
        self.ping = ping
        self.congested = congested

    @property
    def outlet(self) -> SocketSide:
        return self


def stream_to(socket: Any, clock: Clock, **options: Any) -> CallerStream:
    """A stream to `socket`, with options of `[caller_audio]`."""
    sockets = SocketPair(clock)
    sockets.input = socket
    dialect: Any = PlainDialect()
    return CallerStream(clock, sockets, dialect, CallerAudioOptions(**options))
