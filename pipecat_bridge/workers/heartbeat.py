"""Notices a worker that stands still: its process is there, and answers nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

INTERVAL: Final = 1.0
"""Seconds between two pings."""

MISSED: Final = 3
"""Intervals without an answer, then the worker counts as lost. Intervals are counted, not seconds:
after the supervisor itself stood still, it reads the answers before it counts the next one."""


class Heartbeat:
    """Sends pings by `ping`, and calls `silent` once if they are not answered.

    `ping` returns a Deferred that fires with the answer, and fails if the worker is lost.
    """

    def __init__(
        self,
        clock: IReactorTime,
        ping: Callable[[], Deferred[Any]],
        silent: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._ping = ping
        self._silent = silent
        self._missed = 0
        self._waiting = False
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Send the first ping, and more until `stop` is called."""
        self.stop()
        self._waiting = False
        self._beat()

    def stop(self) -> None:
        """Send no more pings."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _beat(self) -> None:
        self._timer = self._clock.callLater(INTERVAL, self._interval_over)
        if not self._waiting:
            self._waiting = True
            self._missed = 0
            self._ping().addCallbacks(self._answered, lambda _: None)

    def _answered(self, _: object) -> None:
        self._waiting = False

    def _interval_over(self) -> None:
        self._missed += self._waiting
        if self._missed < MISSED:
            self._beat()
        else:
            self._timer = None
            self._silent()
