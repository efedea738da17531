"""Errors whose cause is known: a fault of a peer, or something that the bridge lacks.

Any other exception is a fault of the bridge itself. It is logged with its traceback, and ends only
the call in which it happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Self

MAX_SAID: Final = 200
"""Most characters of a peer's text in a sentence."""

MAX_SENTENCE: Final = 2000
"""Most characters of an error's text. It may have the words of several peers."""


def printable(text: str) -> str:
    r"""The text with escapes for characters that are not printable: \x1b, \n, \u202e."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def brief(text: str, most: int = MAX_SAID) -> str:
    """The beginning of a peer's text on one line, for a sentence."""
    return printable(text if len(text) <= most else f"{text[:most]}..")


class BlameError(Exception):
    """An error whose cause is known. The text is one sentence without secrets, on one line."""

    def __init__(self, text: str) -> None:
        super().__init__(brief(text, MAX_SENTENCE))

    def prefixed(self, text: str, redact: Callable[[str], str] = str) -> Self:
        """A copy of the error with `text` before its own text, which `redact` changes first."""
        return type(self)(f"{text}{redact(str(self))}")


class PeerError(BlameError):
    """A peer did something wrong, or cannot be reached."""


class FormatError(PeerError, ValueError):
    """Bytes or values from a peer that are not valid."""


class PeerRefusedError(PeerError):
    """Nothing listens at the peer's address."""


class PeerBusyError(PeerError):
    """The peer works, but takes nothing now: HTTP 429 and 503, close codes 1012 and 1013.

    `seconds`: how long the peer asks the bridge to wait; None if it does not say.
    """

    def __init__(self, text: str, seconds: float | None = None) -> None:
        super().__init__(text)
        self.seconds = seconds

    def prefixed(self, text: str, redact: Callable[[str], str] = str) -> Self:
        return type(self)(f"{text}{redact(str(self))}", self.seconds)


class BridgeError(BlameError):
    """The bridge lacks something, such as file descriptors. No peer is to blame."""
