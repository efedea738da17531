"""Two workers and the runner that comes along, which is there once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor

from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.e2e.test_drain import PORTS, Daemon
from tests.e2e.workers_line import soon

reactor: Any = _reactor

pytestmark = pytest.mark.pipecat

LISTENS = "embedded runner listens on"


def runners(daemon: int) -> list[int]:
    """Processes of the embedded runner."""
    children = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [int(pid) for pid, command in commands.items() if b"pipecat_bridge.embedded" in command]


async def said(it: Daemon, text: str, times: int = 1) -> None:
    await it.until(lambda: it.text.count(text) >= times)


async def call_each_worker(it: Daemon) -> list[StrictAsterisk]:
    """A call on each worker, whose bot is there."""
    phones = [await connect_asterisk(reactor, it.phones) for _ in range(2)]
    for phone in phones:
        await said(it, f"{phone.call_id} call.ready")
    return phones


@ensureDeferred
async def test_it_serves_all_workers_wherever_it_listens() -> None:
    it = Daemon(*PORTS, "service.workers=2", "embedded.restart_delay=0.1", "calls.drain_timeout=0")
    try:
        await it.started()
        await said(it, LISTENS)
        await said(it, "is ready, process", 2)
        phones = await call_each_worker(it)
        [first] = runners(it.process.pid)
        os.kill(first, signal.SIGKILL)
        for phone in phones:
            await phone.lost
            assert phone.faults == []
        # These come while it is away, and wait for it.
        phones = await call_each_worker(it)
        assert it.text.count(LISTENS) == 2
        [second] = runners(it.process.pid)
        assert second != first
        it.process.signalProcess("TERM")
        await it.ended
        assert (it.status, it.signal) == (0, None), it.text
        for phone in phones:
            assert phone.faults == []
        await soon(lambda: not Path(f"/proc/{second}").exists())
    finally:
        if it.status is None and it.signal is None:
            it.process.signalProcess("KILL")
            await it.ended
