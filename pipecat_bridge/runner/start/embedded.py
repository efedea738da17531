"""Starts, watches, restarts and stops the embedded runner."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessProtocol
from twisted.logger import Logger

from pipecat_bridge.errors import printable
from pipecat_bridge.net.supervised import Supervised
from pipecat_bridge.options import EmbeddedOptions
from pipecat_bridge.runner.pool.announced import AnnouncedAddress

_ANNOUNCED = re.compile(rb"listening on (http://[!-~]+)")


def missing_extra() -> str:
    """An error sentence if the packages of the bot extra are not installed, else ""."""
    if find_spec("pipecat") is None:
        return (
            'runner mode "embedded" needs Pipecat, which is not installed: pip install ".[bot]"'
            " in the checkout, or set [runner] mode and url for a bot of your own"
        )
    return ""


class EmbeddedRunner:
    """Keeps `python -m pipecat_bridge.embedded` running. The URL is known when it listens."""

    _log = Logger(namespace="pipecat_bridge.runner")

    def __init__(self, reactor: Any, options: EmbeddedOptions, command: list[str] | None = None):
        self._reactor = reactor
        self._command = command or [
            sys.executable,
            "-m",
            "pipecat_bridge.embedded",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--exit-with-parent",
            *options.arguments,
        ]
        self._process = Supervised(reactor, "embedded runner", self, options, self._log)
        self._address = AnnouncedAddress()
        self.on_change: Callable[[str], None] = lambda base: None

    @property
    def restarts(self) -> int:
        """How often the process was started again."""
        return self._process.restarts

    def url(self) -> Deferred[str]:
        """Fires with the runner's base URL when it listens."""
        return self._address.url()

    def refused(self, base: str) -> bool:
        """Forget `base`: the runner has ended and is started again. Always True."""
        return self._address.refused(base)

    @property
    def base(self) -> str:
        """The runner's base URL; "" while it does not listen. `on_change` gets each new value."""
        return self._address.base

    def start(self) -> None:
        """Start the process. It is started again whenever it ends."""
        self._process.start()

    def stop(self) -> Deferred[None]:
        """End the process, by SIGKILL after `stop_timeout`. Fires when it has ended.

        Closing its standard input ends the process. It ignores other signals: terminals and service
        managers signal whole process groups, and the runner must live until the last call has
        ended. While it starts it does not read its input, so then it is killed.
        """
        return self._process.stop(self._end)

    def _end(self) -> None:
        if self.base:
            self._process.close_stdin()
        else:
            self._process.kill()

    # From the process

    def spawn(self, process: IProcessProtocol) -> None:
        """Start the process once, with the whole environment: keys of speech services are in it."""
        self._reactor.spawnProcess(process, self._command[0], self._command, env=None)

    def take(self, child_fd: int, line: bytes) -> None:
        """Take a line of the process: its URL, or a line for the log."""
        announced = _ANNOUNCED.fullmatch(line) if child_fd == 1 else None
        if announced:
            self._listening(announced[1].decode())
        else:
            self._log.info("runner: {line}", line=printable(line.decode("utf-8", "replace")))

    def ended(self) -> None:
        """The process has ended: its URL is not valid any more."""
        self._announce("")

    def _listening(self, base: str) -> None:
        self._process.listens()
        self._log.info("embedded runner listens on {base}", base=base)
        self._announce(base)

    def _announce(self, base: str) -> None:
        self._address.announce(base)
        self.on_change(base)
