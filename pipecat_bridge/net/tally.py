"""Counts things that are under way, and tells when the count is zero."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed


class Tally:
    """`enter` and `leave` count; `idle` fires at zero."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[Deferred[None]] = []

    def enter(self) -> None:
        """Add one."""
        self.count += 1

    def leave(self) -> None:
        """Subtract one."""
        self.count -= 1
        if self.count == 0:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def idle(self) -> Deferred[None]:
        """Fires when the count is zero. The Deferred may be cancelled."""
        if self.count == 0:
            return succeed(None)
        deferred: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(deferred)
        return deferred
