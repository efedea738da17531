"""Hears both sides of a call at the phone, for what is measured and for what is recorded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.audio.pcm import SAMPLE
from pipecat_bridge.audio.tap import Tap
from pipecat_bridge.call.speech import Conversation
from pipecat_bridge.contracts import AudioSink


class Monitor:
    """Both sides of one call on one grid. What comes in a second is looked at together.

    `take`, if it is set, gets both sides as `Tap` tells them, and their rate in samples per second.
    """

    __slots__ = ("_rate", "_tap", "conversation", "take")

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.take: Callable[[bytes, bytes, int], None] | None = None
        self._rate = 0
        self._tap: Tap | None = None

    def beside(self, sink: AudioSink) -> AudioSink:
        """A sink that gives the caller's audio to `sink`, and to this as well."""

        def heard(pcm: bytes, rate: int) -> None:
            tap = self._tap
            if tap is not None and rate == self._rate:
                tap.hear(pcm)
            sink(pcm, rate)

        return heard

    def sent(self, frame: bytes | None, rate: int) -> None:
        """A frame was sent to the phone."""
        tap = self._tap
        if tap is None or rate != self._rate:
            tap = self._begin(rate)
        tap.tick(frame)

    def _begin(self, rate: int) -> Tap:
        """The phone has another rate than before, or none before."""
        self.close()
        self._rate = rate
        self._tap = tap = Tap(rate, self._take)
        return tap

    def _take(self, caller: bytes, phone: bytes) -> None:
        size = frame_bytes(self._rate)
        hear = self.conversation.hear
        for levels in zip(_levels(caller, size), _levels(phone, size), strict=True):
            hear(*levels)
        if self.take is not None:
            self.take(caller, phone, self._rate)

    def close(self) -> None:
        """Look at the rest. After it, this may go on."""
        tap, self._tap = self._tap, None
        if tap is not None:
            tap.close()


def _levels(pcm: bytes, size: int) -> list[float]:
    """The mean absolute sample of each frame of `size` bytes."""
    samples = np.frombuffer(pcm, SAMPLE).reshape(-1, size // 2)
    levels: list[float] = np.abs(samples.astype(np.float32)).mean(axis=1).tolist()
    return levels
