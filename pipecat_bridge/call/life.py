"""The life of a call: its states, its inputs, and the table of transitions."""

from __future__ import annotations

from enum import Enum
from typing import Final

from pipecat_bridge.contracts import FailureCause, LossCause, PhoneEnd
from pipecat_bridge.events.record import EndedBy


class State(Enum):
    """The state of a call."""

    STARTING = "starting"  # the phone is connected, the bot is not ready yet
    TALKING = "talking"
    RESUMING = "resuming"  # the bot was lost, and another bot is being started
    FINISHING = "finishing"  # the bot has ended; its last words are played
    ENDED = "ended"


class Input(Enum):
    """What can happen to a call. Some inputs carry the outcome of the call."""

    BOT_READY = "bot ready"
    BOT_FAILED = "bot failed"  # no bot became ready; carries the outcome
    BOT_ENDED = "bot ended"  # the bot ended the call normally
    BOT_LOST = "bot lost"  # the bot is lost and is not replaced; carries the outcome
    BOT_TO_REPLACE = "bot to replace"  # the bot is lost, and another one is to replace it
    BOT_HANGS_UP = "bot hangs up"
    BOT_TRANSFERS = "bot transfers"
    PHONE_GONE = "phone gone"  # carries the outcome
    PLAYED_OUT = "played out"  # the last words were played; carries the outcome of FINISHING
    STOP = "stop"  # the API, a limit or a fault of the bridge ends the call; carries the outcome


class Outcome(Enum):
    """How a call ended, in one word. The reason of the call is the same in one sentence."""

    COMPLETED = "completed"  # the bot ended the call, and its last words were played
    TRANSFERRED = "transferred"  # the bot asked for a transfer, and its last words were played
    CALLER_HANGUP = "caller-hangup"
    PHONE_LOST = "phone-lost"  # the phone took no more audio, or cannot be reached
    PHONE_FAULT = "phone-fault"  # the phone broke the protocol
    BOT_HANGUP = "bot-hangup"  # the connection of a ready bot broke
    BOT_ERROR = "bot-error"  # a ready bot reported a fatal error
    BOT_SILENT = "bot-silent"  # a ready bot ended the call without having said anything
    RUNNER_FAILED = "runner-failed"  # no bot became ready
    BRIDGE_ERROR = "bridge-error"  # a fault or a limit of the bridge itself
    STOPPED = "stopped"  # a client of the API stopped the call
    TIMEOUT = "timeout"  # the call was longer than [calls] max_duration
    DRAINED = "drained"  # the daemon was stopped
    REJECTED = "rejected"  # the call was refused at once


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
"""The reason for each outcome, unless a more exact one is known."""

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
"""These three tables: how a phone or a bot ended -> the outcome of the call."""

ENDED_BY: Final[dict[Outcome, EndedBy]] = {
    Outcome.COMPLETED: "bot",
    Outcome.TRANSFERRED: "bot",
    Outcome.CALLER_HANGUP: "caller",
    Outcome.PHONE_LOST: "phone",
    Outcome.PHONE_FAULT: "phone",
    Outcome.BOT_HANGUP: "bot",
    Outcome.BOT_ERROR: "bot",
    Outcome.BOT_SILENT: "bot",
    Outcome.RUNNER_FAILED: "runner",
    Outcome.BRIDGE_ERROR: "bridge",
    Outcome.STOPPED: "operator",
    Outcome.TIMEOUT: "operator",
    Outcome.DRAINED: "operator",
    Outcome.REJECTED: "operator",
}
"""The side that ended a call with each outcome."""

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
"""(state, input) -> (next state, outcome). A pair that is missing here changes nothing.

If the outcome is None, the input carries it. With FINISHING, the outcome is for the case that the
last words are played to their end. Bots are heard between ready and stop only, so the table needs
no rows for other inputs from them.
"""
