"""Holds what a bot sends before it is ready. The call gets it only if the bot becomes ready."""

from __future__ import annotations

from typing import Final

from pipecat_bridge.contracts import ReadyBy
from pipecat_bridge.errors import brief
from pipecat_bridge.wire import commands, frames, rtvi

MAX_HELD: Final = 1 << 21
"""Bytes of a bot's messages that are held until it is ready: 43 s of audio at 24 kHz. No bot sends
more ahead. Above this limit the bot's socket is not read."""

MAX_FAULTS: Final = 20
"""Faults that are held; further ones are dropped."""

_PER_FRAME: Final = 256
"""Bytes that are added to the size of each message, because an empty one takes memory too."""


class Beginning:
    """Holds the frames of a bot that is not ready yet, and looks for signs in them.

    `ready_by`: what showed that the bot is ready, or None. `fatal`: the text of its fatal error, or
    "". `error`: the text of its last error, fatal or not, or "". `faults`: (kind of warning,
    sentence) for each of the first `MAX_FAULTS` messages that cannot be used.
    """

    def __init__(self) -> None:
        self.frames: list[frames.BotFrame] = []
        self.ready_by: ReadyBy | None = None
        self.fatal = ""
        self.error = ""
        self.faults: list[tuple[str, str]] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """True when no more should be read from the bot."""
        return self._bytes > MAX_HELD

    def add(self, frame: frames.BotFrame, size: int) -> None:
        """Hold one frame, which came in `size` bytes. Raises PeerError if it cannot be read."""
        if isinstance(frame, frames.Message):
            self._look_at_message(frame.data)
        elif isinstance(frame, frames.Text):
            self._look_at_command(commands.from_text(frame.text))
        elif isinstance(frame, frames.Audio) and frame.audio:
            self._ready("audio")
        self._bytes += size + _PER_FRAME
        self.frames.append(frame)

    def add_fault(self, kind: str, text: str) -> None:
        """Hold a fault of a message, for a warning later."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append((kind, text))

    def _look_at_message(self, data: str) -> None:
        value = commands.json_of(data)
        if command := commands.parse(value):
            self._look_at_command(command)
            return
        event = rtvi.parse(data) if value is None else rtvi.read(value)
        if isinstance(event, rtvi.BotReady):
            self._ready("bot-ready")
        elif isinstance(event, rtvi.BotError):
            self.error = brief(event.error)
            if event.fatal:
                self.fatal = self.error or "no text"
        elif isinstance(event, rtvi.ServerMessage):
            self._look_at_command(commands.parse(event.data))

    def _look_at_command(self, command: commands.Command | None) -> None:
        if isinstance(command, commands.Hangup | commands.Transfer):
            self._ready("command")

    def _ready(self, by: ReadyBy) -> None:
        if self.ready_by is None:
            self.ready_by = by
