"""What went wrong in a call that went on: told once for each kind, and counted."""

from __future__ import annotations

from collections import Counter
from typing import Final

KINDS: Final[dict[str, str]] = {
    "phone-mute": "the phone sends no audio",
    "unknown-message": "an AudioSocket message of a kind that is not known was skipped",
    "odd-frame": "an audio frame of the phone with an odd number of bytes was dropped",
    "bad-digit": "a DTMF digit that does not exist was dropped",
    "codec-guess": "what the phone sends as 8 kHz audio is another codec, which had to be guessed",
    "bot-late": "the bot said that it is ready only after it had been taken for ready",
    "bot-mute": "the bot has said nothing since it was ready",
    "bot-no-answer": "the bot has said nothing since the caller stopped speaking",
    "bot-error": "the bot reports an error",
    "bad-message": "a message of the bot cannot be used",
    "bad-command": "a command of the bot cannot be carried out",
    "metadata": "what the call was prepared with looks wrong",
    "prepared-late": "the call came after what was prepared for it had expired",
}
"""Kind of a warning -> what it says."""

TOLD: Final = {"bad-command": 20}
"""Kinds that are told more often than once in a call: each wrong command is another mistake."""


class Warnings:
    """The warnings of one call; `counts` by kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, kind: str) -> bool:
        """Count one of KINDS; True when it is to be told."""
        self.counts[kind] += 1
        return self.counts[kind] <= TOLD.get(kind, 1)
