"""The playout of one call: bot audio of any format goes in, one frame for the phone comes out each
tick.

It has no clock. Methods get the time, in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipecat_bridge.audio.cues import Cues
from pipecat_bridge.audio.frame import FRAMES_PER_SECOND, frame_bytes
from pipecat_bridge.audio.hold import HoldLoop
from pipecat_bridge.audio.jitter_buffer import JitterBuffer
from pipecat_bridge.audio.pcm import SampleCarry, mix_down, without_header
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.audio.stats import PlayoutStats
from pipecat_bridge.errors import FormatError

MOST_BYTES: Final = 1 << 25
"""Bytes of audio that wait, at any rate: three minutes are as much at 93 kHz."""

AT_ONCE: Final = 0.5
"""If more seconds of audio wait when the phone changes its rate, they are not converted at once."""

MAX_RATES: Final = 8
"""Sample rates of bots in one call. The filter of a rate that is new takes milliseconds to make."""


def _nothing() -> None:
    """Does nothing: nobody wants to be told."""


class Playout:
    """What one caller hears: the bot's voice, and what is played beside it.

    The voice is in a `JitterBuffer`, which says what the first options are. While
    `max_queue` seconds wait there, what is written is dropped. Else only `flush` drops audio. It
    takes constant time.

    Marks, tones and music are in `Cues`, and cost nothing while there are none. `on_new_rate` is
    called when the bot's audio has another sample rate than before: that takes a millisecond.
    """

    on_new_rate: Callable[[], None] = staticmethod(_nothing)

    def __init__(
        self,
        rate: int = 8000,
        prebuffer: float = 0.03,
        max_prebuffer: float = 0.4,
        max_queue: float = 180.0,
        time_scaling: bool = True,
        resampler: str = "fir",
    ) -> None:
        self.stats = PlayoutStats()
        self._kind = resampler
        self._rate = rate
        self._voice = JitterBuffer(rate, prebuffer, max_prebuffer, time_scaling, self.stats)
        self._queue = self._voice.queue
        self._max_frames = int(max_queue * FRAMES_PER_SECOND)
        self._most = 0
        self._set_most()
        self._bot_rate: int | None = None
        self._bot_rates: set[int] = set()
        self._resampler: Resampler | None = None
        self._to_phone: Resampler | None = None  # while the voice has another rate than the phone
        self._carry = SampleCarry()
        self._cues: Cues | None = None

    def _set_most(self) -> None:
        self._most = min(self._max_frames * self._queue.frame_bytes, MOST_BYTES)

    @property
    def rate(self) -> int:
        """Samples per second of what is played."""
        return self._rate

    @property
    def silence(self) -> bytes:
        """A frame of silence."""
        return bytes(frame_bytes(self._rate))

    def set_rate(self, rate: int) -> None:
        """Play at `rate` samples per second from now on. Audio that waits is converted.

        If much waits, that would stop all other calls. So the voice keeps its rate, and each frame
        is converted when it is due, until little waits.
        """
        if rate == self._rate:
            return
        if self._cues is not None:
            self._cues.set_rate(self._rate, rate)
        self._rate = rate
        voice_rate = self._queue.rate
        self._to_phone = make_resampler(voice_rate, rate) if rate != voice_rate else None
        self._convert_voice()

    def _convert_voice(self) -> None:
        """Give the voice the phone's rate, if little of it waits."""
        queue, resampler = self._queue, self._to_phone
        if resampler is None or queue.seconds > AT_ONCE:
            return
        old_end = self._voice.end
        converted = resampler.process(queue.take_all())
        self._voice.set_rate(self._rate)
        self._set_most()
        if converted:
            queue.append(converted, queue.came)
        self._to_phone = self._bot_rate = None
        if self._cues is not None:
            self._cues.move_end(old_end, self._voice.end)

    @property
    def bot_rate(self) -> int | None:
        """The sample rate of the bot's audio in Hz; None before its first audio."""
        return self._bot_rate

    @property
    def depth(self) -> float:
        """Seconds of audio that wait, tones included."""
        tones = self._cues.tone_frames if self._cues is not None else 0
        return (self._queue.frames + tones) / FRAMES_PER_SECOND

    @property
    def waiting(self) -> float:
        """Seconds of the bot's voice that wait."""
        return self._queue.seconds

    @property
    def speaks(self) -> bool:
        """True while the bot's voice is played or waits, as far as it is known."""
        return self._voice.speaks

    @property
    def empty(self) -> bool:
        """True if all audio and tones have been played, and all marks called."""
        return not (self._queue.waiting or (self._cues and self._cues.waiting))

    # The bot's voice

    def write(self, audio: bytes, rate: int, channels: int, now: float) -> bool:
        """Queue audio of the bot: PCM16 of any length and rate, with or without a RIFF header.

        Returns False if it was dropped. Raises FormatError for a rate or a number of channels that
        is not possible.
        """
        if audio.startswith(b"RIFF"):
            audio, rate, channels = without_header(audio, rate, channels)
        if rate != self._bot_rate:
            self._convert_from(rate)
        audio = self._carry.join(audio, channels)
        if not audio:
            return True
        if channels > 1:
            audio = mix_down(audio, channels)
        if self._queue.waiting >= self._most:
            self.stats.dropped_ms += len(audio) / (2 * rate) * 1000
            return False
        if self._resampler is not None:
            audio = self._resampler.process(audio)
        if audio:
            self._voice.write(audio, now)
        return True

    def _convert_from(self, rate: int) -> None:
        if len(self._bot_rates) >= MAX_RATES and rate not in self._bot_rates:
            raise FormatError(f"sample rate of {rate} Hz, after {MAX_RATES} others in this call")
        own = self._queue.rate
        resampler = make_resampler(rate, own, self._kind) if rate != own else None
        if resampler is not None:
            self.stats.filter_ms = resampler.delay * 1000
        self._resampler = resampler
        if self._bot_rate not in (None, rate):
            self._carry.reset()  # half a sample of the old rate would shift all that follows
        self._bot_rate = rate
        self._bot_rates.add(rate)
        if resampler is not None:
            self.on_new_rate()

    def read(self, now: float) -> bytes | None:
        """The frame for this tick; None if there is nothing to play."""
        if self._cues is not None:
            return self._read_beside(now, self._cues)
        if self._to_phone is not None:
            return self._read_converted(now, self._to_phone)
        return self._voice.read(now)

    def first_due(self) -> float | None:
        """When the first audio of a bot should be played, told once; else None.

        It comes at any time between two ticks. If the ticks follow it, it does not wait longer than
        it must.
        """
        return self._voice.first_due()

    def flush(self) -> None:
        """Drop all audio that waits, and reset the converters: the caller barged in."""
        self.stats.flushes += 1
        self.stats.flushed_ms += self._queue.waiting * 500 // self._queue.rate
        self._voice.flush()
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
        self._voice.new_bot()

    # Beside it

    def mark(self, done: Callable[[], None]) -> None:
        """Call `done` when all audio that waits now has been played, at the next `read`.

        `flush` calls it as well. If tones play at that moment, it is called after them.
        """
        self._have_cues().add_mark(self._voice.end, done)

    def interject(self, pcm: bytes) -> None:
        """Play `pcm`, at the playout's rate, before all that waits. `flush` does not drop it."""
        self._have_cues().add_tones(pcm)

    def hold(self, pcm: bytes, rate: int) -> None:
        """Play `pcm` in a loop while nothing else plays, until `release`.

        Raises ValueError for less than 20 ms of audio, and for a rate that cannot be converted.
        """
        self._have_cues().music = HoldLoop(pcm, rate, self._rate)

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
            self._cues = Cues(self._rate)
        return self._cues

    def _read_beside(self, now: float, cues: Cues) -> bytes | None:
        """`read` while there are cues."""
        cues.call_marks(self._voice.place)
        frame = cues.tone()
        if frame is not None:
            self._voice.interrupted()
            return frame
        to_phone = self._to_phone
        frame = self._read_converted(now, to_phone) if to_phone else self._voice.read(now)
        if frame is None and cues.music is not None:
            frame = cues.music.frame(frame_bytes(self._rate))
        if not cues and self._cues is cues:
            self._cues = None
        return frame

    def _read_converted(self, now: float, to_phone: Resampler) -> bytes | None:
        """`read` while the voice has another rate than the phone."""
        frame = self._voice.read(now)
        if frame is not None:
            frame = to_phone.process(frame)
        self._convert_voice()
        return frame
