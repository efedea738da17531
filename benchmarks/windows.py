"""Ordinary calls that go on, of which some seconds are measured, and then some more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import Request, urlopen

from pipecat_bridge.tools.load import figures
from pipecat_bridge.tools.load.bridge import Started, daemon
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.calls import Role
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.tools.load.run import SET_UP_SECONDS, Course, until
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess

SETTLE: Final = 3.0
"""Seconds after all calls are up, in which the bots' jitter becomes known."""

BOT_RATE: Final = Course().bot_rate

Result = dict[str, Any]
Cpus = tuple[int | None, int | None]


class Load(NamedTuple):
    """A daemon, the process of its bots, that of the callers, and what these do."""

    bridge: Started
    runner: LoadProcess[Runner]
    callers: LoadProcess[Callers]
    plan: Plan

    def begin(self) -> None:
        """Measure from now on."""
        for side in (self.callers, self.runner):
            side.ask("record")

    def end(self) -> Result:
        """What was measured since `begin`, of the audio."""
        up = self.callers.ask("status")["up"]
        heard, said = self.runner.ask("stop"), self.callers.ask("stop")
        by_bots = figures.only(Role.STEADY, said["roles"], heard["heard"])
        to_bot = figures.to_bot(said["sent"], by_bots)
        return {
            "up": up,
            "pace": figures.pace(said["pace"]),
            "to_bot_ms": figures.spread(delay.seconds for delay in to_bot),
            "to_bot_lost": figures.gaps(by_bots, BOT_RATE).lost,
        }

    def window(self, seconds: float) -> Result:
        """Some seconds of all calls."""
        self.begin()
        before = self.bridge.read()
        time.sleep(seconds)
        after = self.bridge.read()
        cpu = 100 * (after.cpu - before.cpu) / (after.time - before.time)
        return {"cpu_percent": cpu, **self.end()}

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the daemon's API answers."""
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.bridge.api}{path}", data, method=method), timeout=30.0) as got:
            return json.load(got)


@contextmanager
def load(calls: int, log: Path, cpus: Cpus, settings: Sequence[str]) -> Iterator[Load]:
    """A daemon with so many calls, which are all up."""
    with ExitStack() as stack:
        runner = LoadProcess(Runner, "127.0.0.1", 0, 1, Pattern(), cpu=cpus[1])
        stack.callback(runner.end)
        bridge = daemon(f"http://127.0.0.1:{runner.ask('port')}", log, cpus[0], settings)
        stack.callback(bridge.stop)
        bridge.wait()
        plan = Plan(bridge.host, bridge.port, calls)
        callers = LoadProcess(Callers, plan, cpu=cpus[1])
        stack.callback(callers.end)
        callers.ask("dial")
        until(
            lambda: callers.ask("status")["up"] == calls, SET_UP_SECONDS + calls / plan.per_second
        )
        time.sleep(SETTLE)
        yield Load(bridge, runner, callers, plan)
