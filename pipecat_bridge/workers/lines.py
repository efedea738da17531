"""A worker's log: the worker writes lines of JSON, and the supervisor logs them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct, field
from twisted.logger import ILogObserver, Logger, LogLevel
from zope.interface import implementer

from pipecat_bridge.errors import printable
from pipecat_bridge.net.json_log import Simple, fields_of, message_of
from pipecat_bridge.net.supervised import LONGEST_LINE

SHORTENED: Final = (2000, 700)
"""Characters of a text and of a traceback that stay if a line would be too long; fewer if it still
is. In JSON a character may take six bytes."""


class LogLine(Struct, frozen=True):
    """One log event. `fields` and `data` are only in JSON logs."""

    level: str
    namespace: str
    text: str
    call_id: str = ""
    traceback: str = ""
    fields: dict[str, Simple] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


@implementer(ILogObserver)
class LineWriter:
    """A log observer that gives the events of a worker to `write`, as lines without their end."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def __call__(self, event: dict[str, Any]) -> None:
        text, traceback = message_of(event)
        line = LogLine(
            event["log_level"].name,
            str(event.get("log_namespace", "-")),
            text,
            str(event.get("call_id", "")),
            traceback,
            fields_of(event),
        )
        encoded = _encoded(line, event.get("data"))
        for most in SHORTENED:
            if len(encoded) > LONGEST_LINE:
                encoded = _encoded(_shortened(line, most), None)
        self._write(encoded)


def lost(lines: int) -> bytes:
    """A line that says that `lines` lines are missing."""
    text = f"{lines} lines of this log are missing: the supervisor did not take them"
    return msgspec.json.encode(LogLine("warn", "pipecat_bridge.workers", text))


def _shortened(line: LogLine, most: int) -> LogLine:
    """The line with texts of at most `most` characters. Of a traceback the end stays, because it
    says the most."""
    text, traceback = line.text, line.traceback
    if len(text) > most:
        text = text[:most] + ".."
    if len(traceback) > most:
        traceback = ".." + traceback[-most:]
    return msgspec.structs.replace(line, text=text, traceback=traceback, fields={})


def _encoded(line: LogLine, data: object) -> bytes:
    if isinstance(data, dict):
        try:
            return msgspec.json.encode(msgspec.structs.replace(line, data=data))
        except (TypeError, ValueError):
            pass  # JSON cannot hold `data`; the text is enough
    return msgspec.json.encode(line)


def relay(worker: int, written: bytes) -> None:
    """Log a line that a worker has written: a LogLine, or any text of Python or the system."""
    try:
        line = msgspec.json.decode(written, type=LogLine)
        level = LogLevel.lookupByName(line.level)
    except Exception:  # noqa: BLE001 - another process may write anything
        line = LogLine(
            "warn", "pipecat_bridge.workers", printable(written.decode("utf-8", "replace"))
        )
        level = LogLevel.warn
    more: dict[str, Any] = fields_of(line.fields)
    if line.data:
        more["data"] = line.data
    if line.call_id:
        more["call_id"] = line.call_id
    said = "worker {worker}: {log_line}"  # not {text}: `fields` may have that name
    if line.traceback:
        more["traceback"] = line.traceback
        said += "\n{traceback}"
    more |= {"worker": worker, "log_line": line.text}
    Logger(namespace=line.namespace).emit(level, said, **more)
