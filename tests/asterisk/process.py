"""Programs that the suite runs: each ends with the suite, and is ended by its process id."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure


class Program(ProcessProtocol):
    """A running program; `printed` is what it has written to both of its outputs."""

    def __init__(self) -> None:
        self.printed = b""
        self.ended: Deferred[None] = Deferred()
        self.pid = 0
        self.status: int | None = None

    @classmethod
    def run(cls, arguments: Sequence[str], folder: str | None = None) -> Program:
        """Start it. The kernel kills it when this process dies, however that happens."""
        program = cls()
        command = ["setpriv", "--pdeathsig", "KILL", *arguments]
        transport = reactor.spawnProcess(
            program, command[0], command, env=dict(os.environ), path=folder
        )
        program.pid = transport.pid
        return program

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return not self.ended.called

    def outReceived(self, data: bytes) -> None:
        self.printed += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.status = getattr(reason.value, "exitCode", None)
        self.ended.callback(None)

    def signal(self, number: int) -> Deferred[None]:
        """Send it a signal; fires when it has ended."""
        if self.running:
            os.kill(self.pid, number)
        return self.ended

    async def stop(self, patience: float = 10.0) -> None:
        """SIGTERM, and SIGKILL when that has not helped."""
        if self.running:
            kill = reactor.callLater(patience, self.signal, signal.SIGKILL)
            await self.signal(signal.SIGTERM)
            if kill.active():
                kill.cancel()

    async def line(self, timeout: float = 20.0) -> str:
        """The first line that it prints."""
        for _ in range(round(timeout / 0.05)):
            if b"\n" in self.printed:
                return self.printed.split(b"\n")[0].decode()
            if not self.running:
                break
            await deferLater(reactor, 0.05)
        raise RuntimeError(f"it has not said anything: {self.printed.decode(errors='replace')}")
