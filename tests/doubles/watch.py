"""Waiting for a condition of a double, so that no test has to sleep."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred


class Watched:
    """Mixin of the doubles: `until` gives a Deferred for a condition on what was received."""

    _over: str | None = None
    _waiting: list[tuple[Callable[[], object], Deferred[None]]]

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Fire when `condition` holds; fail when the double ended and it can no longer come true.

        The condition is asked again after everything that the double receives.
        """
        waiter: Deferred[None] = Deferred()
        self._waiters().append((condition, waiter))
        self.changed()
        return waiter

    def changed(self) -> None:
        """Ask all waiting conditions again."""
        for entry in list(self._waiters()):
            condition, waiter = entry
            if condition():
                self._waiting.remove(entry)
                waiter.callback(None)
            elif self._over is not None:
                self._waiting.remove(entry)
                waiter.errback(AssertionError(f"the awaited did not happen: {self._over}"))

    def over(self, why: str) -> None:
        """Nothing more will be received, for the reason `why`."""
        self._over = why
        self.changed()

    def _waiters(self) -> list[tuple[Callable[[], object], Deferred[None]]]:
        if "_waiting" not in self.__dict__:
            self._waiting = []
        return self._waiting
