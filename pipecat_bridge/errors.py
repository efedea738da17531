"""Errors by blame: what a peer did wrong, and what the bridge itself lacks.

Any other exception is a mistake in this program. It is logged with its traceback, and it ends the
call in which it came up, and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self


class BlameError(Exception):
    """Somebody is known to be at fault. The text is one sentence without secrets."""

    def prefixed(self, text: str, redact: Callable[[str], str] = str) -> Self:
        """The same error. Its text is `text`, then its own text, which `redact` has changed."""
        return type(self)(f"{text}{redact(str(self))}")


class PeerError(BlameError):
    """A peer did something wrong, or cannot be reached."""


class FormatError(PeerError, ValueError):
    """Bytes or values from a peer that cannot be what they should be."""


class PeerRefusedError(PeerError):
    """Nothing listens at the peer's address."""


class PeerBusyError(PeerError):
    """The peer is well, but takes nothing now: HTTP 429 and 503, close codes 1012 and 1013.

    `seconds`: how long it asked to be left alone, None when it did not say.
    """

    def __init__(self, text: str, seconds: float | None = None) -> None:
        super().__init__(text)
        self.seconds = seconds

    def prefixed(self, text: str, redact: Callable[[str], str] = str) -> Self:
        return type(self)(f"{text}{redact(str(self))}", self.seconds)


class BridgeError(BlameError):
    """The bridge lacks something, such as file descriptors. No peer is to blame."""
