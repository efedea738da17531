"""How the daemon begins and ends, as one process or as several."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger

STOP_GRACE = 2.0
"""Seconds that hangups, closing handshakes and /stop have to go out when the daemon ends."""


class Daemon(MultiService):
    """Services that start together, and end on SIGTERM or SIGINT with exit status 0.

    `handles_signals`: false for a process whose supervisor handles them.
    `observer` writes the log when the daemon runs under twistd; None: twistd's own does.
    `in_background`: twistd has gone there when the services start, and waits to hear of it.
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
            parent.setComponent(ILogObserver, self.observer)  # twistd asks for it after this

    def privilegedStartService(self) -> None:
        with exit_if_port_taken(self.in_background):
            super().privilegedStartService()

    def startService(self) -> None:
        # twist, other than twistd, does not ask for the above.
        with exit_if_port_taken(self.in_background):
            super().startService()
        # The reactor sets its own handlers when it starts.
        self.reactor.callWhenRunning(self.handle_signals)

    def end_calls(self) -> None:
        """End the calls that run, at once."""
        raise NotImplementedError

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT end in good order, with exit status 0; SIGHUP does not end it."""
        on_main_thread = threading.current_thread() is threading.main_thread()
        if not self._handles_signals or not on_main_thread:
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_end)
        signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(self._ignore_hup))

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

    def _ignore_hup(self) -> None:
        self._log.info("SIGHUP ignored: the configuration is read at the start only")

    def linger(self, last_end: float | None, seconds: float) -> Deferred[None]:
        """Fires `seconds` after the last call's end: its dialplan may still ask the API.

        `last_end` is on the reactor's clock, None when there was no call. After a second signal
        nobody is waited for.
        """
        left = 0.0 if last_end is None else last_end + seconds - self.reactor.seconds()
        if self._hurried or left <= 0:
            return succeed(None)
        self._lingering = deferLater(self.reactor, left)
        return self._lingering.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def within(self, seconds: float, waiting: Deferred[Any]) -> Deferred[Any]:
        """Fires with `waiting`, but after `seconds` at the latest; it never fails."""
        waiting.addTimeout(max(seconds, 0.001), self.reactor)
        return waiting.addErrback(lambda _: None)


class StartError(Exception):
    """The daemon cannot start; the text says why."""


@contextmanager
def exit_if_port_taken(in_background: bool) -> Iterator[None]:
    """Exit with status 1 and a one-line message if a port is in use or cannot be listened on.

    In the background it is an exception: twistd's first process prints it, and waits for ever if
    its second one just exits.
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
