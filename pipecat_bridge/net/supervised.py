"""Keeps a child process running: starts it, restarts it with a growing delay, and ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall, IProcessProtocol
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

LONGEST_LINE = 10_000
"""Longest line in bytes. A longer line is cut there."""

LAST_WORDS = 1.0
"""Seconds after the process's end in which its pipes are read. A child of the process may keep them
open for longer."""

STABLE = 30.0
"""Seconds. If the process ran for longer, its restart has the first delay again."""


class ProcessTimes(Protocol):
    """Timeouts and delays of a process, in seconds."""

    @property
    def start_timeout(self) -> float:
        """Time in which the process must be ready."""
        ...

    @property
    def stop_timeout(self) -> float:
        """Time from the request to end to SIGKILL."""
        ...

    @property
    def restart_delay(self) -> float:
        """Delay before the first restart. The delay doubles with each further restart."""
        ...

    @property
    def max_restart_delay(self) -> float:
        """The longest delay before a restart."""
        ...


class ProcessListener(Protocol):
    """Starts the process, takes its output, and is told when it ends."""

    def spawn(self, process: IProcessProtocol) -> None:
        """Start the process. Raises OSError if that is not possible."""

    def take(self, child_fd: int, line: bytes) -> None:
        """Take a line from the process, without white space around it. `child_fd`: 1 or 2."""

    def ended(self) -> None:
        """The process has ended, or could not be started."""


class Supervised:
    """Keeps one process running. `name` is for the log. `restarts` counts unexpected ends."""

    def __init__(
        self, reactor: Any, name: str, listener: ProcessListener, times: ProcessTimes, log: Logger
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._listener = listener
        self._times = times
        self._log = log
        self._process: _Process | None = None
        self._timer: IDelayedCall | None = None  # for the restart, or for SIGKILL
        self._delay = times.restart_delay
        self._stopped: Deferred[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id; None if the process does not run."""
        transport = self._process.transport if self._process is not None else None
        return transport.pid if transport is not None else None

    def start(self) -> None:
        """Start the process. It is started again whenever it ends."""
        self._started_at = self._reactor.seconds()
        self._process = _Process(self._reactor, self._listener.take, self._ended)
        try:
            self._listener.spawn(self._process)
        except OSError as error:
            self._ended(f"not started: {error}")
            return
        self._timer = self._reactor.callLater(self._times.start_timeout, self._not_listening)

    def listens(self) -> None:
        """Take note that the process is ready: `start_timeout` does not apply any more."""
        self._cancel_timer()

    def stop(self, tell: Callable[[], None] | None = None) -> Deferred[None]:
        """End the process by `tell`, by default SIGTERM, and by SIGKILL after `stop_timeout`.

        Fires when the process has ended. It is not started again.
        """
        if self._stopped is not None:
            return self._stopped
        self._cancel_timer()
        if self._process is None:
            self._stopped = succeed(None)
            return self._stopped
        self._stopped = Deferred()
        process = self._process
        self._timer = self._reactor.callLater(self._times.stop_timeout, process.signal, "KILL")
        if tell is None:
            process.signal("TERM")
        else:
            tell()
        return self._stopped

    def close_stdin(self) -> None:
        """Close the standard input of the process. A process that watches its input then ends."""
        if self._process is not None:
            self._process.close_stdin()

    def expect_exit(self) -> None:
        """Kill the process if it has not exited within `stop_timeout`."""
        if self._stopped is None and self._process is not None:
            self._cancel_timer()
            self._timer = self._reactor.callLater(self._times.stop_timeout, self.kill)

    def kill(self) -> None:
        """End the process by SIGKILL now."""
        if self._process is not None:
            self._process.signal("KILL")

    def _not_listening(self) -> None:
        self._timer = None
        self._log.error(
            "{name} is not ready after {seconds:g} s and is killed",
            name=self._name,
            seconds=self._times.start_timeout,
        )
        self.kill()

    def _ended(self, how: str) -> None:
        self._cancel_timer()
        self._process = None
        self._listener.ended()
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        if self._reactor.seconds() - self._started_at > STABLE:
            self._delay = self._times.restart_delay
        self._log.error(
            "{name} ended ({how}), starts again in {delay:g} s",
            name=self._name,
            how=how,
            delay=self._delay,
        )
        self.restarts += 1
        self._timer = self._reactor.callLater(self._delay, self.start)
        self._delay = min(self._delay * 2, self._times.max_restart_delay)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class _Process(ProcessProtocol):
    """Splits the output of the process into lines."""

    def __init__(
        self, reactor: Any, take: Callable[[int, bytes], None], ended: Callable[[str], None]
    ) -> None:
        self._reactor = reactor
        self._take = take
        self._ended = ended
        self._rests = {1: b"", 2: b""}
        self._last_words: IDelayedCall | None = None

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._rests[childFD] + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines.append(rest)
            rest = b""
        self._rests[childFD] = rest
        for line in lines:
            if stripped := line.strip():
                self._take(childFD, stripped)

    def processExited(self, reason: Failure) -> None:
        assert self.transport is not None
        self._last_words = self._reactor.callLater(LAST_WORDS, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        if self._last_words is not None and self._last_words.active():
            self._last_words.cancel()
        for child_fd, rest in self._rests.items():
            if stripped := rest.strip():
                self._take(child_fd, stripped)
        self._ended("exit status 0" if reason.check(ProcessDone) else reason.getErrorMessage())

    def close_stdin(self) -> None:
        """Close the standard input of the process, unless the process has ended."""
        if self.transport is not None:
            self.transport.closeStdin()

    def signal(self, name: str) -> None:
        """Send a signal, unless the process has ended."""
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess(name)
