"""The life of a call: every state, every input, one table."""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """Where a call is."""

    STARTING = "starting"  # the phone is there, the bot is not yet
    TALKING = "talking"
    RESUMING = "resuming"  # the bot was lost, another one is asked for
    FINISHING = "finishing"  # the bot has ended; its last words are played
    ENDED = "ended"


class Input(Enum):
    """What can happen to a call."""

    BOT_CONNECTED = "bot connected"
    BOT_FAILED = "bot failed"  # could not be started
    BOT_ENDED = "bot ended"  # in good order
    BOT_LOST = "bot lost"  # its connection broke, and no other is to take its place
    BOT_TO_REPLACE = "bot to replace"  # its connection broke, and another is
    BOT_HANGS_UP = "bot hangs up"
    BOT_TRANSFERS = "bot transfers"
    PHONE_GONE = "phone gone"  # brings its own outcome
    PLAYED_OUT = "played out"  # brings the outcome that finishing was begun with
    STOP = "stop"  # from outside; brings its own outcome


class Outcome(Enum):
    """How a call ended, in one word."""

    COMPLETED = "completed"  # the bot ended it, and its last words were played
    TRANSFERRED = "transferred"  # likewise, and told where the caller is to go
    CALLER_HANGUP = "caller-hangup"
    PHONE_LOST = "phone-lost"  # the phone took nothing any more, or cannot be reached
    PHONE_FAULT = "phone-fault"  # the phone broke the protocol
    BOT_HANGUP = "bot-hangup"  # the bot's connection broke in mid-call
    RUNNER_FAILED = "runner-failed"  # no bot came
    STOPPED = "stopped"  # over the API
    TIMEOUT = "timeout"  # longer than [calls] max_duration
    DRAINED = "drained"  # the daemon was stopped
    REJECTED = "rejected"  # never became a call


Next = tuple[State, Outcome | None]

_END: Final[Next] = (State.ENDED, None)
_NO_BOT: Final[Next] = (State.ENDED, Outcome.RUNNER_FAILED)
_BOT_GONE: Final[Next] = (State.ENDED, Outcome.BOT_HANGUP)
_GOODBYE: Final[Next] = (State.FINISHING, Outcome.COMPLETED)
_HANDED_ON: Final[Next] = (State.FINISHING, Outcome.TRANSFERRED)

TRANSITIONS: Final[dict[tuple[State, Input], Next]] = {
    (State.STARTING, Input.BOT_CONNECTED): (State.TALKING, None),
    (State.STARTING, Input.BOT_FAILED): _NO_BOT,
    (State.STARTING, Input.BOT_ENDED): _NO_BOT,
    (State.STARTING, Input.BOT_LOST): _NO_BOT,
    (State.STARTING, Input.BOT_TO_REPLACE): _NO_BOT,
    (State.STARTING, Input.BOT_HANGS_UP): _GOODBYE,
    (State.STARTING, Input.BOT_TRANSFERS): _HANDED_ON,
    (State.STARTING, Input.PHONE_GONE): _END,
    (State.STARTING, Input.STOP): _END,
    (State.TALKING, Input.BOT_ENDED): _GOODBYE,
    (State.TALKING, Input.BOT_LOST): _BOT_GONE,
    (State.TALKING, Input.BOT_TO_REPLACE): (State.RESUMING, None),
    (State.TALKING, Input.BOT_HANGS_UP): _GOODBYE,
    (State.TALKING, Input.BOT_TRANSFERS): _HANDED_ON,
    (State.TALKING, Input.PHONE_GONE): _END,
    (State.TALKING, Input.STOP): _END,
    (State.RESUMING, Input.BOT_CONNECTED): (State.TALKING, None),
    (State.RESUMING, Input.BOT_FAILED): _BOT_GONE,
    (State.RESUMING, Input.BOT_ENDED): _BOT_GONE,
    (State.RESUMING, Input.BOT_LOST): _BOT_GONE,
    (State.RESUMING, Input.BOT_TO_REPLACE): _BOT_GONE,
    (State.RESUMING, Input.BOT_HANGS_UP): _GOODBYE,
    (State.RESUMING, Input.BOT_TRANSFERS): _HANDED_ON,
    (State.RESUMING, Input.PHONE_GONE): _END,
    (State.RESUMING, Input.STOP): _END,
    (State.FINISHING, Input.PLAYED_OUT): _END,
    (State.FINISHING, Input.PHONE_GONE): _END,
    (State.FINISHING, Input.STOP): _END,
}
"""(state, input) -> (next state, outcome); what is not here changes nothing.

The outcome is that of the call's end; with FINISHING, which may still be cut short, of the end that
it leads to.

A runner that answers /run late or wrongly although its bot talks (some answer only when the call
is over) must not end the call: BOT_FAILED counts only while a bot is awaited. A bot that has opened
one of its two sockets may already ask for the end of the call.
"""
