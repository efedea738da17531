"""The runner that comes with the bridge: started, watched, restarted and stopped."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.options import EmbeddedOptions

_ANNOUNCED = re.compile(rb"listening on (http://\S+)")

LONGEST_LINE = 10_000
"""Bytes without a line's end, after which what there is is taken for a line."""

LAST_WORDS = 1.0
"""Seconds after the process's end in which its pipes are read; a child of its own may hold them."""

STABLE = 30.0
"""Seconds of running after which a crash is restarted without the delay of earlier ones."""


def missing_extra() -> str:
    """A sentence when the packages of the bot extra are not installed, else nothing."""
    if find_spec("pipecat") is None:
        return (
            'runner mode "embedded" needs Pipecat, which is not installed: install'
            ' "pipecat-bridge[bot]", or set [runner] mode = "dialback" and the url of a runner'
        )
    return ""


class EmbeddedRunner:
    """Supervises `python -m pipecat_bridge.bot`. Its URL is known once it listens."""

    _log = Logger(namespace="pipecat_bridge.runner")

    def __init__(self, reactor: Any, options: EmbeddedOptions, command: list[str] | None = None):
        self._reactor = reactor
        self._options = options
        self._command = command or [
            sys.executable,
            "-m",
            "pipecat_bridge.bot",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--exit-with-parent",
            *options.arguments,
        ]
        self._process: _Process | None = None
        self._base = ""
        self._waiting: list[Deferred[str]] = []
        self._timer: IDelayedCall | None = None  # to restart, or to give up a start
        self._delay = options.restart_delay
        self._stopped: Deferred[None] | None = None
        self.restarts = 0

    def url(self) -> Deferred[str]:
        """The runner's base URL, when it listens."""
        if self._base:
            return succeed(self._base)
        deferred: Deferred[str] = Deferred(self._waiting.remove)
        self._waiting.append(deferred)
        return deferred

    def start(self) -> None:
        """Start the process; it is started again whenever it ends."""
        self._started_at = self._reactor.seconds()
        self._process = _Process(self._reactor, self._say, self._listening, self._ended)
        # The environment is passed on whole: the keys of speech services are in it.
        try:
            self._reactor.spawnProcess(self._process, self._command[0], self._command, env=None)
        except OSError as error:
            self._ended(f"not started: {error}")
            return
        self._timer = self._reactor.callLater(self._options.start_timeout, self._not_listening)

    def stop(self) -> Deferred[None]:
        """End the process: SIGTERM, and SIGKILL after `stop_timeout`; fires when it is gone."""
        if self._stopped is not None:
            return self._stopped
        self._cancel_timer()
        if self._process is None:
            return succeed(None)
        self._stopped = Deferred()
        self._process.signal("TERM")
        self._timer = self._reactor.callLater(
            self._options.stop_timeout, self._process.signal, "KILL"
        )
        return self._stopped

    def _say(self, line: str) -> None:
        self._log.info("runner: {line}", line=line)

    def _listening(self, base: str) -> None:
        self._cancel_timer()
        self._base = base
        self._log.info("embedded runner listens on {base}", base=base)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(base)

    def _not_listening(self) -> None:
        self._timer = None
        assert self._process is not None
        self._log.error(
            "embedded runner does not listen after {seconds:g} s and is ended",
            seconds=self._options.start_timeout,
        )
        self._process.signal("KILL")

    def _ended(self, how: str) -> None:
        self._cancel_timer()
        self._base = ""
        self._process = None
        if self._stopped is not None:
            self._stopped.callback(None)
            return
        if self._reactor.seconds() - self._started_at > STABLE:
            self._delay = self._options.restart_delay
        self._log.error(
            "embedded runner ended ({how}), starts again in {delay:g} s",
            how=how,
            delay=self._delay,
        )
        self.restarts += 1
        self._timer = self._reactor.callLater(self._delay, self.start)
        self._delay = min(self._delay * 2, self._options.max_restart_delay)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class _Process(ProcessProtocol):
    """Cuts what the process says into lines."""

    def __init__(
        self,
        reactor: Any,
        say: Callable[[str], None],
        listening: Callable[[str], None],
        ended: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._say = say
        self._listening = listening
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
            self._take(childFD, line.strip())

    def _take(self, child_fd: int, line: bytes) -> None:
        announced = _ANNOUNCED.fullmatch(line) if child_fd == 1 else None
        if announced:
            self._listening(announced[1].decode())
        elif line:
            self._say(line.decode("utf-8", "replace"))

    def processExited(self, reason: Failure) -> None:
        assert self.transport is not None
        self._last_words = self._reactor.callLater(LAST_WORDS, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        if self._last_words is not None and self._last_words.active():
            self._last_words.cancel()
        for rest in self._rests.values():
            if rest.strip():
                self._say(rest.strip().decode("utf-8", "replace"))
        self._ended("exit status 0" if reason.check(ProcessDone) else reason.getErrorMessage())

    def signal(self, name: str) -> None:
        """Send a signal, unless the process has gone already."""
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess(name)
