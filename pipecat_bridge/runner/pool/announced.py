"""The address of a runner that is started by us, which is known once it listens."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed


class AnnouncedAddress:
    """Its base URL, told by `announce`; empty while it does not run."""

    def __init__(self) -> None:
        self.base = ""
        self._waiting: list[Deferred[str]] = []

    def url(self) -> Deferred[str]:
        """The base URL, when it is known; may be cancelled."""
        if self.base:
            return succeed(self.base)
        deferred: Deferred[str] = Deferred(self._waiting.remove)
        self._waiting.append(deferred)
        return deferred

    def refused(self, base: str) -> bool:
        """It has ended, though nobody has told us yet: wait for the next one."""
        if self.base == base:
            self.base = ""
        return True

    def announce(self, base: str) -> None:
        """It listens there, or with an empty `base` not any more."""
        self.base = base
        if base:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(base)
