"""Sends the caller's audio to a bot that may be slow. The queue is limited, and delay goes away.

The kernels of both sides buffer seconds of audio, and the sender cannot see it (1.7 s at 16 kHz
were measured on loopback with every buffer set small). A bot whose loop hangs stops reading without
any sign. So the bridge sends a ping after every `PING_EVERY` frames. The bot answers a ping only
after it has read everything before the ping (RFC 6455, section 5.5.2).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.audio.frame import FRAMES_PER_SECOND
from pipecat_bridge.audio.pcm import FrameCutter
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.contracts import QueueStats
from pipecat_bridge.options import CallerAudioOptions
from pipecat_bridge.runner.link.interfaces import BotSocket
from pipecat_bridge.runner.link.sockets import SocketPair
from pipecat_bridge.wire.dialect import Dialect

CAUGHT_UP: Final = 5
"""Frames (0.1 s) that stay in the queue when a bot reads too slowly and the rest is dropped."""

PING_EVERY: Final = 10
"""Frames of audio between two pings: 0.2 s."""

LONGEST: Final = 0.1
"""Seconds. Longer pieces of audio are cut: the queue counts pieces, and a phone may send half a
second in one."""

_MAGIC: Final = b"flow"
_PONG_BYTES: Final = len(_MAGIC) + 8


class CallerStream:
    """Converts the caller's audio to the bot's rate, and sends each frame at once if the bot takes
    it.

    If the bot takes nothing, at most `queue_frames` frames wait. A frame that finds the queue full
    waits up to `push_timeout` seconds for room. Then the oldest frame of the queue is dropped, or
    with `drop = "newest"` the new one. Until there is room again, the next frames do not wait. A
    bot that reads more slowly than the caller speaks would stay behind for ever. So if the queue
    does not become empty within `catch_up` seconds of sending, all but the last 0.1 s is dropped.

    The bot takes nothing while its socket is congested, or while more than `in_flight` seconds
    have been sent after the last ping that it answered. This window has no effect before the first
    answer, so a bot that never answers pings is not delayed. A bot that reads always opens the
    window again: the window is at least twice as long as the distance of two pings, so the last
    ping before it closed acknowledges all but the last few frames. A bot may answer only the newest
    of several pings (section 5.5.3), so every other ping on this socket must carry `progress` too.

    Frames in flight count against `queue_frames`, because they are late as well. But the queue
    always has room for one frame.
    """

    def __init__(
        self,
        clock: IReactorTime,
        sockets: SocketPair,
        dialect: Dialect,
        options: CallerAudioOptions,
    ) -> None:
        self.stats = QueueStats()
        self._clock = clock
        self._sockets = sockets
        self._encode = dialect.audio
        self._rate = dialect.rate
        self._cutter = FrameCutter(dialect.frame_bytes) if dialect.frame_bytes else None
        self._longest = 2 * round(LONGEST * dialect.rate)  # bytes
        self._resampler: Resampler | None = None
        self._options = options
        in_flight = min(int(options.in_flight * FRAMES_PER_SECOND), options.queue_frames)
        self._window = max(in_flight, 2 * PING_EVERY)
        self._sent = 0
        self._acknowledged = 0
        self._answers = False  # the bot has answered a ping, and its answers can be read
        self._frames: deque[tuple[float, bytes]] = deque()  # (arrival in seconds, PCM)
        self._timer: IDelayedCall | None = None
        self._timed_out = False  # `push_timeout` is over, and there was no room since
        self._behind_since: float | None = None
        self._closed = False

    # From the phone

    def send(self, pcm: bytes, rate: int) -> None:
        """Send caller audio, mono PCM16 with `rate` samples per second."""
        if rate != self._rate:
            resampler = self._resampler
            if resampler is None or resampler.rate_in != rate:
                resampler = self._make_resampler(rate)
            pcm = resampler.process(pcm)
            if not pcm:
                return
        if self._cutter is not None:
            for frame in self._cutter.cut(pcm):
                self.push(frame)
        elif len(pcm) <= self._longest:
            self.push(pcm)
        else:
            for start in range(0, len(pcm), self._longest):
                self.push(pcm[start : start + self._longest])

    def _make_resampler(self, rate: int) -> Resampler:
        self._resampler = make_resampler(rate, self._rate, self._options.resampler)
        self.stats.filter_delay = self._resampler.delay
        return self._resampler

    def push(self, frame: bytes) -> None:
        """Send a frame at the bot's rate, or put it at the end of the queue."""
        socket = self._sockets.input
        if (
            not self._frames
            and socket is not None
            and not socket.outlet.congested
            and not (self._answers and self._sent - self._acknowledged >= self._window)
        ):
            self.stats.sent += 1
            self._pass_on(socket, frame)
        elif not self._closed:
            self._queue(frame)

    def _pass_on(self, socket: BotSocket, frame: bytes) -> None:
        # Encode after the queue: some dialects number their messages.
        socket.send(self._encode(frame))
        self._sent += 1
        if self._sent % PING_EVERY == 0:
            socket.ping(self.progress)

    # The queue

    @property
    def depth(self) -> int:
        """Frames in the queue, with those that wait for room."""
        return len(self._frames)

    @property
    def queued(self) -> int:
        """Frames that the bot has not read: in flight, or in the queue."""
        return self.depth + self.in_flight

    def _queue(self, frame: bytes) -> None:
        self._frames.append((self._clock.seconds(), frame))
        if self._timed_out:
            self._drop_excess()
        elif self._timer is None and self._excess() > 0:
            timeout = self._options.push_timeout
            self._timer = self._clock.callLater(timeout, self._time_out)
        self.stats.depth_max = max(self.stats.depth_max, self.depth)

    def drain(self) -> None:
        """Send the frames that wait, oldest first, as far as the bot takes them."""
        now = self._clock.seconds()
        if self._frames and not self._blocked():
            self._keep_up(now)
        while self._frames and not self._blocked():
            self._send_oldest(now)
        if self._excess() <= 0:
            self._stop_timer()
        if self._excess() < 0:
            self._timed_out = False
        if not self._frames:
            self._behind_since = None

    def _blocked(self) -> bool:
        socket = self._sockets.input
        return socket is None or socket.outlet.congested or self.window_closed

    def _excess(self) -> int:
        """Frames above the limit; negative if there is room."""
        return len(self._frames) - max(1, self._options.queue_frames - self.in_flight)

    def _send_oldest(self, now: float) -> None:
        arrived, frame = self._frames.popleft()
        wait = now - arrived
        self.stats.sent += 1
        self.stats.waits.add(wait)
        assert self._sockets.input is not None
        self._pass_on(self._sockets.input, frame)

    def _keep_up(self, now: float) -> None:
        if self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since > self._options.catch_up:
            while len(self._frames) > CAUGHT_UP:
                self._frames.popleft()
                self.stats.dropped += 1
            self._behind_since = None

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _time_out(self) -> None:
        self._timer = None
        self._timed_out = True
        self._drop_excess()

    def _drop_excess(self) -> None:
        oldest = self._options.drop == "oldest"
        drop_one = self._frames.popleft if oldest else self._frames.pop
        for _ in range(self._excess()):
            drop_one()
            self.stats.dropped += 1

    # The window

    @property
    def window_closed(self) -> bool:
        """True while too many frames are in flight."""
        return self._answers and self._sent - self._acknowledged >= self._window

    @property
    def in_flight(self) -> int:
        """Frames sent after the last answered ping."""
        return self._sent - self._acknowledged if self._answers else 0

    @property
    def progress(self) -> bytes:
        """The payload of a ping that acknowledges everything sent so far."""
        return _MAGIC + self._sent.to_bytes(8, "big")

    def ask(self) -> None:
        """Ping the bot before the first frame, so that the window works from the beginning."""
        if self._sockets.input is not None:
            self._sockets.input.ping(self.progress)

    def pong(self, payload: bytes) -> bool:
        """Take a pong of the input socket. True if it answers a ping of ours and is not older than
        the pongs before it."""
        if len(payload) != _PONG_BYTES or not payload.startswith(_MAGIC):
            return False
        count = int.from_bytes(payload[len(_MAGIC) :], "big")
        if not self._acknowledged <= count <= self._sent:
            return False
        self._acknowledged = count
        self._answers = True
        self.drain()
        return True

    def close(self) -> None:
        """Send nothing any more. Frames in the queue are forgotten, and not counted as dropped."""
        self._closed = True
        self._frames.clear()
        self._stop_timer()
        self._sockets = SocketPair(self._clock)
