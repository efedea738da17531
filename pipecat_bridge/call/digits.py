"""DTMF digits that a bot plays to the phone."""

from __future__ import annotations

from functools import partial
from typing import Final

from pipecat_bridge.audio import tones
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.wire.commands import CommandError

MAX_DIGITS: Final = 200
"""Most digits that may wait to be played: 40 s of tones, or 200 s of the longest pauses."""


class Digits:
    """Plays the digits of one call, after the audio that the bot sent before them."""

    def __init__(self, playout: Playout) -> None:
        self._playout = playout
        self._waiting = 0

    def play(self, digits: str) -> None:
        """Play `digits`, which may have pauses in it. Raises CommandError if too many wait."""
        if self._waiting + len(digits) > MAX_DIGITS:
            raise CommandError(
                f"a play_dtmf command of {len(digits)} digits while {self._waiting} wait to be"
                f" played: expected up to {MAX_DIGITS} in all"
            )
        self._waiting += len(digits)
        for digit in digits:  # if the phone changes its rate, only one digit has to be converted
            self._playout.mark(partial(self._interject, digit))

    def _interject(self, digit: str) -> None:
        """Play `digit` now: the audio and the digits before it have been played or dropped."""
        self._waiting -= 1
        self._playout.interject(tones.dtmf(digit, self._playout.rate))
