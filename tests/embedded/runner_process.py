"""The runner as its users start it: a process that says where it listens."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any

import aiohttp


class RunnerProcess:
    """`python -m pipecat_bridge.embedded --port 0`, with its HTTP interface.

    `alone`: it is nobody's child, and ends by signals.
    """

    def __init__(
        self, *arguments: str, env: dict[str, str] | None = None, alone: bool = False
    ) -> None:
        own = () if alone else ("--exit-with-parent",)
        self._arguments = ("-m", "pipecat_bridge.embedded", "--port", "0", *own, *arguments)
        self._env = env
        self.log: list[str] = []

    async def __aenter__(self) -> RunnerProcess:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
        )
        self._reader = asyncio.create_task(self._read_log())
        assert self.process.stdout is not None
        line = (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode()
        assert line.startswith("listening on http://127.0.0.1:"), (line, self.log)
        self.url = line.removeprefix("listening on ").strip()
        self._http = aiohttp.ClientSession(self.url)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 60)
        await self._reader
        if error is not None:
            print("the runner's log:", *self.log, sep="\n")

    async def post(self, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        """POST, and return the status and the decoded answer."""
        async with self._http.post(path, **options) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> dict[str, Any]:
        """GET, and return the decoded answer."""
        async with self._http.get(path) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def until_idle(self) -> None:
        """Wait until the runner has no calls left."""
        async with asyncio.timeout(60):
            while (await self.get("/health"))["calls"]:
                await asyncio.sleep(0.02)

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode().rstrip())
