"""What a call needs of its two sides; they fulfil it without knowing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pipecat_bridge.asterisk.connection import PhoneStats
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.runner.caller_queue import QueueStats
from pipecat_bridge.runner.dialback import BotListener, BotRequest
from pipecat_bridge.runner.link import LinkStats


class Phone(Protocol):
    """The phone side of a call."""

    stats: PhoneStats
    peer: str

    def join(self, sink: Callable[[bytes, int], None], playout: Playout) -> None:
        """Connect the caller's voice to `sink(pcm, rate)` and the ear to `playout`."""

    def hang_up(self) -> None:
        """End in good order."""


class Link(Protocol):
    """The connection to a bot."""

    stats: LinkStats
    queue_stats: QueueStats

    def send_audio(self, pcm: bytes, rate: int) -> None:
        """Caller audio."""

    def send_message(self, text: str) -> None:
        """An RTVI message."""

    @property
    def queued(self) -> int:
        """Frames that the bot has not read yet."""
        ...


class Bot(Protocol):
    """The bot side of a call."""

    @property
    def link(self) -> Link:
        """Where its frames go."""
        ...

    def start(self) -> None:
        """Ask for it; the listener hears what becomes of it."""

    def stop(self) -> None:
        """Let it go."""


class Runner(Protocol):
    """Where bots come from."""

    def bot(self, request: BotRequest, playout: Playout, listener: BotListener) -> Bot:
        """A bot for one call."""
        ...


Parameters = dict[str, Any]
