"""The log as JSON, one flat object on each line, under twistd and twist."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from datetime import UTC, datetime
from typing import IO, Any, Final

from twisted.logger import FileLogObserver, eventAsText, formatEvent
from twisted.python.logfile import LogFile
from twisted.python.usage import Options

from pipecat_bridge.net.daemon import Daemon

Simple = str | int | float | bool

_OURS: Final = frozenset(("time", "level", "logger", "message", "call", "call_id", "traceback"))
"""Names of the members that every line may have. A field cannot have one of these names."""

_SAID: Final = frozenset(("details",))
"""Names of fields that appear only in the message."""

_LEGACY: Final = frozenset(("system", "isError", "format", "why", "failure", "printed"))
"""Names that Twisted's older log functions use for themselves."""


def write_json(daemon: Daemon, command: Options | None) -> None:
    """Let twistd or twist write the log as JSON, to the place where it writes its log.

    `command`: the options of twistd or twist, None if the daemon runs under neither. If twistd has
    the option `--logger`, this does nothing.
    """
    if command is None:
        return
    if "logFile" in command:  # twist
        command["fileLogObserverFactory"] = json_observer
    elif not command.get("logger"):
        if command.get("syslog"):
            sys.exit('[service] log_format = "json" is not for --syslog: expected --logfile')
        daemon.observer = json_observer(_twistd_file(command))


def json_observer(out: IO[Any]) -> FileLogObserver:
    """A log observer that writes JSON to `out`."""
    return FileLogObserver(out, as_line)


def as_line(event: dict[str, Any]) -> str | None:
    """A log event as a line of JSON; None if it has no message and no traceback."""
    message, traceback = message_of(event)
    if not message and not traceback:
        return None
    at = datetime.fromtimestamp(event.get("log_time") or time.time(), UTC)
    level = event.get("log_level")
    line: dict[str, Simple] = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name if level is not None else "info",
        "logger": _plain(str(event.get("log_namespace") or "-")),
        "message": message or traceback.splitlines()[-1],
    }
    if event.get("call_id"):
        line["call"] = _plain(str(event["call_id"]))
    data = event.get("data")
    line |= fields_of(data if isinstance(data, dict) else {}) | fields_of(event)
    if traceback:
        line["traceback"] = traceback
    # The line is ASCII, so it can be written with any locale.
    return json.dumps(line, allow_nan=False) + "\n"


def message_of(event: dict[str, Any]) -> tuple[str, str]:
    """The message of a log event, and its traceback or ""."""
    message = _plain(formatEvent(event))
    traceback = event.get("traceback")  # a worker's traceback, which is also in its message
    if isinstance(traceback, str):
        return message.removesuffix(f"\n{traceback}"), traceback
    if event.get("log_failure") is None:
        return message, ""
    whole = _plain(eventAsText(event, includeTimestamp=False, includeSystem=False))
    return message, whole.removeprefix(message).strip("\n")


def fields_of(event: dict[Any, Any]) -> dict[str, Simple]:
    """The fields of a log event with simple values, without Twisted's own and reserved names."""
    return {
        _plain(name): _plain(value)
        for name, value in event.items()
        if isinstance(name, str)
        and isinstance(value, (str, int, float))
        and name not in _OURS | _SAID | _LEGACY
        and not name.startswith("log_")
    }


def _plain(value: Any) -> Any:
    """The value if JSON can hold it; others, such as nan and lone surrogates, as text."""
    if isinstance(value, str):
        return str.__str__(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(1 << 63) <= value < 1 << 63 else str(value)
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _twistd_file(command: Options) -> Any:
    """The file to which twistd would log. Twistd itself can only write text there."""
    name = command.get("logfile")
    in_foreground = command.get("nodaemon")
    if name == "-" and not in_foreground:
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (in_foreground and not name):
        return sys.stdout
    file = LogFile.fromFullPath(name or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: _rotate(file))
    return file


def _rotate(file: LogFile) -> None:
    from twisted.internet import reactor

    reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]
