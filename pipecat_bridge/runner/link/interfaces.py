"""What a link needs from its sockets, and what it reports to its listener."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

from pipecat_bridge.contracts import LossCause, ReadyBy
from pipecat_bridge.errors import BlameError

Direction = Literal["input", "output", "both"]
"""Seen from the bot: `input` carries the caller's audio, `output` the bot's audio."""


class Loss(NamedTuple):
    """The loss of a ready bot. `busy`: its server restarts, or serves another client."""

    cause: LossCause
    reason: str
    busy: bool = False


class SocketClose(NamedTuple):
    """How a WebSocket has closed.

    `clean`: the peer closed it in good order. `busy`: the peer restarts (close code 1012), or
    serves another client (1013).
    """

    clean: bool
    reason: str
    busy: bool = False


class Outlet(Protocol):
    """What a socket writes to. `congested`: bytes wait until the kernel takes them."""

    congested: bool


class BotSocket(Protocol):
    """One open WebSocket."""

    @property
    def outlet(self) -> Outlet:
        """What this socket writes to."""
        ...

    def send(self, payload: bytes) -> bool:
        """Send one message. False: it was dropped, and the next ones will be as well."""
        ...

    def ping(self, payload: bytes) -> None:
        """Send a ping."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Start reading again."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. A peer that does not answer is disconnected."""


class LinkListener(Protocol):
    """Asked for a bot. The link tells it once how the start went, and once how the bot ended."""

    def link_connected(self) -> None:
        """All sockets are open. The bot is not ready yet."""

    def link_ready(self, by: ReadyBy) -> None:
        """The start has succeeded."""

    def link_failed(self, error: BlameError) -> None:
        """The start has failed; the link is closed."""

    def link_ended(self) -> None:
        """The ready bot closed the link in good order."""

    def link_lost(self, loss: Loss) -> None:
        """The ready bot is lost."""

    def link_broken(self, reason: str) -> None:
        """A fault of the bridge ended the link of the ready bot."""
