"""The start and the end of the daemon, with or without workers."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger

STOP_GRACE = 2.0
"""Seconds for hangups, closing handshakes and /stop to be sent when the daemon ends."""


class Daemon(MultiService, ABC):
    """Services that start together, and end on SIGTERM or SIGINT with exit status 0.

    `handles_signals`: False in a worker, whose supervisor handles the signals.
    `observer`: writes the log under twistd; None for twistd's own log.
    `in_background`: twistd runs as a background process, and its first process waits for the start.
    """

    _log = Logger(namespace="pipecat_bridge")

    def __init__(self, reactor: Any, handles_signals: bool = True) -> None:
        super().__init__()
        self.reactor = reactor
        self._handles_signals = handles_signals
        self.observer: ILogObserver | None = None
        self.in_background = False
        self._ending = False
        self._hurried = False
        self._lingering: Deferred[None] | None = None

    def setServiceParent(self, parent: Any) -> None:
        super().setServiceParent(parent)
        if self.observer is not None:
            parent.setComponent(ILogObserver, self.observer)  # twistd reads the component later

    def privilegedStartService(self) -> None:
        with exit_if_port_taken(self.in_background):
            super().privilegedStartService()

    def startService(self) -> None:
        # `twist` does not call privilegedStartService.
        with exit_if_port_taken(self.in_background):
            super().startService()
        # Set the handlers after the reactor has set its own.
        self.reactor.callWhenRunning(self.handle_signals)

    def handle_signals(self) -> None:
        """Let SIGTERM and SIGINT end the daemon with exit status 0, and SIGHUP open files again."""
        on_main_thread = threading.current_thread() is threading.main_thread()
        if not self._handles_signals or not on_main_thread:
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_end)
        signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(self._hang_up))

    def _told_to_end(self, number: int, frame: object) -> None:
        self.reactor.callFromThread(self._terminate, signal.Signals(number).name)

    def _terminate(self, name: str) -> None:
        if self._ending:
            self._log.info("{name} again: the calls are ended now", name=name)
            self._hurried = True
            self.end_calls()
            if self._lingering is not None:
                self._lingering.cancel()
        elif self.running:
            self._ending = True
            self._log.info("{name}: ending", name=name)
            self.reactor.stop()

    @abstractmethod
    def end_calls(self) -> None:
        """End every call now, after a second signal."""

    def _hang_up(self) -> None:
        self._log.info(
            "SIGHUP: files are opened again; the configuration is read at the start only"
        )
        self.reopen()

    def reopen(self) -> None:
        """Open files again that another program may have moved away."""

    def linger(self, last_end: float | None, seconds: float) -> Deferred[None]:
        """Fires `seconds` after the last call's end, because its dialplan may still ask the API.

        `last_end` is a time of the reactor's clock, None if there was no call. After a second
        signal this fires at once.
        """
        left = 0.0 if last_end is None else last_end + seconds - self.reactor.seconds()
        if self._hurried or left <= 0:
            return succeed(None)
        self._lingering = deferLater(self.reactor, left)
        return self._lingering.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def within(self, seconds: float, waiting: Deferred[Any]) -> Deferred[Any]:
        """Fires when `waiting` does, or after `seconds`. It never fails."""
        waiting.addTimeout(max(seconds, 0.001), self.reactor)
        return waiting.addErrback(lambda _: None)


class StartError(Exception):
    """The daemon cannot start; the text says why."""

    __module__ = "pipecat_bridge"  # twistd prints it, and cuts the text after 100 bytes


@contextmanager
def exit_if_port_taken(in_background: bool) -> Iterator[None]:
    """Exit with status 1 and a one-line message if a port is in use or cannot be listened on.

    In the background, raise StartError: twistd's first process prints it. If the second process
    only exited, the first one would wait for ever.
    """
    try:
        yield
    except CannotListenError as error:
        taken = getattr(error.socketError, "errno", None) == errno.EADDRINUSE
        text = f"{error} {'Is another bridge running? ' if taken else ''}{_PORTS}"
        if in_background:
            raise StartError(text) from None
        sys.exit(text)


_PORTS = "The ports are set by [audiosocket] listen, [runner] listen and [api] listen."
