"""The kinds of events that go out of the bridge, and the data of each: version 1.

Whoever takes events must ignore kinds and members that it does not know. A member is never given
another meaning, and none is taken away, without another version.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from pipecat_bridge.events.record import Record

VERSION: Final = 1

Speaker = Literal["bot", "caller"]


class Data(Struct, frozen=True, omit_defaults=True):
    """The data of an event."""


class CallCreated(Data, frozen=True):
    """A phone has told the id of its call. `peer`: its address and port."""

    peer: str
    direction: Literal["in", "out"]
    caller: str | UnsetType = UNSET
    called: str | UnsetType = UNSET


class CallAnswered(Data, frozen=True):
    """The phone sends and gets audio."""


class CallReady(Data, frozen=True):
    """The bot is ready and hears the caller. `by`: what showed that. `seconds`: since the call was
    created."""

    by: str
    runner: str
    seconds: float


class Turn(Data, frozen=True):
    """One side has said something. `start` and `end`: seconds since the epoch. `interrupted`: the
    caller spoke into it. `audio` and `played`, of the bot: seconds of voice that it sent, and that
    the phone got of it."""

    speaker: Speaker
    text: str
    start: float
    end: float
    interrupted: bool = False
    audio: float | UnsetType = UNSET
    played: float | UnsetType = UNSET


class Dtmf(Data, frozen=True):
    """The caller pressed a key; "?" if keys are hidden."""

    digit: str


class Interrupted(Data, frozen=True):
    """The caller barged in: what waited of the bot's voice was dropped."""


class BotError(Data, frozen=True):
    """The bot reported an error, or its start failed on one runner."""

    category: Literal["reported", "fatal", "start"]
    text: str
    runner: str | UnsetType = UNSET


class BotLost(Data, frozen=True):
    """The bot is lost, and another one is started in its place."""

    reason: str
    runner: str


class BotResumed(Data, frozen=True):
    """Another bot is ready in place of a lost one, the `resumption`th of the call."""

    resumption: int
    runner: str


class Transfer(Data, frozen=True):
    """The bot hands the caller on."""

    target: str


class Variables(Data, frozen=True):
    """The bot has set variables for the dialplan."""

    variables: dict[str, str]


class Message(Data, frozen=True):
    """A message of the bot's author: an RTVI server message that is no command."""

    data: Any


class RecordingStarted(Data, frozen=True):
    """The call is recorded from now on."""


class RecordingReady(Data, frozen=True):
    """The recording is complete. `fault`: why it has not all of the call."""

    seconds: float
    bytes: int
    format: Literal["opus", "flac", "wav"]
    fault: str | UnsetType = UNSET


class CallEnded(Data, frozen=True):
    """The call has ended. It is the last event of a call but for `recording.ready`."""

    record: Record


KINDS: Final[dict[str, type[Data]]] = {
    "call.created": CallCreated,
    "call.answered": CallAnswered,
    "call.ready": CallReady,
    "turn": Turn,
    "dtmf": Dtmf,
    "interrupted": Interrupted,
    "bot.error": BotError,
    "bot.lost": BotLost,
    "bot.resumed": BotResumed,
    "transfer": Transfer,
    "variables": Variables,
    "message": Message,
    "recording.started": RecordingStarted,
    "recording.ready": RecordingReady,
    "call.ended": CallEnded,
}
"""Kind -> the class of its data."""
