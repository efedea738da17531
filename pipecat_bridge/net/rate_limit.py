"""Bounds what a peer can cause as often as it likes, such as lines in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure

BURST: Final = 5
"""Lines of one kind that are logged at once. After them it is one line a second."""

LEFT_OUT: Final = " ({left_out} lines like this one were left out before)"


class RateLimit:
    """Admits `burst` things at once, and after them `per_second` in each second."""

    __slots__ = ("_at", "_burst", "_left", "_per_second")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left: float = burst
        self._at = 0.0

    def admit(self, now: float) -> bool:
        """Whether one more is within the limit at the time `now`, in seconds.

        A clock that is set back costs nothing but the time since the last call.
        """
        passed, self._at = max(0.0, now - self._at), now
        self._left = min(self._burst, self._left + passed * self._per_second)
        if self._left < 1:
            return False
        self._left -= 1
        return True


class BoundedLog:
    """Logs what any peer can cause. What is left out is counted, and told in the next line.

    `now` is a monotonic clock in seconds.
    """

    def __init__(self, log: Logger, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._limit = RateLimit(BURST, 1.0)
        self._left_out = 0

    def warn(self, text: str, **fields: Any) -> None:
        """Log a warning, or count it."""
        self._say(self._log.warn, text, fields)

    def failure(self, text: str, failure: Failure, **fields: Any) -> None:
        """Log a fault of the bridge with its traceback, or count it."""
        self._say(self._log.failure, text, {"failure": failure, **fields})

    def _say(self, log: Callable[..., None], text: str, fields: dict[str, Any]) -> None:
        if not self._limit.admit(self._now()):
            self._left_out += 1
            return
        left_out, self._left_out = self._left_out, 0
        if left_out:
            text += LEFT_OUT
        log(text, left_out=left_out, **fields)
