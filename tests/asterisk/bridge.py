"""The daemon as users run it: a process of its own, from the environment that is to be tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.error import ConnectError
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed

from tests.asterisk.pbx import free_port
from tests.asterisk.process import Program
from tests.records import checked

TWISTD = os.environ.get("BRIDGE_TWISTD", str(Path(sys.executable).with_name("twistd")))
"""The twistd whose environment has the daemon under test; make test-asterisk names a wheel's."""


def installed_in() -> Path:
    """Where that environment has the package, seen as the daemon is run: from elsewhere."""
    code = "import pipecat_bridge; print(pipecat_bridge.__path__[0])"
    python = str(Path(TWISTD).with_name("python"))
    with tempfile.TemporaryDirectory() as folder:
        return Path(subprocess.check_output([python, "-c", code], cwd=folder, text=True).strip())


class BridgeError(Exception):
    """The daemon did not start, or something did not happen in time."""


@dataclass
class Bridge:
    """A daemon with free ports of its own, in mode dialback unless `settings` say otherwise."""

    runner_url: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Sections of the configuration, over the suite's."""
    phone_port: int = field(default_factory=free_port)
    runner_port: int = field(default_factory=free_port)
    api_port: int = field(default_factory=free_port)
    twistd: str = TWISTD
    process: Program | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # No connection is kept, so that none is left over when the daemon has ended.
        pool = HTTPConnectionPool(reactor, persistent=False)
        self._http = HTTPClient(Agent(reactor, pool=pool))

    @property
    def phones(self) -> str:
        """Where Asterisk connects, as the dialplan says it."""
        return f"127.0.0.1:{self.phone_port}"

    @property
    def variables(self) -> list[str]:
        """What leads one call to this daemon rather than to the dialplan's."""
        return [f"PIPECAT_BRIDGE={self.phones}", f"PIPECAT_API={self.api}"]

    @property
    def api(self) -> str:
        """The base of the API's URLs."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def log(self) -> str:
        """What the daemon has logged so far."""
        return self.process.printed.decode(errors="replace") if self.process else ""

    async def start(self) -> None:
        """Run the daemon until it is healthy; raises `BridgeError` with its log when it is not."""
        config = {
            "audiosocket": {"listen": f"tcp:{self.phone_port}:interface=127.0.0.1"},
            "api": {"listen": f"tcp:{self.api_port}:interface=127.0.0.1"},
            "runner": {
                "mode": "dialback",
                "url": self.runner_url,
                "listen": f"tcp:{self.runner_port}:interface=127.0.0.1",
            },
        }
        for section, values in self.settings.items():
            config.setdefault(section, {}).update(values)
        folder = tempfile.mkdtemp(prefix="pipecat-bridge-suite-")
        path = Path(folder, "bridge.toml")
        path.write_text(_toml(config))
        arguments = [self.twistd, "-n", "--pidfile=", "pipecat-bridge", "--config", str(path)]
        self.process = Program.run(arguments, folder)
        await self._healthy(self.process)

    async def _healthy(self, process: Program) -> None:
        for _ in range(200):
            try:
                status, _body = await self.request("GET", "/healthz")
                if status == 200:
                    return
            except (ConnectError, ResponseFailed):
                pass
            if not process.running:
                break
            await deferLater(reactor, 0.1)
        raise BridgeError(f"the daemon did not start:\n{self.log}")

    async def ready(self, timeout: float = 60.0) -> None:
        """Wait until a call would get a bot: an embedded runner takes seconds to load."""
        answer: Any = None
        for _ in range(round(timeout / 0.2)):
            status, answer = await self.request("GET", "/readyz")
            if status == 200:
                return
            await deferLater(reactor, 0.2)
        raise BridgeError(f"not ready within {timeout:g} s: {answer}\n{self.log}")

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request to the API; its status and its JSON, or text when it is none."""
        more = {} if body is None else {"json": body}
        response = await self._http.request(method, f"{self.api}{path}", **more)
        text = await response.text("utf-8")
        try:
            return response.code, json.loads(text)
        except ValueError:
            return response.code, text

    async def record(self, call_id: str) -> dict[str, Any]:
        """The record of a call."""
        status, answer = await self.request("GET", f"/v1/calls/{call_id}")
        if status != 200:
            raise BridgeError(f"GET /v1/calls/{call_id}: {status} {answer}")
        return dict(answer)

    async def outcome(self, call_id: str, timeout: float = 10.0) -> dict[str, Any]:
        """The record of a call once it has ended."""
        for _ in range(round(timeout / 0.05)):
            record = await self.record(call_id)
            if "outcome" in record:
                return checked(record)
            await deferLater(reactor, 0.05)
        raise BridgeError(f"call {call_id} has not ended within {timeout:g} s: {record['state']}")

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        _, text = await self.request("GET", "/metrics")
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = [
            line for line in str(text).splitlines() if line.partition("{")[0].split()[0] == name
        ]
        return sum(float(x.split()[-1]) for x in lines if all(label in x for label in wanted))

    async def stop(self) -> None:
        """End the daemon if it runs."""
        if self.process is not None:
            await self.process.stop()


def _toml(config: dict[str, dict[str, Any]]) -> str:
    """JSON's strings, numbers, lists and booleans are TOML's."""
    lines = []
    for section, values in config.items():
        lines += [
            f"[{section}]",
            *(f"{key} = {json.dumps(value)}" for key, value in values.items()),
        ]
    return "\n".join(lines)
