"""The interfaces between the phone side, the call and the bot side.

`call`, `asterisk` and `runner` import this module and do not import each other. A second phone
side, or another kind of bot, only has to implement these protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from twisted.internet.defer import Deferred

from pipecat_bridge.audio.delays import Delays
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.wire import rtvi
from pipecat_bridge.wire.commands import Command

AudioSink = Callable[[bytes, int], None]
"""Takes mono PCM16, and its rate in samples per second."""

FrameSent = Callable[[bytes | None, int], None]
"""Takes a frame as a phone gets it, None for silence, and its rate in samples per second. Silence
in place of frames that the phone has not got may be longer than a frame."""


# The phone side

PhoneCodec = Literal["linear", "ulaw", "alaw", "slin16"]
"""The format of what a phone sends as 8 kHz audio. "slin16" is 16 kHz audio that old releases of
Asterisk send as 8 kHz audio."""

PhoneEnd = Literal["hangup", "lost", "fault", "bridge"]
"""How a phone ends. hangup: the caller hung up. lost: the phone took no more audio, or cannot be
reached. fault: the phone broke the protocol. bridge: the bridge had a fault of its own."""


@dataclass(slots=True)
class PhoneStats:
    """Counters of one phone: `unknown_messages` in messages, all others in frames.

    `late_frames`: of those that were sent, how many were late because this machine was.
    """

    frames_in: int = 0
    frames_out: int = 0
    frames_skipped: int = 0
    late_frames: int = 0
    odd_frames: int = 0
    filled_frames: int = 0
    unknown_messages: int = 0


class Phone(Protocol):
    """A phone, as its call sees it."""

    @property
    def stats(self) -> PhoneStats:
        """Counters of the phone."""
        ...

    @property
    def peer(self) -> str:
        """The address that has connected, HOST:PORT."""
        ...

    @property
    def codec(self) -> PhoneCodec:
        """The codec of the caller's audio."""
        ...

    @property
    def rate(self) -> int:
        """Samples per second on the line now."""
        ...

    def listen(self, sent: FrameSent) -> None:
        """Call `sent` with each frame that is sent to the phone."""

    def join(self, sink: AudioSink, playout: Playout) -> None:
        """Send the caller's audio to `sink`, and play `playout` to the caller.

        Called again for each new sink: when the bot is ready, and when another bot replaces a lost
        one.
        """

    def hang_up(self, cleanly: bool = True) -> None:
        """End the call. If `cleanly`, the dialplan continues; else Asterisk hangs up the caller."""


class PhoneListener(Protocol):
    """A call, as its phone sees it."""

    def caller_digit(self, digit: str) -> None:
        """The caller has pressed and released a key."""

    def phone_gone(self, how: PhoneEnd, reason: str) -> None:
        """The phone has ended. Called once. `reason` is a sentence, or "" after a plain hangup."""

    def phone_warning(self, kind: str, text: str) -> None:
        """The phone did something wrong, and the call goes on. Called each time."""


AnswerCall = Callable[[str, Phone], PhoneListener | None]
"""Begins the call with this id on this phone. None: the call is refused."""


# The bot side

ReadyBy = Literal["bot-ready", "audio", "command", "timeout"]
"""Why a bot counts as ready. bot-ready: it sent this RTVI message. audio: it sent audio. command:
it sent a command to end or to transfer the call. timeout: `ready_timeout` is over."""

LossCause = Literal["connection", "error", "silent"]
"""Why a ready bot is lost. connection: its connection broke. error: it reported a fatal error.
silent: it ended the call and had sent no audio."""

TextFate = Literal["sent", "no-texts", "full"]
"""What became of a text for a bot. `no-texts`: the bot's protocol has none. `full`: it was dropped,
as too much waits already for a bot that does not read."""

FailureCause = Literal["runner", "bridge"]
"""What failed when there is no bot: the runners, or the bridge itself."""


@dataclass(frozen=True, slots=True)
class BotRequest:
    """What a runner gets to know about a call.

    `resumption` is 0 for a call's first bot, and n for the n-th bot that replaces a lost one.
    """

    call_id: str
    parameters: dict[str, Any]
    metadata: dict[str, Any]
    resumption: int = 0

    def described(self) -> dict[str, Any]:
        """The call's `id` and `metadata`, and `resumption` unless it is 0."""
        described = {"id": self.call_id, "metadata": self.metadata}
        return {**described, "resumption": self.resumption} if self.resumption else described


@dataclass(slots=True)
class LinkStats:
    """Counters of what a bot sends. `spoke`: the bot has sent audio that is not silence."""

    spoke: bool = False
    frames_in: int = 0
    bad_frames: int = 0


@dataclass(slots=True)
class QueueStats:
    """Counters of the caller's audio to a bot, in frames.

    `waits`: of the frames that had to wait; all others of those that were `sent` did not.
    `filter_delay` is the delay of the resampler in seconds, which comes on top of each wait.
    """

    sent: int = 0
    dropped: int = 0
    depth_max: int = 0
    waits: Delays = field(default_factory=Delays)
    filter_delay: float = 0.0


class Bot(Protocol):
    """The bot of a call: first the search for a runner, then the bot that was found."""

    @property
    def runner_name(self) -> str:
        """The runner of the bot, or the runner that was asked last; "" before the first is asked.

        The name stays after the bot's end.
        """
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
        """Takes the caller's audio. There is another sink once the bot is ready."""
        ...

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> TextFate:
        """Send text, as if the caller had typed it."""
        ...

    def send_digit(self, digit: str) -> bool:
        """Send a key that the caller pressed. False: it was dropped, as the bot does not read."""
        ...

    def start(self) -> None:
        """Ask a runner for the bot. The listener hears what becomes of it."""

    def stop(self) -> Deferred[None]:
        """Stop the bot, whether it has started or not. The listener hears nothing more.

        Fires when the runner knows that the bot has stopped, or after a deadline.
        """
        ...


class BotEventListener(Protocol):
    """Hears what a ready bot says and does."""

    def bot_event(self, event: rtvi.Event) -> None:
        """The bot reports an event."""

    def bot_command(self, command: Command) -> None:
        """The bot sent a command. Raises CommandError if it goes beyond a limit of the call."""

    def bot_interrupted(self) -> None:
        """The bot gives way to the caller: audio that waits to be played is dropped now."""

    def bot_warning(self, kind: str, text: str) -> None:
        """Something is wrong, and the call goes on. `call.warnings` lists the kinds."""


class BotListener(BotEventListener, Protocol):
    """Hears what becomes of a call's bot."""

    def bot_attempt_failed(self, runner: str, reason: str) -> None:
        """A start at one runner has failed, and another runner is asked."""

    def bot_ready(self, by: ReadyBy) -> None:
        """The bot is ready and takes audio."""

    def bot_failed(self, reason: str, cause: FailureCause) -> None:
        """No bot could be started."""

    def bot_ended(self) -> None:
        """The bot ended the call normally."""

    def bot_lost(self, cause: LossCause, reason: str) -> None:
        """A ready bot is lost."""

    def bot_broken(self, reason: str) -> None:
        """A fault of the bridge ended the bot."""


class BotSource(Protocol):
    """Makes the bots of calls."""

    def bot(
        self,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        lost: Any = None,
    ) -> Bot:
        """A new bot for one call, not yet started. It replaces the bot `lost`, if there is one."""
        ...

    @property
    def why_none(self) -> str:
        """Why a call that comes now would get no bot; "" if a runner would be asked."""
        ...
