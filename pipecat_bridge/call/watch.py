"""Looks after a call for what goes wrong without a sign: a side that says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.contracts import LinkStats, PhoneStats

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

    def expect_phone_audio(self, stats: PhoneStats) -> None:
        """The call begins: the phone should send audio."""
        text = f"the phone has sent no audio in its first {PHONE_MUTE:g} s"
        self._expect("phone-mute", PHONE_MUTE, lambda: stats.frames_in > 0, text)

    def expect_bot_voice(self, stats: LinkStats) -> None:
        """The bot is ready: it should say something."""
        text = f"the bot has said nothing for {BOT_MUTE:g} s since it was ready"
        self._expect("bot-mute", BOT_MUTE, lambda: stats.spoke, text)

    def expect_answer(self, stats: LinkStats) -> None:
        """The caller has stopped speaking: the bot should answer."""
        before = stats.frames_in
        text = f"the bot has sent no audio for {NO_ANSWER:g} s since the caller stopped speaking"
        self._expect("bot-no-answer", NO_ANSWER, lambda: stats.frames_in > before, text)

    def expect_no_answer(self) -> None:
        """The caller speaks: the bot should listen."""
        self._cancel("bot-no-answer")

    def expect_nothing_of_the_bot(self) -> None:
        """The bot is lost."""
        self._cancel("bot-mute")
        self._cancel("bot-no-answer")

    def _expect(self, kind: str, seconds: float, came: Callable[[], bool], text: str) -> None:
        """Warn of `kind` if `came()` is not true in `seconds`; replaces an earlier expectation."""
        self._cancel(kind)
        self._timers[kind] = self._clock.callLater(seconds, self._look, kind, came, text)

    def _cancel(self, kind: str) -> None:
        timer = self._timers.pop(kind, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Expect nothing any more, and forget who would be warned."""
        for kind in list(self._timers):
            self._cancel(kind)
        self._warn = _nobody

    def _look(self, kind: str, came: Callable[[], bool], text: str) -> None:
        del self._timers[kind]
        if not came():
            self._warn(kind, text)
