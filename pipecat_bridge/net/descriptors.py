"""File descriptors: raises the limit at the start, and notices when no descriptor is left."""

from __future__ import annotations

import errno
import os
import resource
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, globalLogPublisher
from zope.interface import implementer

EPISODE: Final = 5.0
"""Seconds after a failure to get a descriptor in which none is assumed to be left."""

NONE_LEFT: Final = "no file descriptors are left"

EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)
"""Error numbers: this process has no descriptor left (EMFILE), or the system has none (ENFILE)."""

EXHAUSTED_HELP: Final = "Times that a file descriptor was needed and none was left"

_ACCEPTING: Final = "twisted.internet.tcp.Port"
"""The logger of connections that could not be accepted. Twisted reports them only in the log."""


def raise_limit() -> int:
    """Raise this process's soft limit to the hard limit, and return the limit.

    The usual soft limit is 1024, for programs that call select(). It is enough for some 335 calls.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def limit() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@implementer(ILogObserver)
class Descriptors(Service):
    """Notices, while it runs, that a descriptor is needed and none is left.

    `exhausted` counts these failures. The log gets one line for failures that follow each other
    within `EPISODE` seconds.
    """

    _log = Logger(namespace="pipecat_bridge")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._last: float | None = None
        self.exhausted = 0

    def startService(self) -> None:
        super().startService()
        globalLogPublisher.addObserver(self)

    def stopService(self) -> None:
        super().stopService()
        globalLogPublisher.removeObserver(self)

    @property
    def none_left(self) -> bool:
        """Whether a descriptor could not be had in the last `EPISODE` seconds."""
        return self._last is not None and self._clock.seconds() < self._last + EPISODE

    def wanted(self) -> None:
        """Count that a descriptor was needed and none was left."""
        self.exhausted += 1
        begins = not self.none_left
        self._last = self._clock.seconds()
        if begins:
            self._log.error(
                NONE_LEFT + " of {limit}: phones, bots and requests are refused."
                " Raise LimitNOFILE of the service, or lower [calls] max_calls",
                limit=limit(),
            )

    def is_cause(self, error: BaseException) -> bool:
        """Whether a connection failed because no descriptor was left. If so, it is counted."""
        number: Any = getattr(error, "osError", None)
        # A DNS lookup needs descriptors too, but its error does not say that none was left.
        looked_up = isinstance(error, DNSLookupError)
        found = number in EXHAUSTED or (looked_up and not _one_is_left())
        if found:
            self.wanted()
        return found

    def __call__(self, event: LogEvent) -> None:
        """Count the connections that Twisted could not accept: they are only in the log."""
        if event.get("log_namespace") != _ACCEPTING:
            return
        text, error = event.get("log_format") or "", event.get("acceptError")
        if text.startswith("EMFILE encountered") or error in ("EMFILE", "ENFILE"):
            self.wanted()


def _one_is_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in EXHAUSTED
    return True
