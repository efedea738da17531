"""A daemon with two workers, each a process of its own, in front of a runner double."""

from __future__ import annotations

import os
import random
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import treq
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor as _reactor
from twisted.web.client import Agent

from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.doubles.bot import BotDouble
from tests.doubles.runner import RunnerDouble
from tests.e2e.harness import sleep
from tests.e2e.test_drain import SETTINGS, Daemon

reactor: Any = _reactor

CHANCE = random.SystemRandom()
"""Other processes of the tests look for ports as well, and must not do so in the same order."""

READY = r"(\S+) call\.ready "
"""What a daemon logs of a call whose bot is ready."""


class WorkersLine:
    """The daemon and its runner; places calls, asks the API."""

    def __init__(self, daemon: Daemon, runner: RunnerDouble) -> None:
        self.daemon = daemon
        self.runner = runner

    async def dial(self, **options: Any) -> StrictAsterisk:
        """A call from a strict Asterisk."""
        return await connect_asterisk(reactor, self.daemon.phones, **options)

    async def talk(self, **options: Any) -> tuple[StrictAsterisk, BotDouble]:
        """A call whose bot is there and ready."""
        ready = Counter(re.findall(READY, self.daemon.text))  # a UUID may come again
        phone = await self.dial(**options)
        call_id, bots = str(phone.call_id), self.runner.bots
        await self.daemon.until(
            lambda: (
                phone.ended
                or Counter(re.findall(READY, self.daemon.text))[call_id] > ready[call_id]
            )
        )
        assert phone.ended is None, self.daemon.text
        return phone, bots[call_id]

    async def on_each(self) -> list[tuple[StrictAsterisk, BotDouble]]:
        """One call on each worker, the first worker's first."""
        calls = [await self.talk(), await self.talk()]
        by_worker = {await self.worker_of(phone): (phone, bot) for phone, bot in calls}
        assert len(by_worker) == 2, "both calls went to the same worker"
        return [by_worker[1], by_worker[2]]

    def bot_port(self, phone: StrictAsterisk) -> int:
        """Where the runner was told to dial back for a call."""
        [url] = [
            request.body["ws_url"]
            for request in self.runner.asked("/run")
            if request.body["id"] == str(phone.call_id)
        ]
        port = urlsplit(url).port
        assert port is not None
        return port

    async def said(self, text: str, times: int = 1) -> None:
        """The log has a text so many times; workers' lines come a little later than the rest."""
        await self.daemon.until(lambda: self.daemon.text.count(text) >= times)
        assert self.daemon.text.count(text) == times, self.daemon.text

    async def worker_of(self, phone: StrictAsterisk) -> int:
        """The number of the worker that has a call, by what it logs."""
        pattern = rf"worker (\d): {phone.call_id} call\.created"
        await self.daemon.until(lambda: re.search(pattern, self.daemon.text))
        found = re.findall(pattern, self.daemon.text)
        assert len(found) == 1, self.daemon.text
        return int(found[0])

    def pid(self, worker: int) -> int:
        """The process of a worker, the last one of several."""
        found = re.findall(rf"worker {worker} is ready, process (\d+)", self.daemon.text)
        return int(found[-1])

    async def ready(self, worker: int, times: int = 1) -> None:
        """The worker has been started for the `times`-th time."""
        said = f"worker {worker} is ready"
        await self.daemon.until(lambda: self.daemon.text.count(said) >= times)

    async def api(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """A request to the API: status and JSON."""
        response = await self.request(method, path, **options)
        return response.code, await response.json()

    async def request(self, method: str, path: str, **options: Any) -> Any:
        """The same: the response."""
        return await treq.request(
            method, self.daemon.api + path, agent=Agent(reactor), persistent=False, **options
        )

    async def metrics(self) -> dict[str, float]:
        """All metrics; those with labels by `name{label="value"}`."""
        text = await (await self.request("GET", "/metrics")).text()
        values = {}
        for family in text_string_to_metric_families(text):
            for name, labels, value, *_ in family.samples:
                shown = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
                key = f"{name}{{{shown}}}" if shown else name
                assert key not in values, f"{key} is there twice"
                values[key] = value
        return values

    async def until_calls(self, count: int) -> None:
        """The supervisor counts so many calls."""
        for _ in range(3000):
            metrics = await self.metrics()
            calls = [metrics[f'pipecat_bridge_worker_calls{{worker="{each}"}}'] for each in (1, 2)]
            if sum(calls) == count:
                return
            await sleep(0.02)
        raise AssertionError(f"{calls} calls on the workers, expected {count} in all")


async def soon(condition: Callable[[], object]) -> None:
    """Wait for what nobody tells."""
    for _ in range(6000):
        if condition():
            return
        await sleep(0.01)
    raise AssertionError("the awaited did not happen within a minute")


@asynccontextmanager
async def workers_line(
    *settings: str, runner: RunnerDouble | None = None, **options: Any
) -> AsyncIterator[WorkersLine]:
    """A daemon with two workers that are ready; it has ended when the test has."""
    runner = runner or RunnerDouble(reactor)
    url = await runner.listen()
    mode = ("service.workers=2", f"runner.url={url}", "calls.drain_timeout=0", "api.linger=0")
    daemon = Daemon(*SETTINGS, *mode, *settings, **options)
    it = WorkersLine(daemon, runner)
    try:
        await daemon.started()
        for worker in (1, 2):
            await it.ready(worker)
        yield it
    finally:
        if daemon.status is None and daemon.signal is None:
            daemon.process.signalProcess("TERM")
            daemon.ended.addTimeout(60.0, reactor, lambda *_: daemon.process.signalProcess("KILL"))
            await daemon.ended
        await runner.shut()


def new_id() -> str:
    """A call's id."""
    return str(uuid4())


def alive(pid: int) -> bool:
    """Whether a process is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_pair() -> int:
    """A port that is free, as is the next one; the kernel hands out neither to anybody else."""
    while True:
        port = CHANCE.randrange(10000, 32000, 2)  # net.ipv4.ip_local_port_range begins above
        try:
            for each in (port, port + 1):
                socket.create_server(("127.0.0.1", each)).close()
        except OSError:
            continue
        return port
