"""What is told of a call for the log only. It is no event of the public list."""

from __future__ import annotations

from typing import Final

from pipecat_bridge.events.kinds import Data


class Warned(Data, frozen=True):
    """Something is wrong, and the call goes on. `kind`: one of `call.warnings.KINDS`."""

    kind: str
    text: str


class Rejected(Data, frozen=True):
    """A phone was refused."""

    peer: str
    reason: str


class HangsUp(Data, frozen=True):
    """The bot asks for the end of the call."""

    reason: str


class Plays(Data, frozen=True):
    """The bot plays keys to the caller's side."""

    digits: str


NOTES: Final[dict[str, type[Data]]] = {
    "warning": Warned,
    "rejected": Rejected,
    "hangup": HangsUp,
    "play-dtmf": Plays,
}
"""Name in the log -> the class."""
