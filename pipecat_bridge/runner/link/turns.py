"""Takes what is much work a little in each turn of the loop, so that no other call waits for it.

A WebSocket message may be megabytes of audio, and what a bot sent before it was ready may be tens
of thousands of messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.audio.pcm import without_header
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.wire.frames import Audio, BotFrame

BUDGET: Final = 65536
"""Bytes that are taken in one turn: about a millisecond's work."""

PER_FRAME: Final = 1024
"""Bytes that are as much work as a frame without audio."""


def weigh(frame: BotFrame, playout: Playout) -> int:
    """How much work a frame is, in bytes. A filter for a new sample rate is the work of a turn."""
    if not isinstance(frame, Audio):
        return PER_FRAME
    audio, rate, _ = frame
    if audio.startswith(b"RIFF"):
        audio, rate, _ = without_header(*frame)
    return PER_FRAME + len(audio) + (BUDGET if rate != playout.bot_rate else 0)


class Turns:
    """Gives `take` frames in their order, and in each turn of the loop so many as `BUDGET` allows.

    `hold` is called with True when frames begin to wait, and with False when none does any more.
    """

    __slots__ = ("_clock", "_done", "_frames", "_hold", "_next", "_playout", "_take")

    def __init__(
        self,
        clock: IReactorTime,
        playout: Playout,
        take: Callable[[BotFrame], None],
        hold: Callable[[bool], None],
    ) -> None:
        self._clock = clock
        self._playout = playout
        self._take = take
        self._hold = hold
        self._frames: deque[BotFrame] = deque()
        self._next: IDelayedCall | None = None
        self._done: Callable[[], None] | None = None

    def waits(self, frame: BotFrame) -> bool:
        """Whether `frame` has to be added: others wait, or it is the work of more than a turn."""
        return bool(self._frames) or weigh(frame, self._playout) > BUDGET

    def add(self, frames: Iterable[BotFrame]) -> None:
        """Take some of the frames now, and the others later."""
        self._frames.extend(frames)
        if self._next is None:
            self._work()
            if self._frames:
                self._hold(True)

    def _work(self) -> None:
        self._next = None
        left = BUDGET
        while self._frames and left > 0:
            frame = self._frames.popleft()
            if isinstance(frame, Audio) and len(frame.audio) > BUDGET:
                self._frames.extendleft(reversed(_pieces(frame)))
                continue
            left -= weigh(frame, self._playout)
            self._take(frame)
        if self._frames:
            self._next = self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._work()
        if not self._frames:
            self._hold(False)
            if self._done is not None:
                self._done()

    def finish(self, done: Callable[[], None]) -> None:
        """Call `done` when all that waits has been taken: nothing more will come."""
        if self._frames:
            self._done = done
        else:
            done()

    def close(self) -> None:
        """Forget what waits, and the call."""
        self._frames.clear()
        self._take = self._hold = _forget
        self._done = None
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._next = None


def _forget(_: object) -> None:
    """The call is over."""


def _pieces(frame: Audio) -> list[BotFrame]:
    audio, rate, channels = without_header(*frame)
    starts = range(0, len(audio), BUDGET)
    return [Audio(audio[start : start + BUDGET], rate, channels) for start in starts]
