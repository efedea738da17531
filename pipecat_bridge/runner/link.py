"""The link to one bot: a call's frames both ways, over one WebSocket or two.

Who dials whom, and in which dialect they speak, is not its business: sockets are attached to it
when they are open.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pipecat_bridge.audio.pcm import FrameCutter
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.audio.resample import Resampler, make_resampler
from pipecat_bridge.options import CallerAudioOptions
from pipecat_bridge.runner.barge_in import BargeIns, Signal
from pipecat_bridge.runner.caller_queue import CallerQueue
from pipecat_bridge.runner.early import EarlyAudio
from pipecat_bridge.runner.flow import FlowWindow
from pipecat_bridge.runner.interfaces import BotSocket, Direction, LinkListener, LinkStats
from pipecat_bridge.runner.sockets import SocketPair
from pipecat_bridge.wire import commands, frames, rtvi
from pipecat_bridge.wire.dialect import Dialect

ROOM_CHECK = 0.1
"""Seconds between looks at a full playout queue, to read on from the bot when there is room."""

MAX_EARLY_MESSAGES = 100


def _nothing() -> None:
    """Nobody waits for it."""


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
        dialect: Dialect,
        options: CallerAudioOptions,
        ready_timeout: float,
        now: Callable[[], float],
        grace: float = 0.0,
    ) -> None:
        self.call_id = call_id
        self.dialect = dialect
        self._clock = clock
        self._playout = playout
        self._listener = listener
        self._options = options
        self._ready_timeout = ready_timeout
        self._now = now
        self._grace = grace
        self._rate = dialect.rate
        self._cutter = FrameCutter(dialect.frame_bytes) if dialect.frame_bytes else None
        self._early = EarlyAudio(options.keep_before_ready)
        self._early_messages: list[bytes] = []
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
        self.on_connected: Callable[[], None] = _nothing
        self.sockets = SocketPair(clock)
        self.stats = LinkStats()
        self.queue_stats = self._queue.stats

    # Sockets

    def attach(self, socket: BotSocket, direction: Direction) -> None:
        """Use an open socket for `direction`; with both there, the bot is asked to be ready."""
        self.sockets.add(socket, direction)
        if self.connected and not self._closed:
            self.on_connected()
            self._listener.bot_connected()
            self._begin()

    def _begin(self) -> None:
        """Ask the bot to be ready, unless the listener has ended the call."""
        if self._closed:
            return
        self.sockets.send(self.dialect.opening())
        self._flow.ask()
        if self._told_ready or not self.dialect.awaits_ready:
            self._become_ready()
        else:
            self._timer = self._clock.callLater(self._ready_timeout, self._become_ready)

    @property
    def connected(self) -> bool:
        """True once there was a socket for each direction."""
        return self.sockets.connected

    def abandon(self) -> None:
        """Let go of a bot that has opened one of its two sockets: another one is asked for."""
        self.sockets.abandon()

    def lost(self, socket: BotSocket, clean: bool, reason: str) -> None:
        """A socket has closed; `clean` when the peer did it in good order.

        The bot's last words may still be on their way where only its other socket has closed.
        """
        sockets = self.sockets
        sockets.remove(socket)
        if self._closed:
            return
        if clean and sockets.input is socket is not sockets.output is not None:
            self._ending = True
            sockets.end_output()
            return
        listener, connected = self._listener, self.connected
        self.close()
        if self._ending or (clean and connected):
            listener.bot_ended()
        else:
            listener.bot_lost(reason)

    def close(self) -> None:
        """Close all sockets; nothing is told to the listener any more.

        A bot that is asked to end, where its dialect can say that, has `grace` seconds to close
        by itself.
        """
        if self._closed:
            return
        self._closed = True
        # What points back is let go, so that the call leaves memory without a garbage collection.
        del self._listener, self._playout
        self.on_connected = _nothing
        for timer in (self._timer, self._room_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._room_timer = None
        self._queue.close()
        self._flow.close()
        self._early.take()
        farewell = self.dialect.closing() if self._ready else []
        self.sockets.send(farewell)
        self.sockets.close(self._grace if farewell else None)

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
        if self._cutter is None:
            self._queue.push(pcm)
            return
        for frame in self._cutter.cut(pcm):
            self._queue.push(frame)

    def send_digit(self, digit: str) -> None:
        """A key that the caller pressed."""
        self._send_beside(self.dialect.digit(digit))

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> bool:
        """Text, as if the caller had typed it; False when the bot's dialect has no words for it."""
        messages = self.dialect.text(content, run_immediately, audio_response)
        if messages is None:
            return False
        self._send_beside(messages)
        return True

    def _send_beside(self, messages: list[bytes]) -> None:
        """Messages past the queue of audio, never dropped; kept until the bot is ready."""
        if self._ready:
            self.sockets.send(messages)
        elif not self._closed and len(self._early_messages) < MAX_EARLY_MESSAGES:
            self._early_messages += messages

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
        self.sockets.send(self._early_messages)
        self._early_messages = []
        for pcm, rate in self._early.take():
            self.send_audio(pcm, rate)

    def _send_audio_frame(self, pcm: bytes) -> None:
        assert self.sockets.input is not None
        # Made here and not before the queue: some dialects number their messages.
        self.sockets.input.send(self.dialect.audio(pcm))
        self._flow.sent()

    def _ping(self, payload: bytes) -> None:
        assert self.sockets.input is not None
        self.sockets.input.ping(payload)

    def _blocked(self) -> bool:
        to_bot = self.sockets.input
        return to_bot is None or to_bot.congested or self._flow.closed

    def drained(self) -> None:
        """A socket that was congested is not any more."""
        self._queue.drain()

    def pong(self, socket: BotSocket, payload: bytes) -> None:
        """A pong has come; only on the socket of the audio it tells how far that was read."""
        if socket is self.sockets.input and self._flow.pong(payload):
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
            frame = self.dialect.decode(payload)
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
        sockets = self.sockets
        if sockets.output is None:
            return
        sockets.output.pause()
        self._room_timer = self._clock.callLater(ROOM_CHECK, self._check_room)
        if sockets.output is sockets.input:
            # Its pongs are not read either, and must not hold up the caller's audio.
            self._flow.lose_sight()
            self._queue.drain()

    def _check_room(self) -> None:
        self._room_timer = None
        if self._playout.full:
            self._room_timer = self._clock.callLater(ROOM_CHECK, self._check_room)
        elif self.sockets.output is not None:
            self.sockets.output.resume()

    def _receive_other(self, frame: frames.BotFrame) -> None:
        if isinstance(frame, frames.Interruption):
            self._interrupt("frame")
        elif isinstance(frame, frames.Message):
            self._receive_message(frame.data)
        elif isinstance(frame, frames.Text):
            self._receive_text(frame.text)
        elif isinstance(frame, frames.Transcription):
            said = rtvi.UserTranscription(frame.text, True, frame.timestamp, frame.user_id)
            self._listener.bot_event(said)
        elif isinstance(frame, frames.Mark):
            self._playout.mark(partial(self._played, frame.name))

    def _played(self, mark: str) -> None:
        if not self._closed:
            self.sockets.send(self.dialect.played(mark))

    def _receive_text(self, text: str) -> None:
        if text == frames.FLUSH_MEDIA:
            self._interrupt("text")
        elif command := commands.from_text(text):
            self._listener.bot_command(command)
        else:
            self._listener.bot_event(rtvi.BotOutput(text))

    def _receive_message(self, data: str) -> None:
        """RTVI, or a command from a bot that does not speak it."""
        if command := commands.from_text(data):
            self._listener.bot_command(command)
        else:
            self._receive_rtvi(rtvi.parse(data))

    def _receive_rtvi(self, event: rtvi.Event) -> None:
        if isinstance(event, rtvi.BotInterrupted):
            self._interrupt("rtvi")
            return
        if isinstance(event, rtvi.BotReady):
            self._told_ready = True
            if self.connected:
                self._become_ready()
        command = commands.parse(event.data) if isinstance(event, rtvi.ServerMessage) else None
        if not self._closed:
            self._listener.bot_event(event)
        if command is not None and not self._closed:
            self._listener.bot_command(command)

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
