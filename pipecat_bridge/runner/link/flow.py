"""How far a bot has read: pings in the stream of audio, and the pongs that come back.

The kernels of both sides hide seconds of audio from a sender (1.7 s at 16 kHz were measured on
loopback with every buffer set small), and a bot whose loop hangs stops reading without any sign.
A ping after every so many frames is answered only when the bot has read up to it (RFC 6455,
section 5.5.2), whatever lies between.
"""

from __future__ import annotations

from collections.abc import Callable

PING_EVERY = 10
"""Frames of audio between two pings: 0.2 s."""

_MAGIC = b"flow"


def _ignore(payload: bytes) -> None:
    """Nobody is there to be asked."""


class FlowWindow:
    """Counts the frames that the bot has not yet been seen to read.

    Until the first pong nothing is limited: a peer that never answers pings is not held up. `ask`
    before the first frame makes sure that one that does is limited from the beginning.

    A bot that reads on always opens the window again: it is at least twice as wide as pings are
    apart, so the last ping before it closed acknowledges all but the last few frames. A peer may
    answer only the newest of several pings (RFC 6455, section 5.5.3); so every other ping on the
    same socket has to carry `progress` as well.
    """

    __slots__ = ("_acknowledged", "_answers", "_limit", "_ping", "_sent")

    def __init__(self, limit: int, ping: Callable[[bytes], None]) -> None:
        self._limit = max(limit, 2 * PING_EVERY)
        self._ping = ping
        self._sent = 0
        self._acknowledged = 0
        self._answers = False

    @property
    def closed(self) -> bool:
        """True while more than the limit is on its way."""
        return self._answers and self._sent - self._acknowledged >= self._limit

    @property
    def in_flight(self) -> int:
        """Frames sent after the last ping that was answered."""
        return self._sent - self._acknowledged if self._answers else 0

    @property
    def progress(self) -> bytes:
        """The payload of a ping that acknowledges everything sent so far."""
        return _MAGIC + self._sent.to_bytes(8, "big")

    def close(self) -> None:
        """Send no pings any more, and forget through whom."""
        self._ping = _ignore

    def ask(self) -> None:
        """Send a ping."""
        self._ping(self.progress)

    def sent(self) -> None:
        """One frame of audio was sent."""
        self._sent += 1
        if self._sent % PING_EVERY == 0:
            self.ask()

    def pong(self, payload: bytes) -> bool:
        """Take a pong's payload; True when it is one of ours and not older than those before."""
        if len(payload) != 12 or not payload.startswith(_MAGIC):
            return False
        count = int.from_bytes(payload[4:], "big")
        if not self._acknowledged <= count <= self._sent:
            return False
        self._acknowledged = count
        self._answers = True
        return True

    def lose_sight(self) -> None:
        """Pongs cannot be read for now: nothing is limited until the next one comes."""
        self._answers = False
