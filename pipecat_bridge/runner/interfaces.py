"""What a link to a bot needs of its sockets, and who listens to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.commands import Command

Direction = Literal["input", "output", "both"]
"""As the bot sees it: `input` carries the caller's audio to it, `output` the bot's from it."""


class BotSocket(Protocol):
    """One open WebSocket."""

    @property
    def congested(self) -> bool:
        """True while bytes wait for the kernel."""
        ...

    def send(self, payload: bytes) -> None:
        """Send one message."""

    def ping(self, payload: bytes) -> None:
        """Send a ping."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read on."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; dropped when the peer does not answer."""

    def abandon(self) -> None:
        """Close, and tell the link nothing any more."""


class LinkListener(Protocol):
    """Who wants to know what a bot does."""

    def bot_connected(self) -> None:
        """All its sockets are open."""

    def bot_ready(self) -> None:
        """It takes audio."""

    def bot_event(self, event: rtvi.Event) -> None:
        """It told something."""

    def bot_command(self, command: Command) -> None:
        """It wants something done to the call."""

    def bot_interrupted(self) -> None:
        """It was interrupted by the caller; what it had said is no longer played."""

    def bot_ended(self) -> None:
        """It closed the link in good order."""

    def bot_lost(self, reason: str) -> None:
        """The link broke."""


class BotListener(LinkListener, Protocol):
    """Who wants to know what became of the bot as well."""

    def bot_failed(self, reason: str) -> None:
        """It could not be started."""


@dataclass(slots=True)
class LinkStats:
    """Counters of what a bot sends."""

    frames_in: int = 0
    bad_frames: int = 0
    interruptions: int = 0
    filter_delay: float = 0.0
