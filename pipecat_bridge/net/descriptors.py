"""File descriptors: the limit is raised at the start, and it is seen when none is left."""

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
"""Seconds since one was wanted in vain, for which none is taken to be left."""

NONE_LEFT: Final = "no file descriptors are left"

EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE)
"""The system's errors for it: this process has none left, or nobody has."""

EXHAUSTED_HELP: Final = "Times that a file descriptor was wanted and none was left"

_ACCEPTING: Final = "twisted.internet.tcp.Port"
"""Who tells that a connection could not be accepted; Twisted tells it nowhere but in the log."""


def raise_limit() -> int:
    """Raise this process's soft limit to the hard one; how many descriptors it may have.

    The usual soft limit of 1024 is that of programs that call select(), and some 335 calls.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def limit() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@implementer(ILogObserver)
class Descriptors(Service):
    """Notices while it runs when a descriptor is wanted and none is left.

    `exhausted` counts these times. Each episode of them is one line of the log.
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
        """Whether one was wanted in vain just now."""
        return self._last is not None and self._clock.seconds() < self._last + EPISODE

    def wanted(self) -> None:
        """One was wanted, and none was left."""
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
        """Whether a connection failed for want of a descriptor, which is then noted."""
        number: Any = getattr(error, "osError", None)
        # Looking up a name wants descriptors too, and its errors tell of nothing else.
        looked_up = isinstance(error, DNSLookupError)
        found = number in EXHAUSTED or (looked_up and not _one_is_left())
        if found:
            self.wanted()
        return found

    def __call__(self, event: LogEvent) -> None:
        """Twisted refuses a connection by itself and goes on."""
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
