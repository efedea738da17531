"""Passes on what a ready bot sends: audio to the playout queue, everything else to the call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime

from pipecat_bridge.audio.pcm import is_silent
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import BotEventListener, LinkStats
from pipecat_bridge.errors import brief
from pipecat_bridge.runner.link.barge_in import BargeIns, Signal
from pipecat_bridge.runner.link.sockets import SocketPair
from pipecat_bridge.wire import commands, frames, rtvi
from pipecat_bridge.wire.dialect import Dialect


def _nobody() -> None:
    """Does nothing: there is no listener."""


class BotStream:
    """Takes the frames of one bot, in their order.

    `fatal`: the text of the bot's fatal error, or ""; `on_fatal` is called when that error comes.
    `ending`: the bot has closed its input socket in good order. `late_since`: the time
    in seconds when the bot connected, if `ready_timeout` and not the bot made it ready; else None.
    """

    def __init__(
        self,
        clock: IReactorTime,
        playout: Playout,
        listener: BotEventListener,
        sockets: SocketPair,
        dialect: Dialect,
        now: Callable[[], float],
    ) -> None:
        self.stats = LinkStats()
        self.fatal = ""
        self.on_fatal: Callable[[], None] = _nobody
        self.ending = False
        self.late_since: float | None = None
        self._clock = clock
        self._playout = playout
        self._listener = listener
        self._sockets = sockets
        self._dialect = dialect
        self._now = now
        self._closed = False
        self._barge_ins = BargeIns()

    def take(self, frame: frames.BotFrame) -> None:
        """Take one frame. Raises PeerError if it cannot be used."""
        if isinstance(frame, frames.Audio):
            stats, playout = self.stats, self._playout
            stats.frames_in += 1
            if not stats.spoke:
                stats.spoke = not is_silent(frame.audio)
            if not playout.write(frame.audio, frame.rate, frame.channels, self._now()):
                self._tell_full()
        elif isinstance(frame, frames.Interruption):
            self._interrupt("frame")
        elif isinstance(frame, frames.Message):
            self._take_message(frame.data)
        elif isinstance(frame, frames.Text):
            self._take_text(frame.text)
        elif isinstance(frame, frames.Transcription):
            said = rtvi.UserTranscription(frame.text, True, frame.timestamp, frame.user_id)
            self._listener.bot_event(said)
        elif isinstance(frame, frames.Mark):
            self._playout.mark(partial(self._played, frame.name))

    def _tell_full(self) -> None:
        ahead = self._playout.depth
        self.warn("queue-full", f"audio of the bot was dropped: it is {ahead:.0f} s ahead")

    def _played(self, mark: str) -> None:
        if not self._closed:
            self._sockets.send(self._dialect.played(mark))

    def _take_text(self, text: str) -> None:
        if text == frames.FLUSH_MEDIA:
            self._interrupt("text")
            return
        data = commands.json_of(text)
        if command := commands.parse(data):
            self._listener.bot_command(command)
        else:
            self._listener.bot_event(rtvi.BotOutput(text))
            self._tell_near_miss(data)

    def _take_message(self, data: str) -> None:
        """Take an RTVI message, or a command from a bot that does not speak RTVI."""
        value = commands.json_of(data)
        if command := commands.parse(value):
            self._listener.bot_command(command)
        else:
            self._tell_near_miss(value)
            self._take_rtvi(rtvi.parse(data) if value is None else rtvi.read(value))

    def _take_rtvi(self, event: rtvi.Event) -> None:
        if isinstance(event, rtvi.BotInterrupted):
            self._interrupt("rtvi")
            return
        if isinstance(event, rtvi.BotReady):
            self._check_late()
        elif isinstance(event, rtvi.BotError):
            self._take_error(event)
        data = event.data if isinstance(event, rtvi.ServerMessage) else None
        command = commands.parse(data)
        if not self._closed:
            self._listener.bot_event(event)
        if command is not None and not self._closed:
            self._listener.bot_command(command)
        self._tell_near_miss(data)

    def _tell_near_miss(self, data: object) -> None:
        if miss := commands.near_miss(data):
            self.warn("bad-command", miss)

    def _check_late(self) -> None:
        since, self.late_since = self.late_since, None
        if since is not None:
            self._listener.bot_warning(
                "bot-late",
                f"bot-ready came {self._clock.seconds() - since:.1f} s after the bot connected,"
                " later than [runner] ready_timeout allows",
            )

    def _take_error(self, event: rtvi.BotError) -> None:
        error = brief(event.error)
        self._listener.bot_warning("bot-error", f"the bot reports an error: {error}")
        if event.fatal and not self.fatal:
            self.fatal = error or "no text"
            self.on_fatal()

    def _interrupt(self, signal: Signal) -> None:
        if not self._barge_ins.is_new(signal, self._now()):
            return
        playout = self._playout  # the listener may close this
        self._listener.bot_interrupted()
        playout.flush()

    def warn(self, kind: str, text: str) -> None:
        """Report a fault of the bot to the call."""
        if not self._closed:
            self._listener.bot_warning(kind, text)

    def close(self) -> None:
        """Drop the listener and the playout queue, so that the call can be freed."""
        self._closed = True
        del self._listener, self._playout
        self.on_fatal = _nobody
