"""What a call needs of its two sides; they fulfil it without knowing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from pipecat_bridge.asterisk.interfaces import PhoneStats
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.runner.caller_queue import QueueStats
from pipecat_bridge.runner.interfaces import BotListener, LinkStats
from pipecat_bridge.runner.request import BotRequest


class Phone(Protocol):
    """The phone side of a call."""

    stats: PhoneStats
    peer: str

    def join(self, sink: Callable[[bytes, int], None], playout: Playout) -> None:
        """Connect the caller's voice to `sink(pcm, rate)` and the ear to `playout`.

        Once more when another bot takes the place of a lost one.
        """

    def hang_up(self, cleanly: bool = True) -> None:
        """End in good order, so that the dialplan goes on; or else hang up on the caller."""


class Link(Protocol):
    """The connection to a bot."""

    stats: LinkStats
    queue_stats: QueueStats

    def send_audio(self, pcm: bytes, rate: int) -> None:
        """Caller audio."""

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> bool:
        """Text, as if the caller had typed it; False when this bot cannot be told any."""
        ...

    def send_digit(self, digit: str) -> None:
        """A key that the caller pressed."""

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

    @property
    def runner_name(self) -> str:
        """The runner that serves it, by its URL, after its end as well; "" until that is known."""
        ...

    def start(self) -> None:
        """Ask for it; the listener hears what becomes of it."""

    def stop(self) -> Deferred[None]:
        """Let it go, started or not; the listener hears nothing any more.

        Fires when the runner knows of it, or after a while.
        """
        ...


class Runner(Protocol):
    """Where bots come from."""

    def bot(self, request: BotRequest, playout: Playout, listener: BotListener) -> Bot:
        """A bot for one call."""
        ...


Parameters = dict[str, Any]
