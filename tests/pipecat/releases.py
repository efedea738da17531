"""Pipecat's releases, each in an environment of its own, and their development runners."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import Agent

from tests.asterisk.pbx import PROJECT, free_port
from tests.asterisk.process import Program

reactor: Any = _reactor

ENVIRONMENTS = PROJECT / ".pipecat"
OLDEST, NEWEST = "1.3", "newest"
STEP = 0.02


class PeerError(Exception):
    """A runner did not start, or a bot did not do something in time."""


class Release:
    """One of the environments that `scripts/pipecat_envs.sh` makes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.python = ENVIRONMENTS / name / "bin" / "python"
        if not self.python.exists():
            raise PeerError(f"{self.python} is not there: run make test-pipecat")
        self._others: list[DevelopmentRunner] = []
        self._runners: dict[tuple[str, ...], DevelopmentRunner] = {}

    def run(self, *arguments: str) -> Program:
        """Run its Python, with the project's files in reach and nothing of the project's .venv."""
        settings = [f"PYTHONPATH={PROJECT}", "PYTHONUNBUFFERED=1"]
        return Program.run(["env", *settings, str(self.python), *arguments], str(PROJECT))

    async def runner(self, bot: str, *arguments: str) -> DevelopmentRunner:
        """The runner of a bot (a path in the project), started once for the whole suite."""
        key = (bot, *arguments)
        if key not in self._runners:
            runner = DevelopmentRunner(self, PROJECT / bot, arguments)
            await runner.listening()
            self._runners[key] = runner
        return self._runners[key]

    async def new_runner(self, bot: str, *arguments: str, port: int = 0) -> DevelopmentRunner:
        """A runner that a test has for itself, and may end."""
        runner = DevelopmentRunner(self, PROJECT / bot, arguments, port)
        self._others.append(runner)
        await runner.listening()
        return runner

    async def stop(self) -> None:
        """End its runners."""
        for runner in (*self._runners.values(), *self._others):
            await runner.process.stop()


class DevelopmentRunner:
    """`python bot.py --port N`: Pipecat's own runner, with whatever the bot prints.

    Or a server of the bot's own that takes the same arguments.
    """

    def __init__(
        self, release: Release, bot: Path, arguments: tuple[str, ...], port: int = 0
    ) -> None:
        self.port = port or free_port()
        where = ["--host", "localhost", "--port", str(self.port)]
        self.process = release.run(str(bot), *where, *arguments)
        self._agent = Agent(reactor)
        self._read = 0

    @property
    def url(self) -> str:
        """Its base URL; with another host name than `localhost` it would answer with wss://."""
        return f"http://localhost:{self.port}"

    async def listening(self) -> None:
        """Wait until it answers."""
        for _ in range(1500):
            if not self.process.running:
                break
            try:
                await treq.get(f"{self.url}/status", agent=self._agent, timeout=10)
            except ConnectError:
                await deferLater(reactor, STEP)
            else:
                return
        raise PeerError(f"the runner did not start:\n{self.log}")

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        more = {} if body is None else {"json": body}
        response = await treq.request(
            method, self.url + path, agent=self._agent, persistent=False, timeout=10, **more
        )
        return response.code, await response.json()

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self.process.printed.decode(errors="replace")

    def forget(self) -> None:
        """`seen` and `saw` begin anew."""
        self._read = len(self.process.printed)

    @property
    def seen(self) -> list[tuple[str, Any]]:
        """What the bot has seen since `forget`."""
        lines = self.process.printed[self._read :].decode(errors="replace").splitlines()
        found = []
        for line in lines:
            if line.startswith('{"saw"'):
                told = json.loads(line)
                found.append((told["saw"], told["value"]))
        return found

    async def saw(self, what: str, value: Any = None, timeout: float = 5.0) -> Any:
        """Wait until the bot has seen that, with that value unless it is None; its value."""
        for _ in range(round(timeout / STEP)):
            for name, found in self.seen:
                if name == what and value in (None, found):
                    return found
            await deferLater(reactor, STEP)
        raise PeerError(f"the bot has not seen {what} {value}, but {self.seen}\n{self.log[-4000:]}")


async def until(condition: Callable[[], Any], what: str, timeout: float = 10.0) -> None:
    """Wait for what happens in this process; raises PeerError."""
    for _ in range(round(timeout / STEP)):
        if condition():
            return
        await deferLater(reactor, STEP)
    raise PeerError(f"not within {timeout:g} s: {what}")
