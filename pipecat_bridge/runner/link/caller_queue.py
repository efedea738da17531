"""The caller's audio on its way to a bot that may be slow: bounded, and never late for good."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.contracts import QueueStats

CAUGHT_UP = 5
"""Frames, 0.1 s, that are kept when a bot that reads too slowly is brought back to the present."""


def _ignore(frame: bytes) -> None:
    """Nobody is there to take it."""


class CallerQueue:
    """Sends frames at once while the bot takes them, keeps at most `bound` while it does not.

    A frame that finds the queue full waits up to `push_timeout` seconds for room; then the oldest
    frame of the queue is dropped for it, or with `drop="newest"` itself, and until there is room
    again frames that follow do not wait a second time. A bot that reads, but slower than the caller
    speaks, would stay behind for ever: when the queue has not run empty within `catch_up` seconds
    of sending, all but the last 0.1 s of it is dropped.

    `send(frame)` passes a frame on; `blocked()` says that the bot takes none now, and whoever
    knows that it does again calls `drain`. `in_flight()` are frames that were sent and not yet
    read: they count against the bound, which is on what is late anywhere, but leave the queue room
    for one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        send: Callable[[bytes], None],
        blocked: Callable[[], bool],
        in_flight: Callable[[], int] = lambda: 0,
        bound: int = 150,
        push_timeout: float = 0.05,
        drop: Literal["oldest", "newest"] = "oldest",
        catch_up: float = 1.0,
    ) -> None:
        self._clock = clock
        self._send = send
        self._blocked = blocked
        self._in_flight = in_flight
        self._bound = bound
        self._push_timeout = push_timeout
        self._drop = drop
        self._catch_up = catch_up
        self._frames: deque[tuple[float, bytes]] = deque()  # those that wait for room at the end
        self._timer: IDelayedCall | None = None
        self._timed_out = False  # and there has been no room since
        self._behind_since: float | None = None
        self.stats = QueueStats()

    @property
    def depth(self) -> int:
        """Frames that wait, those that wait for room included."""
        return len(self._frames)

    def push(self, frame: bytes) -> None:
        """Send `frame`, or queue it behind those that wait already."""
        if not self._frames and not self._blocked():
            self.stats.sent += 1
            self._send(frame)
            return
        self._frames.append((self._clock.seconds(), frame))
        if self._timed_out:
            self._drop_excess()
        elif self._timer is None and self._excess() > 0:
            self._timer = self._clock.callLater(self._push_timeout, self._time_out)
        self.stats.depth_max = max(self.stats.depth_max, self.depth)

    def drain(self) -> None:
        """The bot takes frames again: send what waits, oldest first."""
        now = self._clock.seconds()
        if self._frames and not self._blocked():
            self._keep_up(now)
        while self._frames and not self._blocked():
            self._send_oldest(now)
        if self._excess() <= 0:
            self._stop_timer()
        if self._excess() < 0:
            self._timed_out = False
        if not self._frames:
            self._behind_since = None

    def close(self) -> None:
        """Forget everything, counting nothing as dropped; what is pushed from now on is ignored.

        That goes for whom the frames went to as well: both would keep each other in memory.
        """
        self._frames.clear()
        self._stop_timer()
        self._send, self._blocked, self._in_flight = _ignore, lambda: False, lambda: 0

    def _excess(self) -> int:
        """Frames above the bound; below 0 there is room."""
        return len(self._frames) - max(1, self._bound - self._in_flight())

    def _send_oldest(self, now: float) -> None:
        arrived, frame = self._frames.popleft()
        wait = now - arrived
        self.stats.sent += 1
        self.stats.wait_sum += wait
        self.stats.wait_max = max(self.stats.wait_max, wait)
        self._send(frame)

    def _keep_up(self, now: float) -> None:
        if self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since > self._catch_up:
            while len(self._frames) > CAUGHT_UP:
                self._frames.popleft()
                self.stats.dropped += 1
            self._behind_since = None

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        self._timed_out = True
        self._drop_excess()

    def _drop_excess(self) -> None:
        drop_one = self._frames.popleft if self._drop == "oldest" else self._frames.pop
        for _ in range(self._excess()):
            drop_one()
            self.stats.dropped += 1
