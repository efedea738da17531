"""The playout queue: bot audio of any shape in, one frame of the call's audio out each tick.

Time is given with each call, in seconds of a monotonic clock; there is none in here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipecat_bridge.audio.pcm import SampleCarry, mix_down, strip_riff
from pipecat_bridge.audio.resample import Resampler, make_resampler

FRAMES_PER_SECOND = 50
FRAME_MS = 1000 // FRAMES_PER_SECOND

PAUSE = 0.3
"""Audio that comes later than this, in seconds, after the queue ran dry is a new utterance.

What comes sooner was missing in the midst of one: an underrun.
"""

STEP = 0.02
"""By how much the prebuffer grows and shrinks, in seconds: one frame."""

CALM = 10.0
"""Seconds of playing without an underrun after which the prebuffer shrinks by a step."""


@dataclass(slots=True)
class PlayoutStats:
    """What happened to the bot's audio; milliseconds unless it says otherwise."""

    frames_played: int = 0
    underruns: int = 0
    underrun_ms: float = 0.0
    flushes: int = 0
    flushed_ms: int = 0
    depth_max_ms: int = 0
    delay_sum: float = 0.0
    delay_max: float = 0.0
    prebuffer_ms: float = 0.0
    filter_ms: float = 0.0

    @property
    def delay_mean(self) -> float:
        """Mean wait of a frame from arrival to the phone."""
        return self.delay_sum / self.frames_played if self.frames_played else 0.0


class Playout:
    """Bounded, adaptive, flushed in constant time.

    The first frames of an utterance wait until `prebuffer` seconds are there or have passed; an
    underrun makes the prebuffer grow by its length, up to `max_prebuffer`, calm lets it shrink
    again. `full` is true above `max_queue` seconds: the writer stops reading from the bot then.
    Nothing that was written is ever cut but by `flush`.
    """

    def __init__(
        self,
        rate: int = 8000,
        prebuffer: float = 0.04,
        max_prebuffer: float = 0.2,
        max_queue: float = 60.0,
        resampler: str = "fir",
    ) -> None:
        self.stats = PlayoutStats(prebuffer_ms=prebuffer * 1000)
        self._kind = resampler
        self._least = self._prebuffer = prebuffer
        self._most = max(prebuffer, max_prebuffer)
        self._max_frames = int(max_queue * FRAMES_PER_SECOND)
        self._frames: deque[bytes] = deque()
        self._arrivals: deque[float] = deque()
        self._rest = b""  # less than a frame, at the end of the queue
        self._playing = False
        self._calm_since = 0.0
        self._dry_since: float | None = None
        self._first_arrival = 0.0
        self._resampler: Resampler | None = None
        self._carry = SampleCarry()
        self._set_rate(rate)

    def _set_rate(self, rate: int) -> None:
        self.rate = rate
        self._frame_bytes = rate // FRAMES_PER_SECOND * 2
        self.silence = bytes(self._frame_bytes)

    def set_rate(self, rate: int) -> None:
        """Play at `rate` samples per second from now on; what waits is converted."""
        if rate == self.rate:
            return
        waiting = b"".join(self._frames) + self._rest
        arrival = self._arrivals[0] if self._arrivals else 0.0
        converted = make_resampler(self.rate, rate, self._kind).process(waiting)
        self._frames.clear()
        self._arrivals.clear()
        self._rest = b""
        self._resampler = None
        self._set_rate(rate)
        self._append(converted, arrival)

    @property
    def depth(self) -> float:
        """Seconds of audio that wait."""
        return len(self._frames) / FRAMES_PER_SECOND

    @property
    def full(self) -> bool:
        """True when no more should be read from the bot."""
        return len(self._frames) >= self._max_frames

    @property
    def empty(self) -> bool:
        """True when everything was played."""
        return not self._frames and not self._rest

    def write(self, audio: bytes, rate: int, channels: int, now: float) -> None:
        """Queue one frame of the bot's: PCM16 of any length and rate, RIFF header or not.

        Raises ValueError for a rate or a number of channels that cannot be.
        """
        if audio.startswith(b"RIFF"):
            audio, rate, channels = _without_header(audio, rate, channels)
        audio = self._carry.join(audio, channels)
        if channels > 1:
            audio = mix_down(audio, channels)
        if rate != self.rate:
            audio = self._resample(audio, rate)
        if self.empty:
            self._begin(now)
        self._append(audio, now)

    def _resample(self, audio: bytes, rate: int) -> bytes:
        resampler = self._resampler
        if resampler is None or resampler.rate_in != rate or resampler.rate_out != self.rate:
            resampler = self._resampler = make_resampler(rate, self.rate, self._kind)
            self.stats.filter_ms = resampler.delay * 1000
        return resampler.process(audio)

    def _append(self, audio: bytes, now: float) -> None:
        if self._rest:
            audio = self._rest + audio
        size, end = self._frame_bytes, len(audio)
        whole = end - end % size
        for offset in range(0, whole, size):
            self._frames.append(audio[offset : offset + size])
            self._arrivals.append(now)
        self._rest = audio[whole:]
        depth = len(self._frames) * FRAME_MS
        if depth > self.stats.depth_max_ms:
            self.stats.depth_max_ms = depth

    def _begin(self, now: float) -> None:
        """Audio comes after none was there: an utterance begins, or an underrun ends."""
        self._first_arrival = now
        if self._dry_since is None:
            return
        gap, self._dry_since = now - self._dry_since, None
        if gap <= PAUSE:
            self.stats.underruns += 1
            self.stats.underrun_ms += gap * 1000
            self._set_prebuffer(max(self._prebuffer + STEP, gap))
            self._calm_since = now

    def _set_prebuffer(self, seconds: float) -> None:
        self._prebuffer = min(max(seconds, self._least), self._most)
        self.stats.prebuffer_ms = self._prebuffer * 1000

    def read(self, now: float) -> bytes | None:
        """The frame for this tick; None when there is nothing to play."""
        if not self._frames:
            return self._read_rest(now)
        if not self._playing and not self._prebuffered(now):
            return None
        self._playing = True
        delay = now - self._arrivals.popleft()
        stats = self.stats
        stats.frames_played += 1
        stats.delay_sum += delay
        if delay > stats.delay_max:
            stats.delay_max = delay
        return self._frames.popleft()

    def _prebuffered(self, now: float) -> bool:
        waited = now - self._first_arrival
        if self.depth < self._prebuffer and waited < self._prebuffer:
            return False
        if now - self._calm_since > CALM:
            self._set_prebuffer(self._prebuffer - STEP)
            self._calm_since = now
        return True

    def _read_rest(self, now: float) -> bytes | None:
        """Less than a frame is there: the end of an utterance, or the bot is late."""
        if not self._rest or (not self._playing and not self._prebuffered(now)):
            if self._playing:
                self._playing = False
                self._dry_since = now
            return None
        frame = self._rest.ljust(self._frame_bytes, b"\0")
        self._rest = b""
        self.stats.frames_played += 1
        self._playing = True
        return frame

    def flush(self) -> None:
        """Drop all that waits, and the converters' memory of it: the caller barged in."""
        self.stats.flushes += 1
        self.stats.flushed_ms += len(self._frames) * FRAME_MS
        self._frames, self._arrivals = deque(), deque()
        self._rest = b""
        self._playing = False
        self._dry_since = None
        self._resampler = None
        self._carry = SampleCarry()


def _without_header(audio: bytes, rate: int, channels: int) -> tuple[bytes, int, int]:
    body, header_rate, header_channels = strip_riff(audio)
    return body, header_rate or rate, header_channels or channels
