"""The life of a call: every state, every input, one table."""

from __future__ import annotations

from enum import Enum
from typing import Final

from pipecat_bridge.contracts import FailureCause, LossCause, PhoneEnd


class State(Enum):
    """Where a call is."""

    STARTING = "starting"  # the phone is there, the bot is not yet
    TALKING = "talking"
    RESUMING = "resuming"  # the bot was lost, another one is asked for
    FINISHING = "finishing"  # the bot has ended; its last words are played
    ENDED = "ended"


class Input(Enum):
    """What can happen to a call. Those that end it may bring their own outcome."""

    BOT_READY = "bot ready"
    BOT_FAILED = "bot failed"  # none became ready; brings its outcome
    BOT_ENDED = "bot ended"  # in good order
    BOT_LOST = "bot lost"  # and no other is to take its place; brings its outcome
    BOT_TO_REPLACE = "bot to replace"  # it is lost, and another is to take its place
    BOT_HANGS_UP = "bot hangs up"
    BOT_TRANSFERS = "bot transfers"
    PHONE_GONE = "phone gone"  # brings its outcome
    PLAYED_OUT = "played out"  # brings the outcome that finishing was begun with
    STOP = "stop"  # from outside; brings its outcome


class Outcome(Enum):
    """How a call ended, in one word, by its cause. The reason says more in a sentence."""

    COMPLETED = "completed"  # the bot ended it, and its last words were played
    TRANSFERRED = "transferred"  # likewise, and told where the caller is to go
    CALLER_HANGUP = "caller-hangup"
    PHONE_LOST = "phone-lost"  # the phone took nothing any more, or cannot be reached
    PHONE_FAULT = "phone-fault"  # the phone broke the protocol
    BOT_HANGUP = "bot-hangup"  # the connection of a ready bot broke
    BOT_ERROR = "bot-error"  # a ready bot reported a fatal error
    BOT_SILENT = "bot-silent"  # a ready bot ended the call without having said anything
    RUNNER_FAILED = "runner-failed"  # no bot became ready
    BRIDGE_ERROR = "bridge-error"  # a fault or a limit of the bridge's own
    STOPPED = "stopped"  # over the API
    TIMEOUT = "timeout"  # longer than [calls] max_duration
    DRAINED = "drained"  # the daemon was stopped
    REJECTED = "rejected"  # never became a call


REASONS: Final[dict[Outcome, str]] = {
    Outcome.COMPLETED: "the bot ended the call",
    Outcome.TRANSFERRED: "the bot transferred the caller",
    Outcome.CALLER_HANGUP: "the caller hung up",
    Outcome.PHONE_LOST: "the phone is lost",
    Outcome.PHONE_FAULT: "the phone broke the protocol",
    Outcome.BOT_HANGUP: "the bot's connection broke",
    Outcome.BOT_ERROR: "the bot reported a fatal error",
    Outcome.BOT_SILENT: "the bot ended the call without having said anything",
    Outcome.RUNNER_FAILED: "no bot became ready",
    Outcome.BRIDGE_ERROR: "a fault of the bridge",
    Outcome.STOPPED: "stopped over the API",
    Outcome.TIMEOUT: "the call was too long",
    Outcome.DRAINED: "the daemon was stopped",
    Outcome.REJECTED: "the call was refused",
}
"""The reason of an outcome, where nobody has given another one."""

PHONE_ENDS: Final[dict[PhoneEnd, Outcome]] = {
    "hangup": Outcome.CALLER_HANGUP,
    "lost": Outcome.PHONE_LOST,
    "fault": Outcome.PHONE_FAULT,
    "bridge": Outcome.BRIDGE_ERROR,
}

LOSSES: Final[dict[LossCause, Outcome]] = {
    "connection": Outcome.BOT_HANGUP,
    "error": Outcome.BOT_ERROR,
    "silent": Outcome.BOT_SILENT,
}
FAILURES: Final[dict[FailureCause, Outcome]] = {
    "runner": Outcome.RUNNER_FAILED,
    "bridge": Outcome.BRIDGE_ERROR,
}
"""What a side tells of its end -> the outcome."""

BOT_LOST: Final = (Outcome.BOT_HANGUP, Outcome.BOT_ERROR, Outcome.BOT_SILENT)
"""Outcomes to which `[calls] on_bot_lost` applies."""

Next = tuple[State, Outcome | None]

_END: Final[Next] = (State.ENDED, None)
_GOODBYE: Final[Next] = (State.FINISHING, Outcome.COMPLETED)
_HANDED_ON: Final[Next] = (State.FINISHING, Outcome.TRANSFERRED)

TRANSITIONS: Final[dict[tuple[State, Input], Next]] = {
    (State.STARTING, Input.BOT_READY): (State.TALKING, None),
    (State.STARTING, Input.BOT_FAILED): _END,
    (State.STARTING, Input.PHONE_GONE): _END,
    (State.STARTING, Input.STOP): _END,
    (State.TALKING, Input.BOT_ENDED): _GOODBYE,
    (State.TALKING, Input.BOT_LOST): _END,
    (State.TALKING, Input.BOT_TO_REPLACE): (State.RESUMING, None),
    (State.TALKING, Input.BOT_HANGS_UP): _GOODBYE,
    (State.TALKING, Input.BOT_TRANSFERS): _HANDED_ON,
    (State.TALKING, Input.PHONE_GONE): _END,
    (State.TALKING, Input.STOP): _END,
    (State.RESUMING, Input.BOT_READY): (State.TALKING, None),
    (State.RESUMING, Input.BOT_FAILED): _END,
    (State.RESUMING, Input.PHONE_GONE): _END,
    (State.RESUMING, Input.STOP): _END,
    (State.FINISHING, Input.PLAYED_OUT): _END,
    (State.FINISHING, Input.PHONE_GONE): _END,
    (State.FINISHING, Input.STOP): _END,
}
"""(state, input) -> (next state, outcome); what is not here changes nothing.

No outcome: the input brings it. With FINISHING, which may still be cut short, the outcome is that
of the end that it leads to. A bot is heard of only once it is ready, and not any more when the call
has let it go.
"""
