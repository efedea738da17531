"""Two workers: how they begin, die, and end together."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor

from pipecat_bridge.workers.worker import COMMAND
from tests.e2e.test_drain import SETTINGS, TWIST, TWISTD, Daemon
from tests.e2e.workers_line import alive, free_pair, new_id, soon, workers_line

reactor: Any = _reactor


@ensureDeferred
async def test_a_worker_that_dies_loses_its_calls_only_and_comes_back() -> None:
    async with workers_line() as it:
        (lost, _), (kept, bot) = await it.on_each()
        kept.start_audio()
        await kept.until(lambda: len(kept.frames) > 20)
        prepared = [new_id(), new_id()]  # one with each worker
        for call_id in prepared:
            await it.api("PUT", f"/v1/calls/{call_id}", json={"metadata": {"id": call_id}})
        before = await it.metrics()
        os.kill(it.pid(1), signal.SIGKILL)
        await lost.lost
        await it.said("1 calls have ended with worker 1")
        await it.said("worker 1 ended (")

        # While it is away.
        assert (await it.api("GET", f"/v1/calls/{lost.call_id}"))[0] == 404
        assert (await it.api("GET", f"/v1/calls/{kept.call_id}"))[1]["state"] == "talking"
        assert (await it.api("GET", "/readyz"))[0] == 200
        phone, _ = await it.talk(call_id=UUID(prepared[0]))
        assert await it.worker_of(phone) == 2
        after = await it.metrics()
        for name, value in before.items():
            if name.endswith("_total") and not name.startswith(("process_", "python_")):
                assert after[name] >= value, name
        assert after["pipecat_bridge_calls_lost_total"] == 1
        assert after["pipecat_bridge_workers"] == 1

        # When it is back.
        await it.ready(1, times=2)
        other, _ = await it.talk(call_id=UUID(prepared[1]))
        told = {run.body["id"]: run.body["metadata"] for run in it.runner.asked("/run")}
        assert [told[call_id] for call_id in prepared] == [{"id": each} for each in prepared]
        third, _ = await it.talk()
        assert await it.worker_of(third) == 1
        again = await it.metrics()
        for name, value in after.items():
            if name.endswith("_total") and not name.startswith(("process_", "python_")):
                assert again[name] >= value, name
        assert again['pipecat_bridge_worker_restarts_total{worker="1"}'] == 1
        heard = len(bot.audio)
        await bot.until(lambda: len(bot.audio) > heard + 5)
        assert [p.faults for p in (kept, phone, other, third)] == [[]] * 4


GATED = """
import fcntl, sys
if {module!r} in sys.orig_argv:
    with open({gate!r}) as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
"""
"""What a worker does first: it waits until nobody holds the lock."""


class Gate:
    """Workers that are started again begin no sooner than it is open."""

    def __init__(self, folder: Path) -> None:
        path = folder / "gate"
        self._file: IO[str] = path.open("w")
        customize = GATED.format(module=COMMAND[-1], gate=str(path))
        (folder / "sitecustomize.py").write_text(customize, "utf-8")
        paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.command = ["env", f"PYTHONPATH={os.pathsep.join(paths)}", *TWISTD]

    def shut(self) -> None:
        """Let none begin."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def open(self) -> None:
        """Let those begin that wait, and all later ones."""
        fcntl.flock(self._file, fcntl.LOCK_UN)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """A gate, open."""
    it = Gate(tmp_path)
    with it._file:
        yield it


@ensureDeferred
async def test_while_no_worker_runs_phones_and_requests_wait(gate: Gate) -> None:
    async with workers_line("audiosocket.handshake_timeout=60", command=gate.command) as it:
        gate.shut()
        for worker in (1, 2):
            os.kill(it.pid(worker), signal.SIGKILL)
        await it.said("starts again in 0.5 s", 2)
        assert await it.api("GET", "/healthz") == (200, {"status": "ok"})
        assert await it.api("GET", "/readyz") == (
            503,
            {"ready": False, "reasons": ["no worker runs"]},
        )
        assert (await it.metrics())["pipecat_bridge_workers"] == 0
        call_id = new_id()
        phone = await it.dial()
        gate.open()
        asked = {"metadata": {"caller": "1"}}
        assert (await it.api("PUT", f"/v1/calls/{call_id}", json=asked))[0] == 201
        other, _ = await it.talk(call_id=UUID(call_id))
        assert it.runner.asked("/run")[-1].body["metadata"] == {"caller": "1"}
        assert [phone.faults, other.faults] == [[], []]
        await it.until_calls(2)


