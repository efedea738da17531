"""What becomes of the audio behind Asterisk: it neither paces nor pushes back."""

from __future__ import annotations

from collections import deque

MOST_WAITING = 96
LOST_AT_ONCE = 64


class FarEnd:
    """Plays frames out one after the other, as the far side of a Local channel does.

    96 frames may wait; at the 97th the oldest 64 are lost, which is written to `faults`.
    `lead` is the number of frames that wait behind the one being played, `lead_max` the highest
    seen: audio that cannot be taken back. `holes` are (when, seconds) in which nothing was left to
    play.
    """

    def __init__(self, faults: list[str]) -> None:
        self._faults = faults
        self._waiting: deque[float] = deque()
        self._free_at: float | None = None  # when the frame being played ends
        self.lead_max = 0
        self.lost = 0
        self.holes: list[tuple[float, float]] = []

    def arrive(self, now: float, duration: float) -> None:
        """A frame of `duration` seconds came at `now`."""
        self._play_until(now)
        if self._free_at is not None and now - self._free_at > 1e-6:
            self.holes.append((self._free_at, now - self._free_at))
        self._waiting.append(duration)
        if self._free_at is None or self._free_at < now:
            self._free_at = now
        self._play_until(now)
        self.lead_max = max(self.lead_max, len(self._waiting))
        if len(self._waiting) > MOST_WAITING:
            self._overflow()

    def lead(self, now: float) -> int:
        """Frames that wait at `now`."""
        self._play_until(now)
        return len(self._waiting)

    def _play_until(self, now: float) -> None:
        while self._waiting and self._free_at is not None and self._free_at <= now + 1e-9:
            self._free_at += self._waiting.popleft()

    def _overflow(self) -> None:
        for _ in range(LOST_AT_ONCE):
            self._waiting.popleft()
        self.lost += LOST_AT_ONCE
        self._faults.append(
            f"{MOST_WAITING + 1} frames waited at the far end: the oldest {LOST_AT_ONCE} were lost"
        )
