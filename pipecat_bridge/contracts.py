"""What the phone side, the bot side and the call between them know of each other.

`call`, `asterisk` and `runner` import this module and not each other: a second phone side, or
another kind of bot, fulfils these protocols and needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.commands import Command

AudioSink = Callable[[bytes, int], None]
"""Takes mono PCM16 and its samples per second."""


# The phone side

PhoneCodec = Literal["linear", "ulaw", "alaw", "slin16"]
"""What a phone sends as 8 kHz audio. "slin16" is 16 kHz, which old releases of Asterisk send under
the number of 8 kHz."""

PhoneEnd = Literal["hangup", "lost", "fault", "bridge"]
"""How a phone ends. hangup: the caller hung up. lost: it took no audio any more, or cannot be
reached. fault: it broke the protocol. bridge: the bridge made a mistake."""


@dataclass(slots=True)
class PhoneStats:
    """Counters of one phone, in frames and messages."""

    frames_in: int = 0
    frames_out: int = 0
    frames_skipped: int = 0
    odd_frames: int = 0
    filled_frames: int = 0
    unknown_messages: int = 0


class Phone(Protocol):
    """A phone, as its call sees it."""

    @property
    def stats(self) -> PhoneStats:
        """Its counters."""
        ...

    @property
    def peer(self) -> str:
        """Who has connected, HOST:PORT."""
        ...

    @property
    def codec(self) -> PhoneCodec:
        """The codec of the caller's audio."""
        ...

    @property
    def rate(self) -> int:
        """Samples per second on the line now."""
        ...

    def join(self, sink: AudioSink, playout: Playout) -> None:
        """Send the caller's audio to `sink`, and play `playout` to the caller.

        Called again when the caller's audio goes elsewhere: when the bot is ready, and when another
        bot takes the place of a lost one.
        """

    def hang_up(self, cleanly: bool = True) -> None:
        """End in good order, so that the dialplan goes on; or, not cleanly, hang up the caller."""


class PhoneListener(Protocol):
    """A call, as its phone sees it."""

    def caller_digit(self, digit: str) -> None:
        """The caller has pressed and released a key."""

    def phone_gone(self, how: PhoneEnd, reason: str) -> None:
        """The phone has ended. Called once. `reason` is a sentence, or "" after a plain hangup."""

    def phone_warning(self, kind: str, text: str) -> None:
        """Something is wrong with the phone, and the call goes on. Called each time it is seen."""


AnswerCall = Callable[[str, Phone], PhoneListener | None]
"""Makes a call of a phone, by the call's id. None: the call is refused."""


# The bot side

ReadyBy = Literal["bot-ready", "audio", "command", "timeout"]
"""What showed that a bot is ready: RTVI's `bot-ready`, its first audio, a command to end or to
transfer the call, or that it stayed connected for `ready_timeout`."""

LossCause = Literal["connection", "error", "silent"]
"""Why a ready bot is lost. connection: its connection broke. error: it reported a fatal error.
silent: it ended the call and had sent no audio."""

FailureCause = Literal["runner", "bridge"]
"""Who is to blame when no bot comes: the runners, or the bridge itself."""


@dataclass(frozen=True, slots=True)
class BotRequest:
    """What a runner is told of a call.

    `resumption` is 0 for a call's first bot, and n for the n-th bot that replaces a lost one.
    """

    call_id: str
    parameters: dict[str, Any]
    metadata: dict[str, Any]
    resumption: int = 0

    def described(self) -> dict[str, Any]:
        """The call's id and metadata; and `resumption`, unless this is the first bot."""
        described = {"id": self.call_id, "metadata": self.metadata}
        return {**described, "resumption": self.resumption} if self.resumption else described


@dataclass(slots=True)
class LinkStats:
    """Counters of what a bot sends. `spoke`: some of its audio was not silence."""

    spoke: bool = False
    frames_in: int = 0
    bad_frames: int = 0
    interruptions: int = 0


@dataclass(slots=True)
class QueueStats:
    """Counters of the caller's audio to a bot, in frames; waits in seconds.

    `filter_delay` is what a resampler adds to each wait.
    """

    sent: int = 0
    dropped: int = 0
    depth_max: int = 0
    wait_sum: float = 0.0
    wait_max: float = 0.0
    filter_delay: float = 0.0


class Bot(Protocol):
    """The bot of a call: the search for a runner, then the bot that was found."""

    @property
    def runner_name(self) -> str:
        """The runner that serves it, or was asked last; "" before one is. Kept after its end."""
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
    def audio_sink(self) -> AudioSink:
        """Where the caller's audio goes; another one once the bot is ready."""
        ...

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> bool:
        """Send text, as if the caller had typed it; False when this bot takes no text."""
        ...

    def send_digit(self, digit: str) -> None:
        """Send a key that the caller pressed."""

    def start(self) -> None:
        """Ask for the bot. The listener is told what becomes of it."""

    def stop(self) -> Deferred[None]:
        """Let the bot go, started or not. The listener is told nothing any more.

        Fires when the runner knows of it, or after a while.
        """
        ...


class BotEventListener(Protocol):
    """Is told what a ready bot says and does."""

    def bot_event(self, event: rtvi.Event) -> None:
        """The bot reports an event."""

    def bot_command(self, command: Command) -> None:
        """The bot wants something done to the call. Raises CommandError when it is too much."""

    def bot_interrupted(self) -> None:
        """The caller interrupted the bot; what the bot had said is no longer played."""

    def bot_warning(self, kind: str, text: str) -> None:
        """Something is wrong, and the call goes on. `call.warnings` lists the kinds."""


class BotListener(BotEventListener, Protocol):
    """Is told what becomes of a call's bot."""

    def bot_attempt_failed(self, runner: str, reason: str) -> None:
        """A start at one runner has failed, and another runner is asked."""

    def bot_ready(self, by: ReadyBy) -> None:
        """The bot is ready and takes audio."""

    def bot_failed(self, reason: str, cause: FailureCause) -> None:
        """No bot could be started."""

    def bot_ended(self) -> None:
        """The bot ended in good order."""

    def bot_lost(self, cause: LossCause, reason: str) -> None:
        """The bot was ready, and is lost."""

    def bot_broken(self, reason: str) -> None:
        """The bridge made a mistake while it served the bot."""


class BotSource(Protocol):
    """Where bots come from."""

    def bot(
        self,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        lost: Any = None,
    ) -> Bot:
        """A bot for one call. `lost` is the bot of this call that it replaces."""
        ...

    @property
    def why_none(self) -> str:
        """Why a call that comes now would get no bot; "" when a runner would be asked."""
        ...
