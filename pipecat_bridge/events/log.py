"""Lines in the log about events of calls."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from twisted.logger import Logger, LogLevel

from pipecat_bridge.errors import printable
from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.events.kinds import CallEnded
from pipecat_bridge.events.notes import Warned
from pipecat_bridge.events.record import REJECTED
from pipecat_bridge.net.rate_limit import RateLimit

LINES: Final = 20
LINES_PER_SECOND: Final = 3
"""Lines about the events of one call: so many at once, and so many a second after them."""

LOGGED: Final = {
    "bot.error",
    "bot.lost",
    "bot.resumed",
    "call.created",
    "call.ended",
    "call.ready",
    "dtmf",
    "hangup",
    "interrupted",
    "play-dtmf",
    "recording.ready",
    "recording.started",
    "rejected",
    "transfer",
}
"""Kinds that have a line in the log. The kind `warning` has one as well."""

ALWAYS: Final = {
    "bot.lost",
    "bot.resumed",
    "call.created",
    "call.ended",
    "call.ready",
    "hangup",
    "recording.ready",
    "recording.started",
    "transfer",
}
"""Kinds of which a call has few. There is always a line for them."""

WARNED: Final = {"bot.error", "bot.lost", "rejected"}
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
        kind = event.kind
        if event.quiet:
            return
        if isinstance(event.data, CallEnded) and event.data.record.outcome == REJECTED:
            return  # the phone was refused, which has a line of its own
        if kind == "call.created":
            self._calls[event.call_id] = _Lines()
        if kind == "warning" or (kind in LOGGED and self._admits(event)):
            self._write(event)
        if kind == "call.ended":
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
        if isinstance(event.data, Warned):
            self._log.warn(
                "{call_id} warning {kind}: {text}",
                call_id=event.call_id,
                kind=event.data.kind,
                text=printable(event.data.text),
            )
            return
        data = _shown(event)
        details = " ".join(f"{key}={printable(str(value))}" for key, value in data.items())
        self._log.emit(
            LogLevel.warn if event.kind in WARNED else LogLevel.info,
            "{call_id} {kind} {details}" if details else "{call_id} {kind}",
            call_id=event.call_id,
            kind=event.kind,
            details=details,
            data=data,
        )


def _shown(event: CallEvent) -> dict[str, Any]:
    """The members of an event's data that are in its line; of a record, only how the call ended."""
    data: dict[str, Any] = msgspec.to_builtins(event.data)
    if isinstance(event.data, CallEnded):
        data = {key: data["record"].get(key, "") for key in ("outcome", "reason", "duration")}
    return {key: value for key, value in data.items() if value != ""}