@ensureDeferred
async def test_they_do_not_wait_for_ever(gate: Gate) -> None:
    async with workers_line("audiosocket.handshake_timeout=1", command=gate.command) as it:
        gate.shut()
        for worker in (1, 2):
            os.kill(it.pid(worker), signal.SIGKILL)
        await it.said("starts again in 0.5 s", 2)
        phone = await it.dial()
        await phone.lost
        assert (phone.ended, phone.faults) == ("hangup received", [])
        await it.said(f"{phone.call_id} connection from")
        await it.said("refused: no worker runs")
        path = f"/v1/calls/{new_id()}"
        assert await it.api("PUT", path, json={}) == (503, {"error": "no worker runs: try again"})
        response = await it.request("GET", f"{path}/variables/TOPIC")
        assert (response.code, await response.content()) == (503, b"")
        gate.open()


@ensureDeferred
async def test_sigterm_lets_calls_go_on_and_a_second_one_does_not() -> None:
    async with workers_line("calls.drain_timeout=3600") as it:
        calls = await it.on_each()
        pids = [it.pid(1), it.pid(2)]
        it.daemon.process.signalProcess("TERM")
        # A service manager signals every process; the workers leave that to their supervisor.
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGINT)
        await it.said("draining: 2 calls may go on for 3600 s")
        status, answer = await it.api("PUT", f"/v1/calls/{new_id()}", json={})
        assert (status, answer["error"]) == (503, "the daemon is being stopped")
        late = await it.dial()
        await late.lost
        assert (late.ended, late.faults) == ("hangup received", [])
        for phone, _ in calls:
            count = len(phone.frames)
            await phone.until(lambda phone=phone, count=count: len(phone.frames) > count + 5)
        calls[0][0].hangup()
        await it.until_calls(1)
        late = await it.dial()
        await late.lost
        assert (late.ended, late.faults) == ("hangup received", [])
        it.daemon.process.signalProcess("TERM")
        await calls[1][0].lost
        assert (calls[1][0].ended, calls[1][0].faults) == ("hangup received", [])
        await it.daemon.ended
        assert (it.daemon.status, it.daemon.signal) == (0, None), it.daemon.text
        assert "outcome=drained" in it.daemon.text
        assert "Traceback" not in it.daemon.text
        assert not any(map(alive, pids))
        assert len(it.runner.asked("/stop")) == 2


@pytest.mark.parametrize("command", [TWISTD, TWIST], ids=["twistd", "twist"])
@ensureDeferred
async def test_it_ends_with_the_last_call(command: list[str]) -> None:
    async with workers_line("calls.drain_timeout=3600", command=command) as it:
        (first, _), (second, bot) = await it.on_each()
        it.daemon.process.signalProcess("INT")
        await it.said("draining: 2 calls")
        first.hangup()
        bot.burst(bytes(range(1, 201)) * 16, 16000)
        bot.close()
        await it.daemon.ended
        assert (second.ended, second.faults) == ("hangup received", [])
        assert (it.daemon.status, it.daemon.signal) == (0, None), it.daemon.text
        for outcome in ("caller-hangup", "completed"):
            assert f"outcome={outcome}" in it.daemon.text


@ensureDeferred
async def test_the_deadline_is_one_for_all() -> None:
    async with workers_line("calls.drain_timeout=0.3") as it:
        calls = await it.on_each()
        it.daemon.process.signalProcess("TERM")
        await it.daemon.ended
        for phone, bot in calls:
            assert (phone.ended, phone.faults) == ("hangup received", [])
            assert bot.faults == []
        assert it.daemon.status == 0
        await it.said("outcome=drained", 2)


