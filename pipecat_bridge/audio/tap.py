"""Both sides of a call on one grid: what the caller has sent, and what was sent to the phone.

The phone's frames come at each tick of the bridge's clock. The caller's come when they come: some
late, some in bursts, and by a clock of their own. So what the phone got waits for the caller's
audio of the same time, for a second at most, and the caller's clock is followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from pipecat_bridge.audio.frame import FRAMES_PER_SECOND, frame_bytes
from pipecat_bridge.audio.pcm import SAMPLE

LONGEST_WAIT: Final = FRAMES_PER_SECOND
"""Ticks for which a side waits for the other one."""

WINDOW: Final = FRAMES_PER_SECOND
"""Ticks in which the caller's audio must have been in time once."""

AHEAD: Final = 1
BEHIND: Final = 2
"""Frames by which the caller's audio may be ahead of the ticks or behind them, at its best in a
window. It is as much behind as the network takes; it is ahead if its clock is fast."""

Take = Callable[[bytes, bytes], None]
"""Takes what the caller has sent, and what the phone was sent in the same time, in whole frames of
mono PCM16."""


class Tap:
    """Puts both sides of a call together, from now on, at `rate` samples per second.

    `padded` and `left_out`: frames of silence that were put into the caller's side, and frames of
    it that were left out, so that it stays on the grid.
    """

    __slots__ = ("_best", "_caller", "_frame", "_phone", "_take", "_ticks", "left_out", "padded")

    def __init__(self, rate: int, take: Take) -> None:
        self._frame = frame_bytes(rate)
        self._take = take
        self._caller = bytearray()
        self._phone = bytearray()
        self._ticks = 0  # of this window
        self._best = -LONGEST_WAIT * self._frame  # bytes that the caller was ahead, at its best
        self.padded = 0
        self.left_out = 0

    def hear(self, pcm: bytes) -> None:
        """Take audio of the caller, as it is sent to the bot."""
        self._caller += pcm

    def tick(self, frame: bytes | None) -> None:
        """Take a frame as it is sent to the phone, None for silence; or the silence in place of
        several frames that were not sent."""
        self._phone += frame or bytes(self._frame)
        self._best = max(self._best, len(self._caller) - len(self._phone))
        self._ticks += 1
        if self._ticks == WINDOW:
            self._follow()
            self._pass_on()

    def _follow(self) -> None:
        """Bring the caller's side back to the grid, by whole frames."""
        frames = self._best / self._frame
        if frames > AHEAD:
            count = int(frames)
            del self._caller[: count * self._frame]
            self.left_out += count
        elif frames < -BEHIND:
            count = int(-frames) - BEHIND + 1
            self._caller += bytes(count * self._frame)
            self.padded += count
        self._ticks, self._best = 0, -LONGEST_WAIT * self._frame

    def _pass_on(self) -> None:
        size = min(len(self._caller), len(self._phone)) // self._frame * self._frame
        if size:
            self._take(_cut(self._caller, size), _cut(self._phone, size))

    def close(self) -> None:
        """Pass on the rest: silence in place of what a side has not sent."""
        size = -(-max(len(self._caller), len(self._phone)) // self._frame) * self._frame
        for side in (self._caller, self._phone):
            side += bytes(size - len(side))
        self._pass_on()


def _cut(side: bytearray, size: int) -> bytes:
    """The first `size` bytes, which are taken away."""
    with memoryview(side) as view:
        audio = bytes(view[:size])
    del side[:size]
    return audio


def interleaved(caller: bytes, phone: bytes) -> bytes:
    """Stereo PCM16 of two sides of the same length: the caller is left, the bot is right."""
    stereo = np.empty((len(caller) // 2, 2), SAMPLE)
    stereo[:, 0] = np.frombuffer(caller, SAMPLE)
    stereo[:, 1] = np.frombuffer(phone, SAMPLE)
    return stereo.tobytes()
