"""What a phone line needs of the call behind it, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection

PhoneEnd = Literal["hangup", "lost", "fault"]
"""How a phone ends: the caller hung up; the phone took nothing any more, or cannot be reached; it
broke the protocol."""


class Line(Protocol):
    """A call, as its phone sees it."""

    def caller_digit(self, digit: str) -> None:
        """The caller has pressed and released a key."""

    def phone_gone(self, how: PhoneEnd, reason: str) -> None:
        """The connection is closed; told once. `reason` is a sentence, "" after a plain hangup."""

    def phone_warning(self, kind: str, text: str) -> None:
        """Something is wrong with the phone, and the call goes on; told each time it is seen."""


class Exchange(Protocol):
    """Where a phone that has said its UUID becomes a call."""

    def answer(self, call_id: str, phone: AudioSocketConnection) -> Line | None:
        """The call, or None when it is refused."""


@dataclass(slots=True)
class PhoneStats:
    """Counters of one line."""

    frames_in: int = 0
    frames_out: int = 0
    frames_skipped: int = 0
    odd_frames: int = 0
    filled_frames: int = 0
    unknown_messages: int = 0


@dataclass(frozen=True, slots=True)
class LineOptions:
    """Times in seconds; `g711` is the codec that 160-byte frames are taken for."""

    handshake_timeout: float = 5.0
    stall_timeout: float = 10.0
    hold_after: float = 0.1
    g711: Literal["ulaw", "alaw"] = "ulaw"
