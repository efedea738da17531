"""The runner that comes with the bridge: started, watched, restarted and stopped."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProcessProtocol
from twisted.logger import Logger

from pipecat_bridge.net.supervised import Supervised
from pipecat_bridge.options import EmbeddedOptions
from pipecat_bridge.runner.pool.announced import AnnouncedAddress

_ANNOUNCED = re.compile(rb"listening on (http://\S+)")


def missing_extra() -> str:
    """A sentence when the packages of the bot extra are not installed, else nothing."""
    if find_spec("pipecat") is None:
        return (
            'runner mode "embedded" needs Pipecat, which is not installed: pip install ".[bot]"'
            " in the checkout, or set [runner] mode and url for a bot of your own"
        )
    return ""


class EmbeddedRunner:
    """Keeps `python -m pipecat_bridge.embedded` running. Its URL is known once it listens."""

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
        """How often it was started again."""
        return self._process.restarts

    def url(self) -> Deferred[str]:
        """The runner's base URL, when it listens."""
        return self._address.url()

    def refused(self, base: str) -> bool:
        """It has ended, and is started again."""
        return self._address.refused(base)

    @property
    def base(self) -> str:
        """The same, empty while it does not listen; `on_change` is called with it."""
        return self._address.base

    def start(self) -> None:
        """Start the process; it is started again whenever it ends."""
        self._process.start()

    def stop(self) -> Deferred[None]:
        """End the process, by SIGKILL after `stop_timeout`; fires when it is gone.

        It ends when its standard input is closed, and by no signal: those of terminals and service
        managers go to whole groups of processes, and it has to outlive the calls that drain. While
        it starts it does not look at its input yet.
        """
        return self._process.stop(self._end)

    def _end(self) -> None:
        if self.base:
            self._process.close_stdin()
        else:
            self._process.kill()

    # From the process

    def spawn(self, process: IProcessProtocol) -> None:
        """Start it once. The environment is passed on whole: keys of speech services are in it."""
        self._reactor.spawnProcess(process, self._command[0], self._command, env=None)

    def take(self, child_fd: int, line: bytes) -> None:
        """A line that it has written: where it listens, or for the log."""
        announced = _ANNOUNCED.fullmatch(line) if child_fd == 1 else None
        if announced:
            self._listening(announced[1].decode())
        else:
            self._log.info("runner: {line}", line=line.decode("utf-8", "replace"))

    def ended(self) -> None:
        """It is not there any more."""
        self._announce("")

    def _listening(self, base: str) -> None:
        self._process.listens()
        self._log.info("embedded runner listens on {base}", base=base)
        self._announce(base)

    def _announce(self, base: str) -> None:
        self._address.announce(base)
        self.on_change(base)
