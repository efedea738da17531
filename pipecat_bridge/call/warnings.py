"""Warnings: what went wrong in a call that goes on. Each kind is reported once, and counted."""

from __future__ import annotations

from collections import Counter
from typing import Final

KINDS: Final[dict[str, str]] = {
    "phone-mute": "the phone has sent no audio since the call began",
    "unknown-message": "an AudioSocket message of an unknown kind was skipped",
    "odd-frame": "an audio frame of the phone with an odd number of bytes was dropped",
    "bad-digit": "a DTMF digit that does not exist was dropped",
    "keys-dropped": "the phone sent more keys than a caller can press; some were dropped",
    "codec-guess": "the phone sends another codec as 8 kHz audio; the bridge guessed which one",
    "bot-late": "the bot said that it is ready when it counted as ready already",
    "bot-mute": "the bot has said nothing since it was ready",
    "bot-no-answer": "the bot has sent no audio since the caller stopped speaking",
    "bot-error": "the bot reports an error",
    "queue-full": "the bot sent audio too far ahead, and some of it was dropped",
    "not-read": "a key for the bot was dropped, as the bot does not read what waits for it",
    "bad-message": "the bridge cannot use a message of the bot",
    "bad-command": "the bridge cannot carry out a command of the bot",
    "recording": "the recording is incomplete",
    "metadata": "the data with which the call was prepared looks wrong",
    "prepared-late": "the call came after its prepared data had expired",
}
"""Kind of a warning -> what it means."""

TOLD: Final = {"bad-command": 20}
"""Kind -> how often it is reported in a call, if more than once. Each wrong command is another
mistake of the bot's author."""


class Warnings:
    """The warnings of one call, counted by kind in `counts`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, kind: str) -> bool:
        """Count one of KINDS; return True if this one is to be reported."""
        self.counts[kind] += 1
        return self.counts[kind] <= TOLD.get(kind, 1)
