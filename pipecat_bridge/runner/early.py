"""What the caller said before the bot was ready: the last of it is kept."""

from __future__ import annotations

from collections import deque


class EarlyAudio:
    """The last `seconds` of a stream, to the sample; its rate may change."""

    def __init__(self, seconds: float) -> None:
        self._most = seconds
        self._seconds = 0.0
        self._pieces: deque[tuple[bytes, int]] = deque()

    def add(self, pcm: bytes, rate: int) -> None:
        """Keep mono PCM16 at `rate`, and forget what is too old by now."""
        pieces = self._pieces
        pieces.append((pcm, rate))
        self._seconds += len(pcm) / (2 * rate)
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

    def take(self) -> list[tuple[bytes, int]]:
        """All that is kept, as (PCM, rate), oldest first; then nothing is."""
        taken = list(self._pieces)
        self._pieces.clear()
        self._seconds = 0.0
        return taken
