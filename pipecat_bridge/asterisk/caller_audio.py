"""The caller's audio on its way to the bot. The bot's stream has no pauses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipecat_bridge.asterisk.caller_time import CallerTime
from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.contracts import AudioSink, PhoneStats


def discard(audio: bytes, rate: int) -> None:
    """Drop the audio: no bot is joined."""


class CallerAudio:
    """Passes the caller's audio on, and sends silence while the phone sends nothing.

    Audio is mono PCM16. `now` is a monotonic clock in seconds.
    """

    __slots__ = ("_now", "_rate", "_sink", "_stats", "_time")

    def __init__(self, hold_after: float, stats: PhoneStats, now: Callable[[], float]) -> None:
        self._stats = stats
        self._now = now
        self._time = CallerTime(hold_after)
        self._sink: AudioSink = discard
        self._rate = 8000  # Hz, of the last frame

    def join(self, sink: AudioSink) -> None:
        """Send the audio to `sink` from now on. With the first sink the caller's time begins."""
        if self._sink is discard:
            self._time.start(self._now())
        self._sink = sink

    def leave(self) -> None:
        """Drop the caller's audio from now on."""
        self._sink = discard

    def tick(self, now: float) -> None:
        """Send silence to the bot if it is due. Called at each tick of the clock."""
        if missing := self._time.tick(now):
            self._fill(missing)

    def hear(self, pcm: bytes, rate: int) -> None:
        """Pass on one frame from the phone: PCM16 at `rate` Hz."""
        self._stats.frames_in += 1
        self._time.hear(len(pcm) / (2 * rate), self._now())
        self._rate = rate
        self._sink(pcm, rate)

    def hear_held(self, frames: Sequence[bytes], rate: int) -> None:
        """Pass on frames that were held until their format was known; none while it is unknown.

        The caller of this method has counted them in `frames_in`.
        """
        self._time.hear(sum(map(len, frames)) / (2 * rate), self._now())
        if frames:
            self._rate = rate
        for frame in frames:
            self._sink(frame, rate)

    def _fill(self, frames: int) -> None:
        self._stats.filled_frames += frames
        silence = bytes(frame_bytes(self._rate))
        for _ in range(frames):
            self._sink(silence, self._rate)
