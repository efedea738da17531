"""Audio that waits to be played, cut into frames of 20 ms, with the time when it came."""

from __future__ import annotations

from collections import deque

from pipecat_bridge.audio.frame import FRAMES_PER_SECOND, frame_bytes


class FrameQueue:
    """Mono PCM16 at `rate` Hz. The time of a frame's arrival is the mean of its samples.

    `frames`, oldest first, and `arrivals` of them, in seconds, are read from the left by the owner.
    `rest`, less than a frame, is at the end. It came at `rest_arrival`.
    """

    __slots__ = (
        "arrivals",
        "frame_bytes",
        "frames",
        "rate",
        "rest",
        "rest_arrival",
        "seconds_per_byte",
    )

    def __init__(self, rate: int) -> None:
        self.frames: deque[bytes] = deque()
        self.arrivals: deque[float] = deque()
        self.rest = b""
        self.rest_arrival = 0.0
        self.set_rate(rate)

    def set_rate(self, rate: int) -> None:
        """What is appended has `rate` samples per second from now on. The queue must be empty."""
        self.rate = rate
        self.frame_bytes = frame_bytes(rate)
        self.seconds_per_byte = 1 / (2 * rate)

    def __bool__(self) -> bool:
        return bool(self.frames or self.rest)

    @property
    def seconds(self) -> float:
        """Seconds of audio that wait."""
        return len(self.frames) / FRAMES_PER_SECOND + len(self.rest) / (2 * self.rate)

    @property
    def end(self) -> int:
        """The number of frames, the rest included."""
        return len(self.frames) + bool(self.rest)

    def append(self, pcm: bytes, now: float) -> None:
        """Add audio that came at `now`."""
        size, start = self.frame_bytes, 0
        frames, arrivals = self.frames, self.arrivals
        if rest := self.rest:
            pcm = rest + pcm
            share = len(rest) / min(len(pcm), size)
            mixed = share * self.rest_arrival + (1 - share) * now
            if len(pcm) < size:
                self.rest, self.rest_arrival = pcm, mixed
                return
            frames.append(pcm[:size])
            arrivals.append(mixed)
            start = size
        whole = len(pcm) - len(pcm) % size
        for offset in range(start, whole, size):
            frames.append(pcm[offset : offset + size])
            arrivals.append(now)
        self.rest, self.rest_arrival = pcm[whole:], now

    def head(self, frames: int) -> bytes:
        """The first `frames` frames, or less if less waits."""
        count = min(frames, len(self.frames))
        pcm = b"".join(self.frames[number] for number in range(count))
        return pcm if count == frames else pcm + self.rest

    def replace_head(self, old: int, new: bytes) -> None:
        """Put `new` in the place of the first `old` bytes. They differ by less than a frame."""
        pcm = new + b"".join((*self.frames, self.rest))[old:]
        size = self.frame_bytes
        moved = (old - len(new)) / size
        came = [*self.arrivals, self.rest_arrival]
        # Frame i holds what was in the frames i and i + 1, or i - 1 and i.
        first, share = (0, moved) if moved >= 0 else (-1, 1 + moved)
        whole = len(pcm) - len(pcm) % size
        count = whole // size
        mixed = []
        for number in range(first, first + count + 1):
            one, other = max(number, 0), min(number + 1, len(came) - 1)
            mixed.append((1 - share) * came[min(one, other)] + share * came[other])
        self.clear()
        self.frames.extend(pcm[offset : offset + size] for offset in range(0, whole, size))
        self.arrivals.extend(mixed[:count])
        self.rest, self.rest_arrival = pcm[whole:], mixed[count]

    def take_rest(self) -> bytes:
        """Remove and return the rest."""
        rest, self.rest = self.rest, b""
        return rest

    def take_all(self) -> bytes:
        """Remove and return everything."""
        pcm = b"".join((*self.frames, self.rest))
        self.clear()
        return pcm

    def clear(self) -> None:
        """Drop everything."""
        self.frames.clear()
        self.arrivals.clear()
        self.rest = b""
