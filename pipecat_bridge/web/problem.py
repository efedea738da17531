"""What a request that cannot be done is answered with."""

from __future__ import annotations


class ProblemError(Exception):
    """A request that cannot be done: status, and a sentence that says what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
