"""Sends what a bot says as real bots do: in chunks, on its own clock, with jitter and stalls."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from pipecat_bridge.tools.load import protobuf, websocket
from pipecat_bridge.tools.load.loop import Loop
from pipecat_bridge.tools.load.patterns import Pattern

_KEPT: Final = 512  # encoded chunks; most are equal to one before


class Said(NamedTuple):
    """A mark that waits to be said. `heard`: when the bot heard it, in seconds of the monotonic
    clock. `sample`: its position in the bot's stream."""

    number: int
    heard: float
    sample: int


class Mouth:
    """Says PCM16 at `rate` Hz in messages of `pattern.chunk` seconds.

    A message is sent when its audio is complete, but not before the one before it has been said to
    its end: so Pipecat's output transport paces itself. `send` gets WebSocket frames. `marked` is
    called for each mark with the time at which it was sent.
    """

    def __init__(
        self,
        loop: Loop,
        pattern: Pattern,
        rate: int,
        random: Random,
        send: Callable[[bytes], None],
        marked: Callable[[Said, float], None],
    ) -> None:
        self._loop = loop
        self._pattern = pattern
        self._rate = rate
        self._random = random
        self._send = send
        self._marked = marked
        self._size = round(pattern.chunk * rate) * 2
        self._waiting = b""
        self._marks: deque[Said] = deque()
        self._begun = time.monotonic()
        self._next = 0.0  # when the last message will have been said
        self._last = 0.0  # when it arrives
        self._samples = 0  # that were said
        self._planned = 0  # chunks; none may overtake them
        self._encoded: dict[bytes, bytes] = {}

    def say(self, pcm: bytes, marks: Sequence[Said]) -> None:
        """Say `pcm` with its `marks` after all that waits."""
        if marks:
            self._marks.extend(marks)
        waiting, size = self._waiting + pcm, self._size
        while len(waiting) >= size:
            self._plan(waiting[:size])
            waiting = waiting[size:]
        self._waiting = waiting

    def _plan(self, chunk: bytes) -> None:
        now = time.monotonic()
        due = max(now, self._next)
        self._next = due + self._pattern.chunk
        first, self._samples = self._samples, self._samples + self._size // 2
        if not self._pattern.speaks(due - self._begun):
            return
        at = self._begun + self._pattern.delayed(due - self._begun, self._random)
        self._last = at = max(at, self._last)
        if at <= now and not self._planned:
            self._say(chunk, first)
        else:
            self._planned += 1
            self._loop.at(at, lambda: self._say_planned(chunk, first))

    def _say_planned(self, chunk: bytes, first: int) -> None:
        self._planned -= 1
        self._say(chunk, first)

    def _say(self, chunk: bytes, first: int) -> None:
        frame = self._encoded.get(chunk)
        if frame is None:
            frame = websocket.masked(protobuf.audio_frame(chunk, self._rate))
            if len(self._encoded) < _KEPT:
                self._encoded[chunk] = frame
        self._send(frame)
        now = time.monotonic()
        while self._marks and self._marks[0].sample < first + self._size // 2:
            mark = self._marks.popleft()
            if mark.sample >= first:  # else it fell into a pause
                self._marked(mark, now + (mark.sample - first) / self._rate)
