"""The error with which the API answers a request that it cannot carry out."""

from __future__ import annotations


class ProblemError(Exception):
    """A request that cannot be carried out: the HTTP status, and a sentence on what is wrong."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