@ensureDeferred
async def test_workers_do_not_outlive_a_supervisor_that_is_killed() -> None:
    async with workers_line() as it:
        calls = await it.on_each()
        pids = [it.pid(1), it.pid(2)]
        os.kill(it.daemon.process.pid, signal.SIGKILL)
        for phone, _ in calls:
            await phone.lost
            assert (phone.ended, phone.faults) == ("hangup received", [])
        await it.daemon.ended
        await soon(lambda: not any(map(alive, pids)))
        await it.runner.until(lambda: len(it.runner.asked("/stop")) == 2)


HANGS = """
import socket, sys
from pipecat_bridge.workers.__main__ import end_with_peer
ours, theirs = socket.socketpair()
end_with_peer(ours.fileno(), 0.1)
theirs.send(b"x")
print("runs", flush=True)
sys.stdin.readline()
theirs.close()
while True:
    pass
"""


def test_not_even_one_that_hangs() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"runs\n"
        assert process.poll() is None
        process.stdin.write(b"\n")
        process.stdin.close()
        assert process.wait(10.0) == 1


@ensureDeferred
async def test_a_worker_that_hangs_does_not_hold_up_the_end() -> None:
    async with workers_line() as it:
        await it.talk()
        os.kill(it.pid(1), signal.SIGSTOP)
        it.daemon.process.signalProcess("TERM")
        await it.daemon.ended
        assert it.daemon.status == 0
        assert not alive(it.pid(1))


@ensureDeferred
async def test_a_worker_that_stands_still_is_replaced() -> None:
    async with workers_line() as it:
        (lost, _), (kept, bot) = await it.on_each()
        os.kill(it.pid(1), signal.SIGSTOP)
        given = await it.dial()
        kept.start_audio()
        for phone in (given, lost):
            await phone.lost
        assert (given.ended, given.faults) == ("hangup received", [])
        await it.said("has not answered for 3 s and is killed")
        await it.said(f"{given.call_id} connection from")
        await it.ready(1, times=2)
        other, _ = await it.talk()
        assert await it.worker_of(other) == 1
        heard = len(bot.audio)
        await bot.until(lambda: len(bot.audio) > heard + 5)
        assert [phone.faults for phone in (kept, other)] == [[], []]
        assert (await it.metrics())["pipecat_bridge_calls_lost_total"] == 1


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on; the one before it is free."""
    port = free_pair()
    with closing(socket.create_server(("127.0.0.1", port + 1))):
        yield port + 1


@pytest.mark.parametrize("section", ["audiosocket", "runner", "api", "second worker"])
@ensureDeferred
async def test_a_port_that_is_taken(section: str, taken: int) -> None:
    port = taken
    if section == "second worker":
        section, port = "runner", taken - 1
    listen = f"{section}.listen=tcp:{port}:interface=127.0.0.1"
    it = Daemon(*SETTINGS, "service.workers=2", listen)
    await it.ended
    assert it.status == 1
    assert f"listen on 127.0.0.1:{taken}" in it.text
    assert "Traceback" not in it.text


@ensureDeferred
async def test_what_cannot_be_shared_is_refused() -> None:
    settings = ("service.workers=2", "runner.dialback_url=ws://10.0.0.1:8001")
    it = Daemon(*SETTINGS, *settings)
    await it.ended
    assert it.status == 1
    assert "expected {worker} or {port} in it" in it.text


@ensureDeferred
async def test_one_worker_is_one_process() -> None:
    it = Daemon(*SETTINGS, "service.workers=1")
    await it.started()
    children = f"/proc/{it.process.pid}/task/{it.process.pid}/children"
    with open(children) as listing:
        assert listing.read() == ""
    assert "worker" not in it.text
    it.process.signalProcess("TERM")
    await it.ended
    assert it.status == 0


INHERIT = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="phones")
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("listen", ["systemd:INET:index=0", "systemd:INET:name=phones"])
@ensureDeferred
async def test_a_port_that_systemd_has_opened(listen: str) -> None:
    command = [sys.executable, "-c", INHERIT, *TWISTD]
    async with workers_line(f"audiosocket.listen={listen}", command=command) as it:
        for phone, _ in await it.on_each():
            assert phone.faults == []
