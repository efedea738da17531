"""Events of calls: kinds, listeners, and lines in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct
from twisted.logger import Logger, LogLevel

from pipecat_bridge.errors import printable
from pipecat_bridge.net.rate_limit import RateLimit
from pipecat_bridge.wire import rtvi

LINES: Final = 20
LINES_PER_SECOND: Final = 3
"""Lines about the events of one call: so many at once, and so many a second after them."""

_KINDS: dict[type[rtvi.Event], str] = {
    rtvi.BotReady: "bot-ready",
    rtvi.UserTranscription: "user-transcription",
    rtvi.BotTranscription: "bot-transcription",
    rtvi.BotOutput: "bot-output",
    rtvi.BotLLMText: "bot-llm-text",
    rtvi.BotLLMStarted: "bot-llm-started",
    rtvi.BotLLMStopped: "bot-llm-stopped",
    rtvi.BotStartedSpeaking: "bot-started-speaking",
    rtvi.BotStoppedSpeaking: "bot-stopped-speaking",
    rtvi.UserStartedSpeaking: "user-started-speaking",
    rtvi.UserStoppedSpeaking: "user-stopped-speaking",
    rtvi.Metrics: "metrics",
    rtvi.BotError: "error",
    rtvi.ServerMessage: "server-message",
}


class CallEvent(Struct, frozen=True):
    """One event of one call; `time` in seconds since the epoch.

    `kind` is created, initialized, ready, terminated, rejected, dtmf, interrupted, attempt-failed,
    bot-lost, resumed, warning; hangup, transfer, set, play-dtmf, which are commands of the bot; or
    the type of an RTVI message that the bridge knows: user-transcription, bot-transcription,
    bot-llm-text and so on. `rtvi` is any other RTVI message; its type is in `data`.
    """

    call_id: str
    time: float
    kind: str
    data: dict[str, Any]


def told_by_bot(event: rtvi.Event) -> tuple[str, dict[str, Any]]:
    """Kind and data of an event that the bot sent."""
    if isinstance(event, rtvi.Other):
        # The type is not the kind: a bot may choose "terminated", which only the bridge may tell.
        return "rtvi", {"type": event.type, "data": event.data}
    return _KINDS[type(event)], msgspec.to_builtins(event)


EventListener = Callable[[CallEvent], None]


class Events:
    """Passes each event to every listener. A listener that fails does not disturb the call."""

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: list[EventListener] = []

    def subscribe(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` with each event from now on, until the returned function is called."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def publish(self, event: CallEvent) -> None:
        """Call all listeners with `event`."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener is not part of the call
                self._log.failure("{call_id} a listener failed", call_id=event.call_id)


LOGGED = {
    "attempt-failed",
    "bot-lost",
    "created",
    "dtmf",
    "hangup",
    "interrupted",
    "play-dtmf",
    "ready",
    "rejected",
    "terminated",
    "transfer",
}
"""Kinds that have a line in the log. The kind `warning` has one as well."""

ALWAYS = {"bot-lost", "created", "hangup", "ready", "terminated", "transfer"}
"""Kinds of which a call has few. There is always a line for them."""

WARNED = {"attempt-failed", "bot-lost", "rejected"}
"""Kinds whose line has the level of a warning."""


class _Lines:
    """The lines of one call, or of all phones that are refused."""

    __slots__ = ("left_out", "limit")

    def __init__(self) -> None:
        self.limit = RateLimit(LINES, LINES_PER_SECOND)
        self.left_out = 0


class EventLog:
    """Writes one line of log for each event that an operator wants to see.

    A caller or a bot can cause thousands of events a second. So the lines of a call are limited, to
    `LINES` at once and `LINES_PER_SECOND` after them, and those of refused phones as well. A later
    line says how many were left out.
    """

    _log = Logger(namespace="pipecat_bridge.call")

    def __init__(self) -> None:
        self._calls: dict[str, _Lines] = {}
        self._rejected = _Lines()

    def __call__(self, event: CallEvent) -> None:
        if event.kind == "created":
            self._calls[event.call_id] = _Lines()
        if event.kind == "warning" or (event.kind in LOGGED and self._admits(event)):
            self._write(event)
        if event.kind == "terminated":
            self._calls.pop(event.call_id, None)

    def _admits(self, event: CallEvent) -> bool:
        lines = self._rejected if event.kind == "rejected" else self._calls.get(event.call_id)
        if lines is None:
            return True
        if event.kind not in ALWAYS and not lines.limit.admit(event.time):
            lines.left_out += 1
            return False
        if lines.left_out:
            self._log.warn(
                "{call_id} {left_out} lines about events were left out: too many in a second",
                call_id="-" if event.kind == "rejected" else event.call_id,
                left_out=lines.left_out,
            )
            lines.left_out = 0
        return True

    def _write(self, event: CallEvent) -> None:
        if event.kind == "warning":
            self._log.warn(
                "{call_id} {kind}: {text}",
                call_id=event.call_id,
                kind=event.data["kind"],
                text=printable(event.data["text"]),
            )
        else:
            shown = {key: value for key, value in event.data.items() if value != ""}
            details = " ".join(f"{key}={printable(str(value))}" for key, value in shown.items())
            self._log.emit(
                LogLevel.warn if event.kind in WARNED else LogLevel.info,
                "{call_id} {kind} {details}" if details else "{call_id} {kind}",
                call_id=event.call_id,
                kind=event.kind,
                details=details,
                data=event.data,
            )
