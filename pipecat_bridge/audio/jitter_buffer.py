"""The jitter buffer: the bot's audio comes when it comes, and one frame of it goes out each tick.

It has no clock. Methods get the time, in seconds of a monotonic clock.
"""

from __future__ import annotations

from math import inf
from typing import Final

from pipecat_bridge.audio.arrivals import Arrivals
from pipecat_bridge.audio.conceal import Concealment, fade_out, is_loud
from pipecat_bridge.audio.frame import FRAME, FRAME_MS
from pipecat_bridge.audio.frame_queue import FrameQueue
from pipecat_bridge.audio.gaps import Gaps
from pipecat_bridge.audio.stats import PlayoutStats
from pipecat_bridge.audio.tempo import Tempo

AT_ONCE: Final = 0.25
"""If so many seconds wait beyond what must wait, the bot sends ahead of time, and an utterance
begins at once."""

RECENT: Final = 0.2
"""If the queue becomes empty within so many seconds of the last write, audio may be missing."""

_ROUNDING: Final = 1e-9


class JitterBuffer:
    """Mono PCM16 at `rate` Hz of one bot, on its way to the phone.

    Without jitter, the first audio of an utterance is played within `prebuffer` seconds, at the
    last tick at which that is possible. `Arrivals` learns how much longer it must wait because of
    jitter, within `max_prebuffer`. If audio waits longer than it must, or too short, and
    `time_scaling` is on, `Tempo` brings that back. Audio that the bot sends ahead of time waits
    until it is due, and is played as it is.
    """

    __slots__ = (
        "_arrivals",
        "_concealment",
        "_deepest",
        "_delays",
        "_due",
        "_first_due",
        "_gaps",
        "_is_first",
        "_last",
        "_last_but_one",
        "_left_out",
        "_plain",
        "_playing",
        "_read_at",
        "_stats",
        "_tail",
        "_tempo",
        "_time_scaling",
        "_written_at",
        "queue",
    )

    def __init__(
        self,
        rate: int,
        prebuffer: float,
        max_prebuffer: float,
        time_scaling: bool,
        stats: PlayoutStats,
    ) -> None:
        self.queue = FrameQueue(rate)
        self._stats = stats
        self._delays = stats.delays
        self._arrivals = Arrivals(max(0.0, prebuffer - FRAME), max(0.0, max_prebuffer - FRAME))
        self._tempo = Tempo(self.queue, stats)
        self._time_scaling = time_scaling
        self._left_out = 0  # frames by which the queue became shorter; less than 0: longer
        self._playing = False
        self._plain = False  # playing, and there is nothing to do but that
        self._due = 0.0  # when the first audio of this utterance is played
        self._is_first = True  # the bot has sent nothing yet
        self._first_due: float | None = None
        self._gaps = Gaps(self._arrivals, stats)
        self._written_at = 0.0
        self._read_at = inf  # of the last frame; infinite while nothing is played
        self._deepest = 0  # frames
        self._last = self._last_but_one = b""  # frames that were played
        self._concealment: Concealment | None = None
        self._tail = b""  # of what was flushed
        self._tell_wait()

    def set_rate(self, rate: int) -> None:
        """What is written has `rate` samples per second from now on. The queue must be empty."""
        self.queue.set_rate(rate)
        self._tail = b""
        self._forget_sound()

    @property
    def place(self) -> int:
        """The number of frames that have left the queue."""
        return self._delays.count + self._left_out

    @property
    def end(self) -> int:
        """The place at the time when all audio that waits has been played."""
        return self.place + self.queue.end

    @property
    def speaks(self) -> bool:
        """True while the voice is played or waits, and while its end is only concealed."""
        if self._playing or self.queue.waiting:
            return True
        return self._concealment is not None and not self._concealment.over

    # In

    def write(self, pcm: bytes, now: float) -> None:
        """Queue `pcm`, which came at `now`."""
        queue = self.queue
        if not self._playing and (self._gaps.dry_since is not None or not queue.waiting):
            self._begin(now)
        self._written_at = now
        queue.append(pcm, now)
        count = queue.waiting // queue.frame_bytes
        if count > self._deepest:
            self._deepest = count
            self._stats.depth_max_ms = count * FRAME_MS
        deadline = self._read_at + FRAME * (1 + count)
        if self._arrivals.add(now, len(pcm) * queue.seconds_per_byte, deadline):
            self._adapt(pcm)

    def _begin(self, now: float) -> None:
        """Audio comes into an empty queue: an utterance begins, or an underrun ends."""
        self._due = now + self._arrivals.wait
        extra = self._gaps.end(now)
        if extra is None:
            self._arrivals.begin()
            if self._is_first:
                self._is_first, self._first_due = False, self._due
        elif extra or (self._concealment is not None and not self._concealment.over):
            self._due = now + extra

    def _adapt(self, pcm: bytes) -> None:
        """The arrivals of an interval are known: bring the delay to what it must be."""
        self._tell_wait()
        self._gaps.judge()
        if not self._time_scaling:
            return
        self._tempo.listen(pcm)
        if self._playing:
            self._tempo.aim(self._arrivals.surplus)
            self._plain = not self._tempo.debt

    def _tell_wait(self) -> None:
        self._stats.prebuffer_ms = (self._arrivals.wait + FRAME) * 1000

    # Out

    def read(self, now: float) -> bytes | None:
        """The frame for this tick; None if there is nothing to play."""
        if not self._plain and not self._prepare(now):
            return self._read_sound()
        self._read_at = now
        queue = self.queue
        size = queue.frame_bytes
        if queue.waiting < size:
            return self._run_dry(now)
        frame = queue.take(size)
        self._delays.add(now - queue.came)
        self._last_but_one, self._last = self._last, frame
        return frame

    def _prepare(self, now: float) -> bool:
        """Do what is to be done before the next frame is played; False if none is played now."""
        if self._tail or not (self._playing or self._starts(now)):
            return False
        if self._tempo.debt:
            before = self.queue.frames
            self._left_out -= self._tempo.work()
            self._arrivals.moved((self.queue.frames - before) * FRAME)
        self._plain = not self._tempo.debt
        return True

    def _starts(self, now: float) -> bool:
        """Begin to play if it is time; return True if so."""
        queue = self.queue
        if not queue.waiting:
            return False
        if now < self._due - _ROUNDING and queue.seconds < self._arrivals.wait + AT_ONCE:
            return False
        concealed = 0.0
        if self._concealment is not None:
            concealed = self._concealment.seconds
            head = queue.head(queue.frame_bytes)
            queue.replace_head(len(head), self._concealment.into(head))
            self._concealment = None
        self._gaps.resumed(now, concealed)
        self._playing = True
        self._first_due = None
        return True

    def first_due(self) -> float | None:
        """When the first audio of a bot should be played, told once; else None."""
        due, self._first_due = self._first_due, None
        return due

    def _run_dry(self, now: float) -> bytes | None:
        """Less than a frame waits: the end of an utterance, or the bot is late.

        If the bot's audio comes regularly, the sound goes on for a short time. Else it is the end
        if nothing was written since the last tick; if not, the rest waits for more audio, because
        silence before the rest does less harm than silence after it.
        """
        queue = self.queue
        self._stop()
        self._gaps.dry_since = now
        since_write = now - self._written_at
        missing = self._arrivals.regular and since_write < RECENT
        if not missing and (not queue.waiting or since_write < FRAME - _ROUNDING):
            return None
        rest = self._take_rest(now)
        size = queue.frame_bytes
        past = self._last_but_one + self._last + rest
        if missing and len(past) >= size and is_loud(past[-size:]):
            self._concealment = Concealment(past, queue.rate)
            return rest + self._concealment.take(size - len(rest))
        return rest.ljust(size, b"\0") if rest else None

    def _stop(self) -> None:
        self._playing = self._plain = False
        self._read_at = inf

    def _take_rest(self, now: float) -> bytes:
        queue = self.queue
        rest = queue.take_all()
        if rest:
            self._delays.add(now - queue.came)
            self._gaps.dry_since = now + len(rest) * queue.seconds_per_byte
        return rest

    def _read_sound(self) -> bytes | None:
        """The sound that goes on while nothing is played, if there is one."""
        if self._tail:
            tail, self._tail = self._tail, b""
            return tail
        if self._concealment is None or self._concealment.over:
            return None
        return self._concealment.take(self.queue.frame_bytes)

    def flush(self) -> None:
        """Drop all audio that waits. If a sound is being played, it fades out in the next frame."""
        queue = self.queue
        if self._playing:
            tail = fade_out(queue.head(queue.frame_bytes), queue.rate)
            self._tail = tail.ljust(queue.frame_bytes, b"\0") if any(tail) else b""
        queue.clear()
        self._stop()
        self._gaps.forget()
        self._forget_sound()

    def _forget_sound(self) -> None:
        self._last = self._last_but_one = b""
        self._concealment = None
        self._tempo.stop()

    def new_bot(self) -> None:
        """Another bot writes from now on. Audio that waits is played."""
        self._gaps.forget()
        self._is_first, self._first_due = True, None
        self._arrivals.forget()
        self._tempo.stop()
        self._tell_wait()

    def interrupted(self) -> None:
        """Something else was played. Its time is no underrun: audio that comes then begins an
        utterance."""
        self._gaps.forget()
        self._concealment = None
        if not self.queue.waiting:
            self._stop()
