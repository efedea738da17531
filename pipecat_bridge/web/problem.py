"""The error with which the API answers a request that it cannot carry out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from pipecat_bridge.errors import PeerError


class ProblemError(PeerError):
    """A request that cannot be carried out: the HTTP status, and a sentence on what is wrong."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    def prefixed(self, text: str, redact: Callable[[str], str] = str) -> Self:
        return type(self)(self.status, f"{text}{redact(str(self))}")
