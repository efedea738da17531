"""Looks after a call for what goes wrong without a sign: a side that says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

PHONE_MUTE: Final = 10.0
"""Seconds from the beginning in which a phone must have sent audio. A caller on hold may pause, but
not from the first moment on."""

BOT_MUTE: Final = 10.0
"""Seconds in which a ready bot must have said something, greeting or answer."""

NO_ANSWER: Final = 15.0
"""Seconds that a bot has to answer when the caller has stopped speaking, as the bot itself told."""


def _nobody(kind: str, text: str) -> None:
    """Nobody is warned."""


class Watch:
    """Calls `warn(kind, text)` for what was expected and has not come. Counters are compared when
    the time is over, so nothing of this is on the frames' way."""

    def __init__(self, clock: IReactorTime, warn: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._warn = warn
        self._timers: dict[str, IDelayedCall] = {}

    def expect(self, kind: str, seconds: float, came: Callable[[], bool], text: str) -> None:
        """Warn of `kind` if `came()` is not true in `seconds`; replaces an earlier expectation."""
        self.cancel(kind)
        self._timers[kind] = self._clock.callLater(seconds, self._look, kind, came, text)

    def cancel(self, kind: str) -> None:
        """Expect it no more."""
        timer = self._timers.pop(kind, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Expect nothing any more, and forget who would be warned."""
        for kind in list(self._timers):
            self.cancel(kind)
        self._warn = _nobody

    def _look(self, kind: str, came: Callable[[], bool], text: str) -> None:
        del self._timers[kind]
        if not came():
            self._warn(kind, text)
