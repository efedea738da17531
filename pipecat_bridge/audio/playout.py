"""The playout queue: bot audio of any format goes in, one frame for the phone comes out each tick.

It has no clock. Methods get the time, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pipecat_bridge.audio.cues import Cues
from pipecat_bridge.audio.frame import FRAME, FRAME_MS, FRAMES_PER_SECOND, frame_bytes
from pipecat_bridge.audio.hold import HoldLoop
from pipecat_bridge.audio.pcm import SampleCarry, mix_down, strip_riff
from pipecat_bridge.audio.prebuffer import Prebuffer
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.audio.stats import PlayoutStats

PAUSE = 0.3
"""Audio that comes more than so many seconds after the queue became empty is a new utterance.

Audio that comes sooner was missing within an utterance: an underrun.
"""

_ROUNDING = 1e-9


class Playout:
    """The bot audio of one call that waits to be played.

    An utterance is played once `prebuffer` seconds of it wait, or after that time. An underrun
    lengthens the prebuffer by its own length, up to `max_prebuffer`; time without underruns
    shortens it again. `full` is true from `max_queue` seconds on: then nothing is read from the
    bot. Only `flush` drops audio. It takes constant time.

    Marks, tones and music are in `Cues`, and cost nothing while there are none.
    """

    def __init__(
        self,
        rate: int = 8000,
        prebuffer: float = 0.04,
        max_prebuffer: float = 0.2,
        max_queue: float = 60.0,
        resampler: str = "fir",
    ) -> None:
        self.stats = PlayoutStats()
        self._kind = resampler
        self._prebuffer = Prebuffer(prebuffer, max_prebuffer, self.stats)
        self._max_frames = int(max_queue * FRAMES_PER_SECOND)
        self._frames: deque[bytes] = deque()
        self._arrivals: deque[float] = deque()
        self._rest = b""  # less than a frame, at the end of the queue
        self._playing = False
        self._dry_since: float | None = None
        self._underrun_since: float | None = None  # until playing continues
        self._first_arrival = 0.0
        self._written_at = 0.0
        self._bot_rate: int | None = None
        self._resampler: Resampler | None = None
        self._carry = SampleCarry()
        self._cues: Cues | None = None
        self._set_rate(rate)

    def _set_rate(self, rate: int) -> None:
        self.rate = rate
        self._frame_bytes = frame_bytes(rate)
        self.silence = bytes(self._frame_bytes)

    def set_rate(self, rate: int) -> None:
        """Play at `rate` samples per second from now on. Audio that waits is converted."""
        if rate == self.rate:
            return
        waiting = b"".join(self._frames) + self._rest
        arrival = self._arrivals[0] if self._arrivals else self._written_at
        converted = make_resampler(self.rate, rate, self._kind).process(waiting)
        old_rate, old_end = self.rate, self._end
        self._frames.clear()
        self._arrivals.clear()
        self._rest = b""
        self._set_rate(rate)
        self._bot_rate = None
        self._append(converted, arrival)
        if self._cues is not None:
            self._cues.convert(old_rate, rate, self._frame_bytes, (old_end, self._end))

    @property
    def _end(self) -> int:
        """The number of played frames at the time when all audio that waits has been played."""
        return self.stats.frames_played + len(self._frames) + bool(self._rest)

    @property
    def bot_rate(self) -> int | None:
        """The sample rate of the bot's audio in Hz; None before its first audio."""
        return self._bot_rate

    @property
    def depth(self) -> float:
        """Seconds of audio that wait, tones included."""
        tones = self._cues.tone_frames if self._cues is not None else 0
        return (len(self._frames) + tones) / FRAMES_PER_SECOND

    @property
    def full(self) -> bool:
        """True if nothing more should be read from the bot."""
        return len(self._frames) >= self._max_frames

    @property
    def empty(self) -> bool:
        """True if all audio and tones have been played, and all marks called."""
        return not (self._frames or self._rest or (self._cues and self._cues.waiting))

    def write(self, audio: bytes, rate: int, channels: int, now: float) -> None:
        """Queue audio of the bot: PCM16 of any length and rate, with or without a RIFF header.

        Raises FormatError for a rate or a number of channels that is not possible.
        """
        if audio.startswith(b"RIFF"):
            audio, rate, channels = _without_header(audio, rate, channels)
        if rate != self._bot_rate:
            self._convert_from(rate)
        audio = self._carry.join(audio, channels)
        if not audio:
            return
        if channels > 1:
            audio = mix_down(audio, channels)
        if self._resampler is not None:
            audio = self._resampler.process(audio)
        if not self._playing and (not (self._frames or self._rest) or self._dry_since is not None):
            self._begin(now)
        self._written_at = now
        self._append(audio, now)

    def _convert_from(self, rate: int) -> None:
        resampler = make_resampler(rate, self.rate, self._kind) if rate != self.rate else None
        if resampler is not None:
            self.stats.filter_ms = resampler.delay * 1000
        self._resampler = resampler
        if self._bot_rate not in (None, rate):
            self._carry.reset()  # half a sample of the old rate would shift all that follows
        self._bot_rate = rate

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
        """Audio comes into an empty queue: an utterance begins, or an underrun ends."""
        self._first_arrival = now
        since, self._dry_since = self._dry_since, None
        if since is None or now - since > PAUSE:
            return
        self.stats.underruns += 1
        self._underrun_since = since
        self._prebuffer.grow(now - since)

    def read(self, now: float) -> bytes | None:
        """The frame for this tick; None if there is nothing to play."""
        if self._cues is not None:
            return self._read_beside(now, self._cues)
        if not self._frames:
            return self._read_rest(now)
        if not self._playing and not self._starts(now):
            return None
        self._count(now - self._arrivals.popleft())
        return self._frames.popleft()

    def _count(self, delay: float) -> None:
        stats = self.stats
        stats.frames_played += 1
        stats.delay_sum += delay
        if delay > stats.delay_max:
            stats.delay_max = delay

    def _starts(self, now: float) -> bool:
        """Begin to play if the prebuffer is full or its time is over; return True if so."""
        waited = now - self._first_arrival + _ROUNDING
        depth = len(self._frames) / FRAMES_PER_SECOND
        least = self._prebuffer.seconds
        if depth + _ROUNDING < least and waited < least:
            return False
        self._prebuffer.settle()
        if self._underrun_since is not None:
            self.stats.underrun_ms += (now - self._underrun_since) * 1000
            self._underrun_since = None
        self._playing = True
        return True

    def _read_rest(self, now: float) -> bytes | None:
        """`read` when less than a frame waits: the end of an utterance, or the bot is late.

        It is the end if nothing was written since the last tick. Else the rest waits for more
        audio, because silence before the rest does less harm than silence after it.
        """
        if not self._rest or now - self._written_at < FRAME - _ROUNDING:
            if self._playing:
                self._run_dry(now)
            return None
        if not self._playing and not self._starts(now):
            return None
        rest, self._rest = self._rest, b""
        self._count(now - self._written_at)
        self._run_dry(now + len(rest) / (2 * self.rate))
        return rest.ljust(self._frame_bytes, b"\0")

    def _run_dry(self, since: float) -> None:
        self._playing = False
        self._dry_since = since

    def flush(self) -> None:
        """Drop all audio that waits, and reset the converters: the caller barged in."""
        self.stats.flushes += 1
        self.stats.flushed_ms += len(self._frames) * FRAME_MS
        self.stats.flushed_ms += len(self._rest) * 500 // self.rate
        self._frames, self._arrivals = deque(), deque()
        self._rest, self._playing = b"", False
        self._dry_since = self._underrun_since = None
        self._carry.reset()
        if self._resampler is not None:
            self._resampler.reset()
        if self._cues is not None:
            self._cues.call_all()

    def new_bot(self) -> None:
        """Another bot writes from now on. Audio that waits is played, except an incomplete sample.
        The time until the new bot speaks is no underrun."""
        self._carry.reset()
        self._bot_rate = None
        self._dry_since = None

    # Beside the bot's voice

    def mark(self, done: Callable[[], None]) -> None:
        """Call `done` when all audio that waits now has been played, at the next `read`.

        `flush` calls it as well. If tones play at that moment, it is called after them.
        """
        self._have_cues().add_mark(self._end, done)

    def interject(self, pcm: bytes) -> None:
        """Play `pcm`, at the playout's rate, before all that waits. `flush` does not drop it."""
        self._have_cues().add_tones(pcm)

    def hold(self, pcm: bytes, rate: int) -> None:
        """Play `pcm` in a loop while nothing else plays, until `release`.

        Raises ValueError for less than 20 ms of audio, and for a rate that cannot be converted.
        """
        self._have_cues().music = HoldLoop(pcm, rate, self.rate)

    def release(self) -> None:
        """Stop the music."""
        if self._cues is not None:
            self._cues.music = None

    def close(self) -> None:
        """Forget marks, tones and music: nobody listens any more. No mark is called."""
        if self._cues is not None:
            self._cues.clear()
            self._cues = None

    def _have_cues(self) -> Cues:
        if self._cues is None:
            self._cues = Cues(self._frame_bytes)
        return self._cues

    def _read_beside(self, now: float, cues: Cues) -> bytes | None:
        """`read` while there are cues. They are set aside while the queue itself is read."""
        cues.call_marks(self.stats.frames_played)
        frame = cues.tone()
        if frame is not None:
            self._pause_for_tones()
            return frame
        self._cues = None
        frame = self.read(now)
        if frame is None and cues.music is not None:
            frame = cues.music.frame(self._frame_bytes)
        self._cues = cues if cues else None
        return frame

    def _pause_for_tones(self) -> None:
        """The time of the tones is no underrun: audio that comes then begins an utterance."""
        self._dry_since = None
        if not self._frames and not self._rest:
            self._playing = False


def _without_header(audio: bytes, rate: int, channels: int) -> tuple[bytes, int, int]:
    body, header_rate, header_channels = strip_riff(audio)
    return body, header_rate or rate, header_channels or channels
