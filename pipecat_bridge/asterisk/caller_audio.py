"""The caller's audio on its way to the bot's stream, which never pauses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipecat_bridge.asterisk.caller_time import CallerTime
from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.contracts import AudioSink, PhoneStats


def discard(audio: bytes, rate: int) -> None:
    """Audio that nobody waits for."""


class CallerAudio:
    """Passes the caller's audio on, and fills in silence for what the phone does not send.

    Audio is mono PCM16. `now` is a monotonic clock in seconds.
    """

    __slots__ = ("_now", "_rate", "_sink", "_stats", "_time")

    def __init__(self, hold_after: float, stats: PhoneStats, now: Callable[[], float]) -> None:
        self._stats = stats
        self._now = now
        self._time = CallerTime(hold_after)
        self._sink: AudioSink = discard
        self._rate = 8000  # of the last frame

    def join(self, sink: AudioSink) -> None:
        """Send the audio to `sink` from now on. The caller's time counts from the first sink on."""
        if self._sink is discard:
            self._time.start(self._now())
        self._sink = sink

    def leave(self) -> None:
        """Send it nowhere."""
        self._sink = discard

    def tick(self, now: float) -> None:
        """One tick of the clock: send silence to the bot, if it is due."""
        if missing := self._time.tick(now):
            self._fill(missing)

    def hear(self, pcm: bytes, rate: int) -> None:
        """Take one frame of the phone's."""
        self._stats.frames_in += 1
        if missing := self._time.hear(len(pcm) / (2 * rate), self._now()):
            self._fill(missing)
        self._rate = rate
        self._sink(pcm, rate)

    def hear_held(self, frames: Sequence[bytes], rate: int) -> None:
        """Take frames that were held until it was known what they are, none while it is not.

        Who held them has counted them.
        """
        if missing := self._time.hear(sum(map(len, frames)) / (2 * rate), self._now()):
            self._fill(missing)
        if frames:
            self._rate = rate
        for frame in frames:
            self._sink(frame, rate)

    def _fill(self, frames: int) -> None:
        self._stats.filled_frames += frames
        silence = bytes(frame_bytes(self._rate))
        for _ in range(frames):
            self._sink(silence, self._rate)
