"""Runs the daemon as a subprocess, on free ports of the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import treq
from treq.client import HTTPClient
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseFailed

READY_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.25
REPORT_SECONDS: Final = 2.0
REQUEST_SECONDS: Final = 5.0
# How long the daemon may take to end after SIGTERM. Then it is killed.
STOP_SECONDS: Final = 15.0
TAIL_LINES: Final = 8

_TWISTD: Final = "from twisted.scripts.twistd import run; run()"


class DaemonError(Exception):
    """The daemon did not start, or ended. The text says why, with the last lines of its log."""


class Ports(NamedTuple):
    """The three ports of a daemon."""

    phone: int
    runner: int
    api: int


def free_ports() -> Ports:
    """Three ports of the loopback interface that are free now."""
    sockets = [socket.socket() for _ in Ports._fields]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return Ports(*(one.getsockname()[1] for one in sockets))
    finally:
        for one in sockets:
            one.close()


def configuration(ports: Ports, state: Path) -> str:
    """A configuration file with the embedded runner, these ports, and this folder for records."""
    endpoints = (f"tcp:{port}:interface=127.0.0.1" for port in ports)
    phone, runner, api = endpoints
    return (
        f'[audiosocket]\nlisten = "{phone}"\n\n'
        f'[runner]\nmode = "embedded"\nlisten = "{runner}"\n\n'
        f'[api]\nlisten = "{api}"\n\n'
        f"[store]\ndirectory = {json.dumps(str(state))}\n"
    )


def command_line(config: Path) -> list[str]:
    """The command that runs the daemon in the foreground, with this interpreter."""
    return [
        sys.executable,
        "-c",
        _TWISTD,
        "-n",
        "--pidfile=",
        "pipecat-bridge",
        "--config",
        str(config),
    ]


class DaemonProcess:
    """A daemon that runs `command` and serves its API on `api_port`. Its output goes to `log`.

    Call `start`, then `ready`, and at the end always `stop`.
    """

    def __init__(self, reactor: Any, command: list[str], api_port: int, log: Path) -> None:
        self._reactor = reactor
        self._command = command
        self._base = f"http://127.0.0.1:{api_port}"
        self._client = HTTPClient(Agent(reactor, connectTimeout=REQUEST_SECONDS))
        self._log = log
        self._process = _DaemonProtocol(log)

    def start(self) -> None:
        """Start the process. Must be called only once."""
        arguments = [part.encode() for part in self._command]
        # Variables in the shell are meant for another daemon.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PIPECAT_BRIDGE_")}
        self._reactor.spawnProcess(self._process, arguments[0], arguments, env=environment)

    async def ready(self, report: Callable[[str], None]) -> None:
        """Wait until ``/readyz`` answers 200. `report` gets a line of text every few seconds.

        Raises `DaemonError` if the process ends, or is not ready within 90 s.
        """
        start = self._reactor.seconds()
        reported = 0.0
        while True:
            reason = await self.not_ready()
            waited = self._reactor.seconds() - start
            if self._process.over is not None:
                raise DaemonError(
                    f"the bridge ended before it was ready ({self._process.over}){self._tail()}"
                )
            if not reason:
                return
            if waited > READY_SECONDS:
                raise DaemonError(
                    f"the bridge was not ready after {READY_SECONDS:g} s: {reason}{self._tail()}"
                )
            if waited - reported >= REPORT_SECONDS:
                reported = waited
                report(f"waiting for the bridge, {waited:.0f} s: {reason}")
            await deferLater(self._reactor, POLL_SECONDS)

    async def get(self, path: str) -> Any:
        """The JSON answer of the API to `path`; None if the status is not 200."""
        try:
            answer = await self._client.get(self._base + path, timeout=REQUEST_SECONDS)
            body = await treq.json_content(answer)
        except (error.ConnectError, error.TimeoutError, ResponseFailed, ValueError):
            return None
        return body if answer.code == 200 else None

    async def stop(self) -> None:
        """End the process by SIGTERM, and by SIGKILL after `STOP_SECONDS`."""
        await self._process.stop(self._reactor)

    def stop_now(self) -> Deferred[None]:
        """`stop`, for the reactor's shutdown."""
        return Deferred.fromCoroutine(self.stop())

    async def not_ready(self) -> str:
        """Why the daemon is not ready; "" if it is ready."""
        try:
            answer = await self._client.get(self._base + "/readyz", timeout=REQUEST_SECONDS)
            text = await treq.text_content(answer)
        except (error.ConnectError, error.TimeoutError, ResponseFailed):
            return "the API does not answer yet"
        return "" if answer.code == 200 else f"not ready yet: {_reasons(text)}"

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([f"; the end of {self._log}:", *(f"  {line}" for line in lines)])


def _reasons(text: str) -> str:
    """The reasons in a body of ``/readyz``, or the body itself."""
    with suppress(ValueError, TypeError, KeyError):
        return ", ".join(json.loads(text)["reasons"])
    return " ".join(text.split())[:200]


class _DaemonProtocol(ProcessProtocol):
    """Writes the output of the process to a file. `over`: how the process ended, or None."""

    def __init__(self, log: Path) -> None:
        self.over: str | None = None
        self._file = log.open("wb")
        self._ended: Deferred[None] = Deferred()
        self._killer: IDelayedCall | None = None

    def outReceived(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.over = reason.getErrorMessage()
        self._file.close()
        if self._killer is not None and self._killer.active():
            self._killer.cancel()
        self._ended.callback(None)

    async def stop(self, reactor: Any) -> None:
        if self.over is not None or self.transport is None:
            self._file.close()
            return
        if self._killer is None:
            self._signal("TERM")
            self._killer = reactor.callLater(STOP_SECONDS, self._signal, "KILL")
        await self._ended

    def _signal(self, name: str) -> None:
        if self.transport is not None:
            with suppress(error.ProcessExitedAlready):
                self.transport.signalProcess(name)
