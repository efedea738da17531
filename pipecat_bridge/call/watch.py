"""Warns when a phone or a bot is silent too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.contracts import LinkStats, PhoneStats

PHONE_MUTE: Final = 10.0
"""Seconds from the beginning of a call within which its phone must send audio. A phone on hold may
send nothing, but not from the first moment on."""

BOT_MUTE: Final = 10.0
"""Seconds within which a ready bot must say something, a greeting or an answer."""

NO_ANSWER: Final = 15.0
"""Seconds within which a bot must answer after the caller stopped speaking. The bot itself reports
when the caller stops speaking."""


def _nobody(kind: str, text: str) -> None:
    """Warn nobody."""


class Watch:
    """Calls `warn(kind, text)` for audio that was expected and has not come in time.

    It compares counters at the end of each time limit, so it adds no work for each frame.
    """

    def __init__(self, clock: IReactorTime, warn: Callable[[str, str], None]) -> None:
        self._clock = clock
        self._warn = warn
        self._timers: dict[str, IDelayedCall] = {}

    def expect_phone_audio(self, stats: PhoneStats) -> None:
        """The call begins: expect audio from the phone."""
        text = f"the phone has sent no audio in its first {PHONE_MUTE:g} s"
        self._expect("phone-mute", PHONE_MUTE, lambda: stats.frames_in > 0, text)

    def expect_bot_voice(self, stats: LinkStats) -> None:
        """The bot is ready: expect it to say something."""
        text = f"the bot has said nothing for {BOT_MUTE:g} s since it was ready"
        self._expect("bot-mute", BOT_MUTE, lambda: stats.spoke, text)

    def expect_answer(self, stats: LinkStats) -> None:
        """The caller has stopped speaking: expect an answer of the bot."""
        before = stats.frames_in
        text = f"the bot has sent no audio for {NO_ANSWER:g} s since the caller stopped speaking"
        self._expect("bot-no-answer", NO_ANSWER, lambda: stats.frames_in > before, text)

    def expect_no_answer(self) -> None:
        """The caller speaks: expect no answer meanwhile."""
        self._cancel("bot-no-answer")

    def expect_nothing_of_the_bot(self) -> None:
        """The bot is lost: expect nothing from it."""
        self._cancel("bot-mute")
        self._cancel("bot-no-answer")

    def _expect(self, kind: str, seconds: float, came: Callable[[], bool], text: str) -> None:
        """Warn of `kind` if `came()` is false after `seconds`. Replaces an earlier expectation."""
        self._cancel(kind)
        self._timers[kind] = self._clock.callLater(seconds, self._look, kind, came, text)

    def _cancel(self, kind: str) -> None:
        timer = self._timers.pop(kind, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Expect nothing more. Drop the reference to `warn`, whose owner refers to this object."""
        for kind in list(self._timers):
            self._cancel(kind)
        self._warn = _nobody

    def _look(self, kind: str, came: Callable[[], bool], text: str) -> None:
        del self._timers[kind]
        if not came():
            self._warn(kind, text)
