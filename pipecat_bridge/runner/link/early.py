"""Keeps what the caller says, and which keys they press, before the bot is ready."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from pipecat_bridge.wire.dialect import Dialect

MAX_MESSAGES: Final = 100
MAX_BYTES: Final = 1 << 18
"""Keys and texts that are kept, and how long they are together; further ones are dropped."""

PIECE: Final = 0.02
"""Seconds. Shorter pieces of audio are put together, if they have the same rate."""

SPARE: Final = 50
"""Pieces that are kept beside the usual ones. A phone changes its rate once, if ever."""


class CallerDigit(NamedTuple):
    """A key that the caller pressed."""

    digit: str

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 1

    def encoded(self, dialect: Dialect) -> list[bytes]:
        """The messages to the bot, in its dialect."""
        return dialect.digit(self.digit)


class CallerText(NamedTuple):
    """Text for the bot, as if the caller had typed it."""

    content: str
    run_immediately: bool
    audio_response: bool

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.content)

    def encoded(self, dialect: Dialect) -> list[bytes]:
        """The messages to the bot, in its dialect."""
        return dialect.text(self.content, self.run_immediately, self.audio_response) or []


CallerMessage = CallerDigit | CallerText


class EarlyAudio:
    """Keeps exactly the last `seconds` of an audio stream. Its rate may change."""

    def __init__(self, seconds: float) -> None:
        self._most = seconds
        self._most_pieces = round(seconds / PIECE) + SPARE
        self._seconds = 0.0
        self._pieces: deque[tuple[bytes, int]] = deque()

    def add(self, pcm: bytes, rate: int) -> None:
        """Add mono PCM16 with `rate` samples per second, and forget what is too old."""
        pieces = self._pieces
        before, before_rate = pieces[-1] if pieces else (b"", 0)
        if before_rate == rate and len(before) < 2 * rate * PIECE:
            pieces[-1] = (before + pcm, rate)
        else:
            pieces.append((pcm, rate))
        self._seconds += len(pcm) / (2 * rate)
        if len(pieces) > self._most_pieces:
            old, old_rate = pieces.popleft()
            self._seconds -= len(old) / (2 * old_rate)
        while pieces:
            old, old_rate = pieces[0]
            excess = round((self._seconds - self._most) * old_rate) * 2
            if excess <= 0:
                return
            self._seconds -= min(excess, len(old)) / (2 * old_rate)
            if excess < len(old):
                pieces[0] = (old[excess:], old_rate)
                return
            pieces.popleft()

    @property
    def pieces(self) -> list[tuple[bytes, int]]:
        """The audio that is kept, as (PCM, rate), oldest first."""
        return list(self._pieces)


class Early:
    """Keeps the caller's last audio, and all keys and texts, until a bot is ready.

    It belongs to the search for a bot. Each attempt sends all of it, because the attempt before may
    have sent it to a bot that failed.
    """

    def __init__(self, seconds: float) -> None:
        self.audio = EarlyAudio(seconds)
        self.messages: list[CallerMessage] = []
        self._bytes = 0

    def add_message(self, message: CallerMessage) -> bool:
        """Keep a key or a text; False if there is no room for it."""
        if len(self.messages) >= MAX_MESSAGES or self._bytes + message.size > MAX_BYTES:
            return False
        self.messages.append(message)
        self._bytes += message.size
        return True
