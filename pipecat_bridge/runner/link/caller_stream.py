"""The caller's audio on its way to a bot: converted, then queued, then sent as the bot reads."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from pipecat_bridge.audio.pcm import FrameCutter
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.options import CallerAudioOptions
from pipecat_bridge.runner.link.caller_queue import CallerQueue
from pipecat_bridge.runner.link.flow import FlowWindow
from pipecat_bridge.runner.link.sockets import SocketPair
from pipecat_bridge.wire.dialect import Dialect


class CallerStream:
    """Sends the caller's audio over the input socket of `sockets`, in `dialect`."""

    def __init__(
        self,
        clock: IReactorTime,
        sockets: SocketPair,
        dialect: Dialect,
        options: CallerAudioOptions,
    ) -> None:
        self._sockets = sockets
        self._dialect = dialect
        self._resampler_kind = options.resampler
        self._rate = dialect.rate
        self._cutter = FrameCutter(dialect.frame_bytes) if dialect.frame_bytes else None
        self._resampler: Resampler | None = None
        in_flight = min(int(options.in_flight * 50), options.queue_frames)
        self._flow = FlowWindow(in_flight, self._ping)
        self._queue = CallerQueue(
            clock,
            self._send_frame,
            self._blocked,
            lambda: self._flow.in_flight,
            options.queue_frames,
            options.push_timeout,
            options.drop,
            options.catch_up,
        )
        self.stats = self._queue.stats

    def send(self, pcm: bytes, rate: int) -> None:
        """Caller audio, mono PCM16 at `rate`."""
        if rate != self._rate:
            resampler = self._resampler
            if resampler is None or resampler.rate_in != rate:
                resampler = self._make_resampler(rate)
            pcm = resampler.process(pcm)
            if not pcm:
                return
        if self._cutter is None:
            self._queue.push(pcm)
            return
        for frame in self._cutter.cut(pcm):
            self._queue.push(frame)

    def _make_resampler(self, rate: int) -> Resampler:
        self._resampler = make_resampler(rate, self._rate, self._resampler_kind)
        self.stats.filter_delay = self._resampler.delay
        return self._resampler

    def _send_frame(self, pcm: bytes) -> None:
        assert self._sockets.input is not None
        # Made here and not before the queue: some dialects number their messages.
        self._sockets.input.send(self._dialect.audio(pcm))
        self._flow.sent()

    def _ping(self, payload: bytes) -> None:
        assert self._sockets.input is not None
        self._sockets.input.ping(payload)

    def _blocked(self) -> bool:
        to_bot = self._sockets.input
        return to_bot is None or to_bot.congested or self._flow.closed

    def ask(self) -> None:
        """Ping the bot before the first frame, so that it is limited from the beginning."""
        self._flow.ask()

    def drain(self) -> None:
        """The bot may take frames again: send what waits."""
        self._queue.drain()

    def pong(self, payload: bytes) -> None:
        """A pong has come on the input socket."""
        if self._flow.pong(payload):
            self._queue.drain()

    def lose_sight(self) -> None:
        """Pongs cannot be read for now, and must not hold up the audio."""
        self._flow.lose_sight()
        self._queue.drain()

    @property
    def progress(self) -> bytes:
        """The payload of a ping that acknowledges everything sent so far."""
        return self._flow.progress

    @property
    def queued(self) -> int:
        """Frames that wait for the bot to read, in flight or in the queue."""
        return self._queue.depth + self._flow.in_flight

    def close(self) -> None:
        """Send nothing any more."""
        self._queue.close()
        self._flow.close()
