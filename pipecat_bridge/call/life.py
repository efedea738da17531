"""The life of a call: every state, every input, one table."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """Where a call is."""

    STARTING = "starting"  # the phone is there, the bot is not yet
    TALKING = "talking"
    FINISHING = "finishing"  # the bot has ended; its last words are played
    ENDED = "ended"


class Input(Enum):
    """What can happen to a call."""

    BOT_CONNECTED = "bot connected"
    BOT_FAILED = "bot failed"  # could not be started
    BOT_ENDED = "bot ended"  # in good order
    BOT_LOST = "bot lost"  # its connection broke
    PHONE_GONE = "phone gone"
    PLAYED_OUT = "played out"
    STOP = "stop"  # from outside; brings its own outcome


class Outcome(Enum):
    """How a call ended, in one word."""

    COMPLETED = "completed"  # the bot ended it, and its last words were played
    CALLER_HANGUP = "caller-hangup"
    BOT_HANGUP = "bot-hangup"  # the bot's connection broke in mid-call
    RUNNER_FAILED = "runner-failed"  # no bot came
    STOPPED = "stopped"  # over the API
    TIMEOUT = "timeout"  # longer than [calls] max_duration
    DRAINED = "drained"  # the daemon was stopped
    REJECTED = "rejected"  # never became a call


Next = tuple[State, Outcome | None]

_END_BY_STOP: Final[Next] = (State.ENDED, None)
_BY_CALLER: Final[Next] = (State.ENDED, Outcome.CALLER_HANGUP)
_NO_BOT: Final[Next] = (State.ENDED, Outcome.RUNNER_FAILED)

TRANSITIONS: Final[dict[tuple[State, Input], Next]] = {
    (State.STARTING, Input.BOT_CONNECTED): (State.TALKING, None),
    (State.STARTING, Input.BOT_FAILED): _NO_BOT,
    (State.STARTING, Input.BOT_ENDED): _NO_BOT,
    (State.STARTING, Input.BOT_LOST): _NO_BOT,
    (State.STARTING, Input.PHONE_GONE): _BY_CALLER,
    (State.STARTING, Input.STOP): _END_BY_STOP,
    (State.TALKING, Input.BOT_ENDED): (State.FINISHING, None),
    (State.TALKING, Input.BOT_LOST): (State.ENDED, Outcome.BOT_HANGUP),
    (State.TALKING, Input.PHONE_GONE): _BY_CALLER,
    (State.TALKING, Input.STOP): _END_BY_STOP,
    (State.FINISHING, Input.PLAYED_OUT): (State.ENDED, Outcome.COMPLETED),
    (State.FINISHING, Input.PHONE_GONE): _BY_CALLER,
    (State.FINISHING, Input.STOP): _END_BY_STOP,
}
"""(state, input) -> (next state, outcome); what is not here changes nothing.

A runner that answers /run late or wrongly although its bot talks (some answer only when the call
is over) must not end the call: BOT_FAILED counts only while starting.
"""
