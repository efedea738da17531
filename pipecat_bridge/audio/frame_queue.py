"""Audio that waits to be played: it comes in pieces of any length, and leaves in frames."""

from __future__ import annotations

from collections import deque

from pipecat_bridge.audio.frame import frame_bytes


class FrameQueue:
    """Mono PCM16 at `rate` Hz.

    `waiting`: bytes of it. Pieces stay as they came, so no operation but `take_all` and `clear`
    takes longer because much waits. Only pieces that are shorter than a frame are joined: each has
    a cost in memory. `came`: when the audio came that was taken last, in seconds; the mean of its
    samples.
    """

    __slots__ = (
        "_at",
        "_piece",
        "_piece_came",
        "_pieces",
        "came",
        "frame_bytes",
        "rate",
        "seconds_per_byte",
        "waiting",
    )

    def __init__(self, rate: int) -> None:
        self._pieces: deque[tuple[bytes, int, float]] = deque()  # (audio, where it begins, arrival)
        self._piece, self._at, self._piece_came = b"", 0, 0.0  # the first one
        self.waiting = 0
        self.came = 0.0
        self.set_rate(rate)

    def set_rate(self, rate: int) -> None:
        """What is appended has `rate` samples per second from now on. The queue must be empty."""
        self.rate = rate
        self.frame_bytes = frame_bytes(rate)
        self.seconds_per_byte = 1 / (2 * rate)

    @property
    def frames(self) -> int:
        """Whole frames that wait."""
        return self.waiting // self.frame_bytes

    @property
    def rest(self) -> int:
        """Bytes that wait beyond the whole frames."""
        return self.waiting % self.frame_bytes

    @property
    def end(self) -> int:
        """The number of frames, with one for the rest."""
        return -(-self.waiting // self.frame_bytes)

    @property
    def seconds(self) -> float:
        """Seconds of audio that wait."""
        return self.waiting * self.seconds_per_byte

    def append(self, pcm: bytes, now: float) -> None:
        """Add audio that came at `now`."""
        pieces, size = self._pieces, len(pcm)
        self.waiting += size
        if size < self.frame_bytes and pieces:
            last, start, came = pieces[-1]
            before = len(last) - start
            if 0 < before + size <= self.frame_bytes:
                now = (came * before + now * size) / (before + size)
                pcm = last[start:] + pcm
                pieces.pop()
        pieces.append((pcm, 0, now))

    def take(self, size: int) -> bytes:
        """Remove and return the first `size` bytes, or what there is."""
        piece, at = self._piece, self._at
        if at == len(piece) and self._pieces:
            piece, at, self._piece_came = self._pieces.popleft()
            self._piece = piece
        end = at + size
        if end > len(piece):
            self._at = at
            return self._take_across(size)
        self._at = end
        self.waiting -= size
        self.came = self._piece_came
        if not self.waiting:
            self._piece, self._at = b"", 0  # it may be long, and nothing else may come
        return piece[at:end]

    def _take_across(self, size: int) -> bytes:
        """`take` if the first piece is too short."""
        parts: list[bytes] = []
        missing, came = min(size, self.waiting), 0.0
        size = missing
        while missing:
            part = self._piece[self._at : self._at + missing]
            if part:
                parts.append(part)
                came += len(part) * self._piece_came
                self._at += len(part)
                missing -= len(part)
            else:
                self._piece, self._at, self._piece_came = self._pieces.popleft()
        self.waiting -= size
        if not self.waiting:
            self._piece, self._at = b"", 0
        if size:
            self.came = came / size
        return b"".join(parts)

    def head(self, size: int) -> bytes:
        """The first `size` bytes, or what there is. They stay."""
        pcm = self._piece[self._at : self._at + size]
        for piece, start, _ in self._pieces:
            if len(pcm) == size:
                break
            pcm += piece[start : start + size - len(pcm)]
        return pcm

    def replace_head(self, old: int, new: bytes) -> None:
        """Put `new` in the place of the first `old` bytes."""
        last = self.came
        self.take(old)
        self._pieces.appendleft((self._piece, self._at, self._piece_came))
        self._piece, self._at, self._piece_came = new, 0, self.came
        self.waiting += len(new)
        self.came = last

    def take_all(self) -> bytes:
        """Remove and return everything."""
        return self.take(self.waiting)

    def clear(self) -> None:
        """Drop everything."""
        self._pieces.clear()
        self._piece, self._at, self._piece_came = b"", 0, 0.0
        self.waiting = 0
