"""The address of a runner that the bridge starts. It is known when the runner listens."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed


class AnnouncedAddress:
    """The base URL that `announce` was given; "" while the runner does not listen."""

    def __init__(self) -> None:
        self.base = ""
        self._waiting: list[Deferred[str]] = []

    def url(self) -> Deferred[str]:
        """Fires with the base URL when it is known. The Deferred may be cancelled."""
        if self.base:
            return succeed(self.base)
        deferred: Deferred[str] = Deferred(self._waiting.remove)
        self._waiting.append(deferred)
        return deferred

    def refused(self, base: str) -> bool:
        """Forget `base`: the runner has ended, and will announce another URL. Always True."""
        if self.base == base:
            self.base = ""
        return True

    def announce(self, base: str) -> None:
        """Set the base URL; "" if the runner does not listen any more."""
        self.base = base
        if base:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(base)
