"""The link to one bot: Pipecat's frames both ways, over one WebSocket or two.

Who dials whom is not its business: sockets are attached to it when they are open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from typing import Protocol as Interface

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pipecat_bridge import __version__
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.options import CallerAudioOptions
from pipecat_bridge.runner.barge_in import BargeIns, Signal
from pipecat_bridge.runner.caller_queue import CallerQueue
from pipecat_bridge.runner.early import EarlyAudio
from pipecat_bridge.runner.flow import FlowWindow
from pipecat_bridge.wire import frames, rtvi

Direction = Literal["input", "output", "both"]
"""As the bot sees it: `input` carries the caller's audio to it, `output` the bot's from it."""

ROOM_CHECK = 0.1
"""Seconds between looks at a full playout queue, to read on from the bot when there is room."""

MAX_EARLY_MESSAGES = 100


class BotSocket(Interface):
    """One open WebSocket."""

    @property
    def congested(self) -> bool:
        """True while bytes wait for the kernel."""
        ...

    def send(self, payload: bytes) -> None:
        """Send one binary message."""

    def ping(self, payload: bytes) -> None:
        """Send a ping."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read on."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; dropped when the peer does not answer."""


class LinkListener(Interface):
    """Who wants to know what a bot does."""

    def bot_connected(self) -> None:
        """All its sockets are open."""

    def bot_ready(self) -> None:
        """It takes audio."""

    def bot_event(self, event: rtvi.Event) -> None:
        """It told something."""

    def bot_interrupted(self) -> None:
        """It was interrupted by the caller; what it had said is no longer played."""

    def bot_ended(self) -> None:
        """It closed the link in good order."""

    def bot_lost(self, reason: str) -> None:
        """The link broke."""


@dataclass(slots=True)
class LinkStats:
    """Counters of what a bot sends."""

    frames_in: int = 0
    bad_frames: int = 0
    interruptions: int = 0
    filter_delay: float = 0.0


class BotLink:
    """Carries one call's frames. Caller audio that comes before the bot is ready is kept, the last
    `keep_before_ready` seconds of it: audio that arrives before a bot's pipeline runs kills it.
    """

    _log = Logger()

    def __init__(
        self,
        call_id: str,
        clock: IReactorTime,
        playout: Playout,
        listener: LinkListener,
        options: CallerAudioOptions,
        ready_timeout: float,
        now: Callable[[], float],
    ) -> None:
        self.call_id = call_id
        self._clock = clock
        self._playout = playout
        self._listener = listener
        self._options = options
        self._ready_timeout = ready_timeout
        self._now = now
        self._rate: int = options.sample_rate
        self._input: BotSocket | None = None
        self._output: BotSocket | None = None
        self._early = EarlyAudio(options.keep_before_ready)
        self._early_messages: list[str] = []
        self._told_ready = False
        self._ready = False
        self._closed = False
        self._ending = False
        self._timer: IDelayedCall | None = None  # until ready
        self._room_timer: IDelayedCall | None = None
        self._resampler: Resampler | None = None
        self._barge_ins = BargeIns()
        in_flight = min(int(options.in_flight * 50), options.queue_frames)
        self._flow = FlowWindow(in_flight, self._ping)
        self._queue = CallerQueue(
            clock,
            self._send_audio_frame,
            self._blocked,
            lambda: self._flow.in_flight,
            options.queue_frames,
            options.push_timeout,
            options.drop,
            options.catch_up,
        )
        self.stats = LinkStats()
        self.queue_stats = self._queue.stats

    # Sockets

    def attach(self, socket: BotSocket, direction: Direction) -> None:
        """Use an open socket for `direction`; with both there, the bot is asked to be ready."""
        if self._closed:
            socket.close(1000, "call ended")
            return
        if direction != "output":
            self._input = socket
        if direction != "input":
            self._output = socket
        if self.connected:
            self._listener.bot_connected()
            self._begin()

    def _begin(self) -> None:
        """Ask the bot to be ready, unless the listener has ended the call."""
        if self._closed:
            return
        self._send_message(rtvi.client_ready(__version__))
        self._flow.ask()
        if self._told_ready:
            self._become_ready()
        else:
            self._timer = self._clock.callLater(self._ready_timeout, self._become_ready)

    @property
    def connected(self) -> bool:
        """True once there was a socket for each direction."""
        return self._input is not None and self._output is not None

    def lost(self, socket: BotSocket, clean: bool, reason: str) -> None:
        """A socket has closed; `clean` when the peer did it in good order.

        The bot's last words may still be on their way where only its other socket has closed.
        """
        if self._closed:
            return
        if clean and self._input is socket is not self._output is not None:
            self._ending = True
            self._output.resume()
            self._output.close(1000, "call ended")
            return
        listener = self._listener
        self.close()
        if self._ending or (clean and self.connected):
            listener.bot_ended()
        else:
            listener.bot_lost(reason)

    def close(self) -> None:
        """Close all sockets; nothing is told to the listener any more."""
        if self._closed:
            return
        self._closed = True
        # What points back is let go, so that the call leaves memory without a garbage collection.
        del self._listener
        for timer in (self._timer, self._room_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._room_timer = None
        self._queue.close()
        self._flow.close()
        self._early.take()
        for socket in {self._input, self._output}:
            if socket is not None:
                socket.resume()  # or the answer to our close would never be read
                socket.close(1000, "call ended")

    # To the bot

    def send_audio(self, pcm: bytes, rate: int) -> None:
        """Caller audio, mono PCM16 at `rate`."""
        if not self._ready:
            if not self._closed:
                self._early.add(pcm, rate)
            return
        if rate != self._rate:
            resampler = self._resampler
            if resampler is None or resampler.rate_in != rate:
                resampler = self._make_resampler(rate)
            pcm = resampler.process(pcm)
            if not pcm:
                return
        self._queue.push(frames.encode_audio(pcm, self._rate))

    def send_message(self, text: str) -> None:
        """An RTVI message: past the queue of audio, never dropped; kept until the bot is ready."""
        if self._ready:
            self._send_message(text)
        elif len(self._early_messages) < MAX_EARLY_MESSAGES:
            self._early_messages.append(text)

    def _make_resampler(self, rate: int) -> Resampler:
        self._resampler = make_resampler(rate, self._rate, self._options.resampler)
        self.stats.filter_delay = self._resampler.delay
        return self._resampler

    def _become_ready(self) -> None:
        if self._ready or self._closed:
            return
        self._ready = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._listener.bot_ready()
        for text in self._early_messages:
            self._send_message(text)
        self._early_messages.clear()
        for pcm, rate in self._early.take():
            self.send_audio(pcm, rate)

    def _send_message(self, text: str) -> None:
        if self._input is not None and not self._closed:
            self._input.send(frames.encode_message(text))

    def _send_audio_frame(self, frame: bytes) -> None:
        assert self._input is not None
        self._input.send(frame)
        self._flow.sent()

    def _ping(self, payload: bytes) -> None:
        assert self._input is not None
        self._input.ping(payload)

    def _blocked(self) -> bool:
        return self._input is None or self._input.congested or self._flow.closed

    def drained(self) -> None:
        """A socket that was congested is not any more."""
        self._queue.drain()

    def pong(self, socket: BotSocket, payload: bytes) -> None:
        """A pong has come; only on the socket of the audio it tells how far that was read."""
        if socket is self._input and self._flow.pong(payload):
            self._queue.drain()

    @property
    def progress(self) -> bytes:
        """What a ping has to carry."""
        return self._flow.progress

    @property
    def queued(self) -> int:
        """Caller frames that wait for the bot to read, in flight or in the queue."""
        return self._queue.depth + self._flow.in_flight

    # From the bot

    def received(self, payload: bytes) -> None:
        """One binary message; nothing of what comes after `close`."""
        if self._closed:
            return
        try:
            frame = frames.decode(payload)
            if isinstance(frame, frames.Audio):
                self._receive_audio(frame)
            else:
                self._receive_other(frame)
        except ValueError as error:
            self.fault(str(error))

    def _receive_audio(self, frame: frames.Audio) -> None:
        self.stats.frames_in += 1
        self._playout.write(frame.audio, frame.rate, frame.channels, self._now())
        if self._playout.full and self._room_timer is None and not self._ending:
            self._pause()

    def _pause(self) -> None:
        if self._output is None:
            return
        self._output.pause()
        self._room_timer = self._clock.callLater(ROOM_CHECK, self._check_room)
        if self._output is self._input:
            # Its pongs are not read either, and must not hold up the caller's audio.
            self._flow.lose_sight()
            self._queue.drain()

    def _check_room(self) -> None:
        self._room_timer = None
        if self._playout.full:
            self._room_timer = self._clock.callLater(ROOM_CHECK, self._check_room)
        elif self._output is not None:
            self._output.resume()

    def _receive_other(self, frame: frames.BotFrame) -> None:
        if isinstance(frame, frames.Interruption):
            self._interrupt("frame")
        elif isinstance(frame, frames.Message):
            self._receive_rtvi(rtvi.parse(frame.data))
        elif isinstance(frame, frames.Text):
            if frame.text == frames.FLUSH_MEDIA:
                self._interrupt("text")
            else:
                self._listener.bot_event(rtvi.BotOutput(frame.text))
        elif isinstance(frame, frames.Transcription):
            said = rtvi.UserTranscription(frame.text, True, frame.timestamp, frame.user_id)
            self._listener.bot_event(said)

    def _receive_rtvi(self, event: rtvi.Event) -> None:
        if isinstance(event, rtvi.BotInterrupted):
            self._interrupt("rtvi")
            return
        if isinstance(event, rtvi.BotReady):
            self._told_ready = True
            if self.connected:
                self._become_ready()
        if not self._closed:
            self._listener.bot_event(event)

    def _interrupt(self, signal: Signal) -> None:
        if not self._barge_ins.is_new(signal, self._now()):
            return
        self.stats.interruptions += 1
        self._playout.flush()
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._check_room()
        self._listener.bot_interrupted()

    def fault(self, what: str) -> None:
        """The bot sent something that cannot be used: counted, and logged the first time."""
        self.stats.bad_frames += 1
        if self.stats.bad_frames == 1:
            self._log.warn(
                "{call_id} a message from the bot was dropped: {what}; further ones are only"
                " counted",
                call_id=self.call_id,
                what=what,
            )
