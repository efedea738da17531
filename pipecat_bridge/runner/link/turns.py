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
from pipecat_bridge.wire.frames import Audio, BotFrame, Message, Text, Transcription

BUDGET: Final = 65536
"""Bytes that are taken in one turn: about a millisecond's work."""

PER_FRAME: Final = 1024
"""Bytes of audio that are as much work as any frame, however short."""

PER_CHARACTER: Final = 8
"""Bytes of audio that are as much work as a character of JSON."""


class Turns:
    """Gives `take` frames in their order, and in each turn of the loop so many as `BUDGET` allows.

    `busy`: frames have to be added, as others wait or enough was done in this turn. A frame of more
    than `BUDGET` bytes has to be added as well. `playout` says when the bot's sample rate is a new
    one, and to make a filter for it is the work of a turn. `hold` is called with True when `busy`
    begins, and with False when it ends.
    """

    __slots__ = (
        "_clock",
        "_done",
        "_frames",
        "_held",
        "_hold",
        "_left",
        "_next",
        "_playout",
        "_take",
        "busy",
    )

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
        self._held = False
        self._frames: deque[BotFrame] = deque()
        self._left = 0  # of the budget of this turn
        self._next: IDelayedCall | None = None
        self._done: Callable[[], None] | None = None
        self.busy = False

    def begin(self, frames: Iterable[BotFrame]) -> None:
        """Take what the bot sent before it was ready. From now on it is the bot that is heard."""
        self._playout.on_new_rate = self.rest
        self.add(frames)

    def add(self, frames: Iterable[BotFrame]) -> None:
        """Take some of the frames now, and the others later."""
        self._frames.extend(frames)
        if not self.busy:
            self._work()

    def rest(self) -> None:
        """What was just taken is the work of a turn. A filter for a new sample rate is."""
        self._left = 0
        if not self.busy:
            self._wait()

    def _wait(self) -> None:
        self.busy = True
        self._next = self._clock.callLater(0, self._work)
        if not self._held:
            self._held = True
            self._hold(True)

    def _work(self) -> None:
        self._next = None
        self.busy = True
        self._left = BUDGET
        while self._frames and self._left > 0:
            frame = self._frames.popleft()
            self._left -= PER_FRAME
            if isinstance(frame, Audio):
                if len(frame.audio) > BUDGET:
                    self._frames.extendleft(reversed(_pieces(frame)))
                    continue
                self._left -= len(frame.audio)
            elif isinstance(frame, Message | Text | Transcription):
                self._left -= PER_CHARACTER * len(frame[0])
            self._take(frame)
        if self._take is _forget:
            return
        if self._frames or self._left <= 0:
            self._wait()
            return
        self.busy = False
        if self._held:
            self._held = False
            self._hold(False)
        if self._done is not None:
            self._done()

    def finish(self, done: Callable[[], None]) -> None:
        """Call `done` when all that waits has been taken: nothing more will come."""
        if self.busy:
            self._done = done
        else:
            done()

    def close(self) -> None:
        """Forget what waits, and the call."""
        self._frames.clear()
        self._take = self._hold = _forget
        self._done = None
        if self._playout.on_new_rate == self.rest:  # else another bot is heard
            del self._playout.on_new_rate
        del self._playout
        self.busy = False
        if self._next is not None:
            self._next.cancel()
        self._next = None


def _forget(_: object) -> None:
    """The call is over."""


def _pieces(frame: Audio) -> list[BotFrame]:
    audio, rate, channels = without_header(*frame)
    starts = range(0, len(audio), BUDGET)
    return [Audio(audio[start : start + BUDGET], rate, channels) for start in starts]
