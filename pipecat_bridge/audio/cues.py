"""Marks in the bot's audio, DTMF tones before it, and hold music while there is none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.audio.hold import HoldLoop
from pipecat_bridge.audio.resample import make_resampler

MAX_MARKS = 1000
"""Most marks that wait. One more makes the oldest be called early. A bot chooses how many marks it
sends; a minute of speech has some hundred words."""


class Cues:
    """The marks, tones and music of one playout queue. The queue has it only while it needs it.

    A place in the queue is a number of played frames. A mark is due once `played` has reached its
    place. If tones play then, their end comes first. Frames of tones and music have `rate` Hz.
    """

    __slots__ = ("_frame_bytes", "_marks", "_tones", "music")

    def __init__(self, rate: int) -> None:
        self._frame_bytes = frame_bytes(rate)
        self._marks: deque[tuple[int, Callable[[], None]]] = deque()
        self._tones: deque[bytes] = deque()
        self.music: HoldLoop | None = None

    def __bool__(self) -> bool:
        return self.waiting or self.music is not None

    @property
    def waiting(self) -> bool:
        """True while tones or marks wait. Music does not count: it never ends by itself."""
        return bool(self._marks or self._tones)

    @property
    def tone_frames(self) -> int:
        """Frames of tones that wait."""
        return len(self._tones)

    def add_mark(self, place: int, done: Callable[[], None]) -> None:
        """Call `done` when `place` is reached."""
        self._marks.append((place, done))
        if len(self._marks) > MAX_MARKS:
            self._marks.popleft()[1]()

    def call_marks(self, played: int) -> None:
        """Call the marks that are due, but no mark that they add. If one adds tones, stop there."""
        for _ in range(len(self._marks)):
            if not self._marks or self._tones or self._marks[0][0] > played:
                return
            self._marks.popleft()[1]()

    def call_all(self) -> None:
        """The queue was dropped: make every mark due, and call them."""
        self._marks = deque((0, done) for _, done in self._marks)
        self.call_marks(0)

    def add_tones(self, pcm: bytes) -> None:
        """Play `pcm`. Its last frame is filled up with silence."""
        size = self._frame_bytes
        for start in range(0, len(pcm), size):
            self._tones.append(pcm[start : start + size].ljust(size, b"\0"))

    def tone(self) -> bytes | None:
        """The next frame of tones; None if no tones wait."""
        return self._tones.popleft() if self._tones else None

    def move_end(self, old_end: int, end: int) -> None:
        """The queue's audio was converted to another rate, and so its end has another place.

        A frame is 20 ms at any rate, so other places stay the same. Only the place of the end can
        change, because of a rest of less than a frame.
        """
        self._marks = deque(
            (end if place >= old_end else min(place, end), done) for place, done in self._marks
        )

    def set_rate(self, old_rate: int, rate: int) -> None:
        """Convert tones and music to another rate of the phone."""
        self._frame_bytes = frame_bytes(rate)
        if self._tones:
            tones, self._tones = b"".join(self._tones), deque()
            self.add_tones(make_resampler(old_rate, rate).process(tones))
        if self.music is not None:
            self.music.set_rate(rate)

    def clear(self) -> None:
        """Forget marks, tones and music. No mark is called."""
        self._marks.clear()
        self._tones.clear()
        self.music = None
