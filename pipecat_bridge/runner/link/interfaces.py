"""What the parts of the bot's side need of each other, and what a call hears of its bot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from pipecat_bridge.net.http import RunnerError
from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.commands import Command

Direction = Literal["input", "output", "both"]
"""As the bot sees it: `input` carries the caller's audio to it, `output` the bot's from it."""

ReadyBy = Literal["bot-ready", "audio", "command", "timeout"]
"""How it was known that a bot is ready: by RTVI's `bot-ready`, by its first audio, by a command to
end or transfer the call, or because it survived `ready_timeout`."""

LossCause = Literal["connection", "error", "silent"]
"""Why a ready bot is lost: its connection broke; it reported a fatal error; it ended the call
without having sent any audio."""

FailureCause = Literal["runner", "bridge"]
"""Who is to blame when no bot comes: the runners, or the bridge itself."""


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


class LinkOwner(Protocol):
    """Who has asked for a bot. It hears once how the start went, then once how the bot ended."""

    def link_connected(self) -> None:
        """All sockets are open; the bot is asked to be ready."""

    def link_ready(self, by: ReadyBy) -> None:
        """The start has succeeded."""

    def link_failed(self, error: RunnerError) -> None:
        """The start has failed; the link is closed."""

    def link_ended(self) -> None:
        """The ready bot closed the link in good order."""

    def link_lost(self, loss: Loss) -> None:
        """The ready bot is lost."""


class LinkListener(Protocol):
    """Who wants to know what a ready bot does."""

    def bot_event(self, event: rtvi.Event) -> None:
        """It told something."""

    def bot_command(self, command: Command) -> None:
        """It wants something done to the call; raises CommandError when it is too much."""

    def bot_interrupted(self) -> None:
        """It was interrupted by the caller; what it had said is no longer played."""

    def bot_warning(self, kind: str, text: str) -> None:
        """Something is wrong, but the call goes on; see `call.warnings` for the kinds."""


class BotListener(LinkListener, Protocol):
    """Who wants to know what becomes of a call's bot."""

    def bot_attempt_failed(self, runner: str, reason: str) -> None:
        """A start at one runner has failed, and another one is tried."""

    def bot_ready(self, by: ReadyBy) -> None:
        """It is there and takes audio."""

    def bot_failed(self, reason: str, cause: FailureCause) -> None:
        """It could not be started."""

    def bot_ended(self) -> None:
        """It ended in good order."""

    def bot_lost(self, cause: LossCause, reason: str) -> None:
        """It was ready, and is lost."""


@dataclass(slots=True)
class LinkStats:
    """Counters of what a bot sends; `spoke`: some of its audio was not silence."""

    spoke: bool = False
    frames_in: int = 0
    bad_frames: int = 0
    interruptions: int = 0
