"""What a link needs of its sockets, and what it tells to whom has asked for the bot."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from pipecat_bridge.contracts import LossCause, ReadyBy
from pipecat_bridge.errors import BlameError

Direction = Literal["input", "output", "both"]
"""As the bot sees it: `input` carries the caller's audio to it, `output` the bot's from it."""


class Loss(NamedTuple):
    """The loss of a ready bot; `busy`: its server restarts, or serves somebody else."""

    cause: LossCause
    reason: str
    busy: bool = False


class SocketClose(NamedTuple):
    """How a WebSocket has closed.

    `clean`: the peer closed it in good order. `busy`: it said that it restarts or that it serves
    somebody else (close codes 1012 and 1013).
    """

    clean: bool
    reason: str
    busy: bool = False


class Outlet(Protocol):
    """What a socket writes to. `congested`: bytes wait for the kernel."""

    congested: bool


class BotSocket(Protocol):
    """One open WebSocket."""

    @property
    def outlet(self) -> Outlet:
        """What it writes to."""
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


class LinkListener(Protocol):
    """Has asked for a bot. It is told once how the start went, then once how the bot ended."""

    def link_connected(self) -> None:
        """All sockets are open; the bot is asked to be ready."""

    def link_ready(self, by: ReadyBy) -> None:
        """The start has succeeded."""

    def link_failed(self, error: BlameError) -> None:
        """The start has failed; the link is closed."""

    def link_ended(self) -> None:
        """The ready bot closed the link in good order."""

    def link_lost(self, loss: Loss) -> None:
        """The ready bot is lost."""

    def link_broken(self, reason: str) -> None:
        """The bridge made a mistake while it served the ready bot; the link is closed."""
