"""What a call needs of its two sides; they fulfil it without knowing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from pipecat_bridge.asterisk.interfaces import PhoneStats
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.runner.link.caller_queue import QueueStats
from pipecat_bridge.runner.link.interfaces import BotListener, LinkStats
from pipecat_bridge.runner.request import BotRequest


class Phone(Protocol):
    """The phone side of a call."""

    stats: PhoneStats
    peer: str

    @property
    def codec(self) -> str:
        """What the caller's audio is taken for: linear, ulaw, alaw or slin16."""
        ...

    @property
    def rate(self) -> int:
        """Samples per second on the line now."""
        ...

    def join(self, sink: Callable[[bytes, int], None], playout: Playout) -> None:
        """Connect the caller's voice to `sink(pcm, rate)` and the ear to `playout`.

        Once more when the caller's voice goes elsewhere: the bot is ready, or another one takes the
        place of a lost one.
        """

    def hang_up(self, cleanly: bool = True) -> None:
        """End in good order, so that the dialplan goes on; or else hang up on the caller."""


class Bot(Protocol):
    """The bot side of a call: the search for a runner, then the bot that it has found."""

    @property
    def runner_name(self) -> str:
        """The runner that serves it, by its URL, after its end as well; "" until that is known."""
        ...

    @property
    def stats(self) -> LinkStats:
        """Counters of what the bot sends."""
        ...

    @property
    def queue_stats(self) -> QueueStats:
        """Counters of the caller's audio to the bot."""
        ...

    @property
    def queued(self) -> int:
        """Frames that the bot has not read yet."""
        ...

    @property
    def audio_sink(self) -> Callable[[bytes, int], None]:
        """Where the caller's audio goes, as (PCM, rate); another one once the bot is ready."""
        ...

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> bool:
        """Text, as if the caller had typed it; False when this bot cannot be told any."""
        ...

    def send_digit(self, digit: str) -> None:
        """A key that the caller pressed."""

    def start(self) -> None:
        """Ask for it; the listener hears what becomes of it."""

    def stop(self) -> Deferred[None]:
        """Let it go, started or not; the listener hears nothing any more.

        Fires when the runner knows of it, or after a while.
        """
        ...


class Runner(Protocol):
    """Where bots come from."""

    def bot(
        self,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        lost: Any = None,
    ) -> Bot:
        """A bot for one call; `lost` is the bot of this call whose place it takes."""
        ...

    @property
    def why_none(self) -> str:
        """Why a call that comes now would get no bot; "" when a runner would be asked."""
        ...
