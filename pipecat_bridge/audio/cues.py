"""What plays beside the bot's voice: marks in it, tones before it, music where there is none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from pipecat_bridge.audio.hold import HoldLoop
from pipecat_bridge.audio.resample import make_resampler

MAX_MARKS = 1000
"""Marks that wait at once; the oldest is called early for one more. A bot chooses how many it
sends, and a minute of speech has some hundred words."""


class Cues:
    """The cues of one playout queue, which has them only while there are any.

    Places in the queue are numbers of frames played: a mark is due once `played` has reached its
    place, unless tones play, and these end first. Frames of tones and music have `frame_bytes`.
    """

    __slots__ = ("_frame_bytes", "_marks", "_tones", "music")

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._marks: deque[tuple[int, Callable[[], None]]] = deque()
        self._tones: deque[bytes] = deque()
        self.music: HoldLoop | None = None

    def __bool__(self) -> bool:
        return self.waiting or self.music is not None

    @property
    def waiting(self) -> bool:
        """True while tones or marks are still to come; music never ends by itself."""
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
        """Call the marks that are due, but none that these add; one may begin the tones."""
        for _ in range(len(self._marks)):
            if not self._marks or self._tones or self._marks[0][0] > played:
                return
            self._marks.popleft()[1]()

    def call_all(self) -> None:
        """The queue was dropped: every mark is due."""
        self._marks = deque((0, done) for _, done in self._marks)
        self.call_marks(0)

    def add_tones(self, pcm: bytes) -> None:
        """Play `pcm`, the last frame of it filled up with silence."""
        size = self._frame_bytes
        for start in range(0, len(pcm), size):
            self._tones.append(pcm[start : start + size].ljust(size, b"\0"))

    def tone(self) -> bytes | None:
        """The next frame of tones."""
        return self._tones.popleft() if self._tones else None

    def convert(self, old_rate: int, rate: int, frame_bytes: int, ends: tuple[int, int]) -> None:
        """The phone has another rate; where the queue ended, and where it ends now, are `ends`.

        A frame is 20 ms at any rate, so that only the end, where less than a frame may be left or
        none, has another place.
        """
        self._frame_bytes = frame_bytes
        old_end, end = ends
        self._marks = deque(
            (end if place >= old_end else min(place, end), done) for place, done in self._marks
        )
        if self._tones:
            tones, self._tones = b"".join(self._tones), deque()
            self.add_tones(make_resampler(old_rate, rate).process(tones))
        if self.music is not None:
            self.music.set_rate(rate)

    def clear(self) -> None:
        """Forget all of it, and call nobody."""
        self._marks.clear()
        self._tones.clear()
        self.music = None
