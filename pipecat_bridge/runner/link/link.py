"""The link to one bot carries a call's frames both ways, over one WebSocket or two.

Open sockets are attached to the link. A link belongs to one attempt to start a bot, and tells its
listener whether the start succeeded: an open socket is not enough, the bot must be ready.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import BotEventListener, ReadyBy
from pipecat_bridge.errors import BlameError, FormatError, PeerError
from pipecat_bridge.net.guard import FAULT, guarded, reason_of
from pipecat_bridge.options import CallerAudioOptions
from pipecat_bridge.runner.link.beginning import Beginning
from pipecat_bridge.runner.link.bot_stream import BotStream
from pipecat_bridge.runner.link.caller_stream import CallerStream
from pipecat_bridge.runner.link.early import CallerMessage, Early
from pipecat_bridge.runner.link.ends import loss_of, start_error
from pipecat_bridge.runner.link.interfaces import (
    BotSocket,
    Direction,
    LinkListener,
    Loss,
    SocketClose,
)
from pipecat_bridge.runner.link.sockets import SocketPair
from pipecat_bridge.runner.link.turns import BUDGET, Turns
from pipecat_bridge.wire import frames
from pipecat_bridge.wire.commands import CommandError
from pipecat_bridge.wire.dialect import Dialect

FATAL_GRACE: Final = 2.0
"""Seconds for the bot to close after it reported a fatal error. Pipecat closes at once."""


class BotLink:
    """Carries the frames between one call and its bot.

    The caller's audio and messages are kept in `early` until the bot is ready, because audio that
    arrives before the bot's pipeline runs can kill the bot. What the bot sends before it is ready
    is held, and dropped if the start fails.
    """

    _log = Logger()

    def __init__(
        self,
        call_id: str,
        clock: IReactorTime,
        playout: Playout,
        listener: LinkListener,
        events: BotEventListener,
        dialect: Dialect,
        options: CallerAudioOptions,
        early: Early,
        ready_timeout: float,
        now: Callable[[], float],
        grace: float = 0.0,
    ) -> None:
        self.call_id = call_id
        self.dialect = dialect
        self._decode = dialect.decode
        self.ready = False
        self.sockets = SocketPair(clock)
        self.to_bot = CallerStream(clock, self.sockets, dialect, options)
        self.from_bot = BotStream(clock, playout, events, self.sockets, dialect, now)
        self._turns = Turns(clock, playout, self._take, self.sockets.hold)
        self._clock = clock
        self._listener = listener
        self._early: Early | None = early  # until the bot is ready
        self._ready_timeout = ready_timeout
        self._grace = grace
        self._beginning = Beginning()
        self._flowing = False  # the caller's audio goes to the bot
        self._closed = False
        self._connected_at = 0.0
        self._timer: IDelayedCall | None = None  # `ready_timeout`, or the wait after a fatal error
        self.from_bot.on_fatal = self._fatal

    # Sockets

    @guarded()
    def attach(self, socket: BotSocket, direction: Direction) -> None:
        """Use an open socket for `direction`. When both directions have one, the bot starts."""
        self.sockets.add(socket, direction)
        if self.connected and not self._closed:
            self._begin()

    def _begin(self) -> None:
        self._listener.link_connected()
        if self._closed:
            return
        self._connected_at = self._clock.seconds()
        self.sockets.send(self.dialect.opening())
        self.to_bot.ask()
        if not self.dialect.awaits_ready:
            self._start_flow()
        if self._beginning.ready_by is not None:
            self._become_ready(self._beginning.ready_by)
        else:
            self._timer = self._clock.callLater(self._ready_timeout, self._time_out)

    @property
    def connected(self) -> bool:
        """True after each direction got a socket."""
        return self.sockets.connected

    @guarded()
    def lost(self, socket: BotSocket, how: SocketClose) -> None:
        """Take note that a socket has closed. If only the input socket has, the bot's last audio
        may still come on the output socket."""
        self.sockets.remove(socket)
        if socket is self.sockets.output:
            self._turns.finish(partial(self._lost, socket, how))
        else:
            self._lost(socket, how)

    @guarded()
    def _lost(self, socket: BotSocket, how: SocketClose) -> None:
        sockets = self.sockets
        if self._closed:
            return
        if not self.ready:
            self.fail(start_error(how, self._beginning))
        elif how.clean and sockets.input is socket and sockets.output not in (socket, None):
            self.from_bot.ending = True
            sockets.end_output()
        else:
            self._end(loss_of(how, self.from_bot))

    def _end(self, loss: Loss | None) -> None:
        self._leave(lambda told: told.link_ended() if loss is None else told.link_lost(loss))

    def fail(self, error: BlameError) -> None:
        """End the link because the start failed. Does nothing if the bot is ready."""
        if not self.ready and not self._closed:
            self._leave(lambda told: told.link_failed(error))

    def broken(self, failure: Failure) -> None:
        """Log a fault of the bridge with its traceback, and end this call."""
        self._log.failure(FAULT, failure, call_id=self.call_id)
        if not self._closed:
            self._leave(lambda told: told.link_broken(reason_of(failure)))

    def _leave(self, tell: Callable[[LinkListener], None]) -> None:
        """Close the link, and tell the listener why; or that this was not possible."""
        listener = self._listener
        try:
            self.close()
            tell(listener)
        except Exception:  # noqa: BLE001 - any fault of the bridge ends only this call
            failure = Failure()
            self._log.failure(FAULT, failure, call_id=self.call_id)
            listener.link_broken(reason_of(failure))

    def close(self) -> None:
        """Close all sockets. The listeners are told nothing any more.

        A bot that the dialect can ask to end has `grace` seconds to close its sockets.
        """
        if self._closed:
            return
        self._closed = True
        # Drop references to the call, so that it is freed without the garbage collector.
        del self._listener
        self._early = None
        self._beginning = Beginning()
        with ExitStack() as stack:  # all of it, in this order from below, whatever one step raises
            stack.callback(self._close_sockets)
            stack.callback(self.from_bot.close)
            stack.callback(self.to_bot.close)
            stack.callback(self._turns.close)
            stack.callback(self._cancel_timer)

    def _close_sockets(self) -> None:
        farewell: list[bytes] = []
        try:
            farewell = self.dialect.closing() if self._flowing else []
            self.sockets.send(farewell)
        finally:
            self.sockets.close(self._grace if farewell else None)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # Ready

    @guarded()
    def _time_out(self) -> None:
        self.from_bot.late_since = self._connected_at
        self._become_ready("timeout")

    def _become_ready(self, by: ReadyBy) -> None:
        self.ready = True
        self._cancel_timer()
        self._listener.link_ready(by)
        if self._closed:
            return
        self._start_flow()
        self._early = None
        if self.sockets.output is not None:
            self.sockets.output.resume()
        held, self._beginning = self._beginning, Beginning()
        for kind, fault in held.faults:
            self.from_bot.warn(kind, fault)
        self._turns.begin(held.frames)

    def _start_flow(self) -> None:
        if self._flowing or self._early is None:
            return
        self._flowing = True
        for message in self._early.messages:
            self.sockets.send(message.encoded(self.dialect))
        for pcm, rate in self._early.audio.pieces:
            self.to_bot.send(pcm, rate)

    def _fatal(self) -> None:
        loss = loss_of(SocketClose(False, ""), self.from_bot)
        self._timer = self._clock.callLater(FATAL_GRACE, self._end, loss)

    # To the bot

    def send_audio(self, pcm: bytes, rate: int) -> None:
        """Send caller audio, mono PCM16 at `rate`. A ready bot can get it from `to_bot.send`."""
        if self._early is not None:
            self._early.audio.add(pcm, rate)
        if self._flowing:
            self.to_bot.send(pcm, rate)

    def send_message(self, message: CallerMessage) -> bool:
        """Send a key or a text. It passes the queue of audio. Before the bot is ready it is kept.

        False: it was dropped. Too much waits already for a bot that is not ready or does not read.
        """
        if self._early is not None and not self._early.add_message(message):
            return False
        return not self._flowing or self.sockets.send(message.encoded(self.dialect))

    @guarded()
    def drained(self) -> None:
        """A congested socket takes data again."""
        self.to_bot.drain()

    @guarded()
    def pong(self, socket: BotSocket, payload: bytes) -> None:
        """Take a pong. On the input socket it shows how much audio the bot has read."""
        if socket is self.sockets.input:
            self.to_bot.pong(payload)

    # From the bot

    def received(self, payload: bytes) -> None:
        """Take one message. After `close` messages are ignored."""
        if self._closed:
            return
        try:
            frame = self._decode(payload)
            if self.ready:
                if self._turns.busy or len(payload) > BUDGET:
                    self._turns.add([frame])
                else:
                    self.from_bot.take(frame)
            else:
                self._take_early(frame, len(payload))
        except PeerError as error:
            self._refuse(error)
        except Exception:  # noqa: BLE001 - any fault of the bridge ends only this call
            self.broken(Failure())

    @guarded()
    def _take(self, frame: frames.BotFrame) -> None:
        """Take a frame that has waited. After `close` frames are ignored."""
        if self._closed:
            return
        try:
            self.from_bot.take(frame)
        except PeerError as error:
            self._refuse(error)

    def _take_early(self, frame: frames.BotFrame, size: int) -> None:
        beginning = self._beginning
        beginning.add(frame, size)
        if beginning.fatal:
            self.fail(PeerError(f"the bot reported a fatal error: {beginning.fatal}"))
        elif beginning.ready_by is not None and self.connected:
            self._become_ready(beginning.ready_by)
        elif beginning.full and self.sockets.output is not None:
            self.sockets.output.pause()

    @guarded()
    def misspoken(self, what: str) -> None:
        """The bot sent a kind of message that its dialect does not have."""
        if self.ready:
            self._refuse(FormatError(what))
        else:
            self.fail(PeerError(f"the bot speaks another protocol: {what}"))

    def _refuse(self, error: PeerError) -> None:
        self.from_bot.stats.bad_frames += 1
        kind = "bad-command" if isinstance(error, CommandError) else "bad-message"
        tell = self.from_bot.warn if self.ready else self._beginning.add_fault
        tell(kind, f"a message from the bot was dropped: {error}")
