"""The end of the daemon: in memory for its deadlines, as a process of its own for the rest."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import treq
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent

from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.doubles.runner import RunnerDouble
from tests.doubles.watch import Watched
from tests.e2e.memory_line import LOOPBACK, memory_line

reactor: Any = _reactor

TWISTD = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile="]
TWIST = [sys.executable, "-m", "twisted", "--log-format=text"]


def test_calls_may_go_on_until_the_deadline() -> None:
    with memory_line("calls.drain_timeout=5") as it:
        calls = [it.talk(), it.talk()]
        for phone, bot in calls:
            phone.start_audio()
            bot.echo = True
        it.clock.turn(1.0)
        began = it.clock.seconds()
        stopped = it.bridge.stopService()
        it.clock.turn(4.5)
        for phone, bot in calls:
            assert phone.ended is None
            assert began + 4.4 < bot.audio[-1].at, "the call goes on"
        it.clock.wait(stopped)
        assert 5.0 <= it.clock.seconds() - began < 5.0 + 2.0
        for phone, bot in calls:
            assert (phone.ended, phone.faults, bot.faults) == ("hangup received", [], [])
            assert it.record(phone)["outcome"] == "drained"
        assert len(it.runner.asked("/stop")) == 2


def test_it_ends_with_the_last_call() -> None:
    with memory_line("calls.drain_timeout=3600") as it:
        (first, _), (second, bot) = it.talk(), it.talk()
        stopped = it.bridge.stopService()
        first.hangup()
        it.clock.turn(5.0)
        assert not stopped.called
        bot.burst(bytes(range(1, 201)) * 16, 16000)
        bot.close()
        began = it.clock.seconds()
        it.clock.wait(stopped)
        assert it.clock.seconds() - began < 0.5
        outcomes = [it.record(phone)["outcome"] for phone in (first, second)]
        assert outcomes == ["caller-hangup", "completed"]


def test_new_calls_are_refused_while_it_drains() -> None:
    with memory_line("calls.drain_timeout=5") as it:
        phone, _ = it.talk()
        port: Any = it.bridge.phones.listener.port
        stopped = it.bridge.stopService()
        # The port stays open: a refused connection makes Asterisk close another call's socket.
        late = it.clock.wait(connect_asterisk(it.clock, port.getHost().port))
        it.clock.turn(0.1)
        assert (late.ended, late.faults) == ("hangup received", [])
        assert it.bridge.calls.outcomes["rejected"] == 1
        assert phone.ended is None
        phone.hangup()
        it.clock.wait(stopped)
        with pytest.raises(ConnectError):
            it.clock.wait(connect_asterisk(it.clock, port.getHost().port))


def test_a_second_signal_ends_the_calls_at_once() -> None:
    with memory_line("calls.drain_timeout=3600") as it:
        phone, _ = it.talk()
        it.bridge._terminate("SIGTERM")
        stopped = it.bridge.stopService()
        it.clock.turn(5.0)
        assert not stopped.called
        it.bridge._terminate("SIGTERM")
        it.clock.turn(0.1)
        assert phone.ended == "hangup received"
        it.clock.wait(stopped)


def test_a_runner_that_hangs_does_not_hold_up_the_end() -> None:
    with memory_line("calls.drain_timeout=1") as it:
        it.talk()
        it.runner.answers.appendleft("hang")
        it.bridge.runner.bots.stopping.enter()  # as if one more /stop were never answered
        began = it.clock.seconds()
        it.clock.wait(it.bridge.stopService())
        assert it.clock.seconds() - began < 1.0 + 2.0 + 0.1


class Daemon(ProcessProtocol, Watched):
    """The daemon in a process of its own; `text` is all that it says, `status` its exit status."""

    def __init__(
        self, *settings: str, command: list[str] = TWISTD, arguments: tuple[str, ...] = ()
    ):
        self.text = ""
        self.status: int | None = None
        self.signal: int | None = None
        overrides = (f"--set={setting}" for setting in settings)
        arguments = (*command, "pipecat-bridge", *arguments, *overrides)
        self.ended: Deferred[None] = Deferred()
        self.process = reactor.spawnProcess(self, arguments[0], arguments, env=os.environ)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.text += data.decode()
        self.changed()

    def processEnded(self, reason: Failure) -> None:
        self.status, self.signal = reason.value.exitCode, reason.value.signal
        self.over(f"the daemon has ended with {reason.value}:\n{self.text}")
        self.ended.callback(None)

    async def started(self) -> None:
        """It listens, and handles signals."""
        await self.until(lambda: "AudioSocket on " in self.text)
        await treq.get(f"{self.api}/healthz", agent=Agent(reactor), persistent=False)

    @property
    def phones(self) -> int:
        """The port for phones."""
        return int(self._announced(r"AudioSocket on [\d.]+:(\d+)"))

    @property
    def api(self) -> str:
        """The API's URL."""
        return "http://" + self._announced(r"API on ([\d.]+:\d+)")

    def _announced(self, pattern: str) -> str:
        found = re.search(pattern, self.text)
        assert found, self.text
        return found[1]


PORTS = tuple(f"{each}.listen={LOOPBACK}" for each in ("audiosocket", "runner", "api"))
SETTINGS = ("runner.mode=dialback", *PORTS)


@asynccontextmanager
async def daemon(*settings: str, **options: Any) -> AsyncIterator[Daemon]:
    """A daemon of its own that has started; killed when the test has failed."""
    it = Daemon(*SETTINGS, *settings, **options)
    try:
        await it.started()
        yield it
    finally:
        if it.status is None and it.signal is None:
            it.process.signalProcess("KILL")
            await it.ended


@pytest.mark.parametrize("command", [TWISTD, TWIST], ids=["twistd", "twist"])
@pytest.mark.parametrize("name", ["TERM", "INT"])
@ensureDeferred
async def test_a_signal_ends_it_with_status_0(command: list[str], name: str) -> None:
    async with daemon(command=command) as it:
        it.process.signalProcess(name)
        await it.ended
        assert (it.status, it.signal) == (0, None), it.text
        assert "Traceback" not in it.text


@ensureDeferred
async def test_sighup_does_not_end_it() -> None:
    async with daemon() as it:
        it.process.signalProcess("HUP")
        await it.until(lambda: "SIGHUP: files are opened again" in it.text)
        response = await treq.get(f"{it.api}/healthz", agent=Agent(reactor), persistent=False)
        assert response.code == 200
        it.process.signalProcess("TERM")
        await it.ended
        assert it.status == 0


@ensureDeferred
async def test_sigterm_in_a_call_lets_it_go_on_and_a_second_one_does_not() -> None:
    runner = RunnerDouble(reactor)
    settings = (f"runner.url={await runner.listen()}", "calls.drain_timeout=3600")
    try:
        async with daemon(*settings) as it:
            phone = await connect_asterisk(reactor, it.phones)
            await it.until(lambda: f"{phone.call_id} call.ready" in it.text)
            it.process.signalProcess("TERM")
            await it.until(lambda: "draining: 1 calls" in it.text)
            count = len(phone.frames)
            await phone.until(lambda: len(phone.frames) > count + 5)
            it.process.signalProcess("TERM")
            await phone.lost
            assert (phone.ended, phone.faults) == ("hangup received", [])
            await it.ended
            assert it.status == 0
            assert "outcome=drained" in it.text
            assert len(runner.asked("/stop")) == 1
    finally:
        await runner.shut()


@pytest.mark.parametrize("workers", [1, 2])
@ensureDeferred
async def test_the_dialplans_of_the_last_calls_are_answered(workers: int) -> None:
    """Each asks as soon as its call is over, when the daemon has nothing else to do any more."""
    runner = RunnerDouble(reactor)
    url = f"runner.url={await runner.listen()}"
    settings = (url, "calls.drain_timeout=3600", "api.linger=1", f"service.workers={workers}")
    try:
        async with daemon(*settings) as it:
            if workers > 1:
                await it.until(lambda: it.text.count("is ready, process") == workers)
            phones = [await connect_asterisk(reactor, it.phones) for _ in range(20)]
            for phone in phones:
                await it.until(lambda phone=phone: f"{phone.call_id} call.ready" in it.text)
            it.process.signalProcess("TERM")
            await it.until(lambda: "draining: 20 calls" in it.text)
            for bot in runner.bots.values():
                bot.rtvi("server-message", {"type": "transfer", "target": "support"})
            asking = [Deferred.fromCoroutine(transfer(it, phone)) for phone in phones]
            assert await gatherResults(asking, consumeErrors=True) == [(200, "support")] * 20
            await it.ended
            assert (it.status, it.signal) == (0, None), it.text
    finally:
        await runner.shut()


async def transfer(it: Daemon, phone: StrictAsterisk) -> tuple[int, str]:
    """What the API answers to a dialplan that goes on."""
    await phone.until(lambda: phone.hangup_received)
    url = f"{it.api}/v1/calls/{phone.call_id}/transfer"
    response = await treq.get(url, agent=Agent(reactor), persistent=False)
    return response.code, await response.text()


@ensureDeferred
async def test_a_second_signal_does_not_wait_for_dialplans() -> None:
    runner = RunnerDouble(reactor)
    try:
        async with daemon(f"runner.url={await runner.listen()}", "api.linger=3600") as it:
            phone = await connect_asterisk(reactor, it.phones)
            await it.until(lambda: f"{phone.call_id} call.ready" in it.text)
            phone.hangup()
            await it.until(lambda: f"{phone.call_id} call.ended" in it.text)
            it.process.signalProcess("TERM")
            await it.until(lambda: "SIGTERM: ending" in it.text)
            it.process.signalProcess("TERM")
            await it.ended
            assert (it.status, it.signal) == (0, None), it.text
    finally:
        await runner.shut()


def test_the_api_answers_for_a_while_after_the_last_call_only() -> None:
    with memory_line("api.linger=3") as it:
        phone, _ = it.talk()
        phone.hangup()
        it.clock.turn(1.0)
        stopped = it.bridge.stopService()
        it.clock.turn(1.9)
        assert not stopped.called
        it.clock.turn(0.2)
        assert stopped.called


def test_a_second_signal_counts_before_the_dialplans_are_waited_for() -> None:
    with memory_line("calls.drain_timeout=3600", "api.linger=3600") as it:
        phone, _ = it.talk()
        it.bridge._terminate("SIGTERM")
        stopped = it.bridge.stopService()
        it.bridge._terminate("SIGTERM")
        assert it.bridge._lingering is None, "its bot is let go first"
        it.clock.turn(2.5)
        assert phone.ended == "hangup received"
        assert stopped.called


@pytest.mark.pipecat
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@ensureDeferred
async def test_a_signal_to_all_processes_leaves_calls_their_runner(
    number: int, workers: int
) -> None:
    """As of a terminal, and of a service manager that signals every process."""
    own_group = ["setsid", *TWISTD]
    settings = (*PORTS, "calls.drain_timeout=3600", "api.linger=0", f"service.workers={workers}")
    it = Daemon(*settings, command=own_group)
    try:
        await it.started()
        await it.until(lambda: "embedded runner listens on" in it.text)
        if workers > 1:  # a worker that still starts does not ignore signals yet
            await it.until(lambda: it.text.count("is ready, process") == workers)
        phone = await connect_asterisk(reactor, it.phones)
        await it.until(lambda: f"{phone.call_id} call.ready" in it.text)
        os.killpg(it.process.pid, number)
        await it.until(lambda: "draining: 1 calls" in it.text)
        await phone.until(lambda: any(any(frame.payload) for frame in phone.frames))
        count = len(phone.frames)
        await phone.until(lambda: len(phone.frames) > count + 50)
        phone.hangup()
        await it.ended
        assert (it.status, it.signal) == (0, None), it.text
        assert "outcome=caller-hangup" in it.text
        assert "starts again in" not in it.text
    finally:
        if it.status is None and it.signal is None:
            it.process.signalProcess("KILL")
            await it.ended


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("command", [TWISTD, TWIST], ids=["twistd", "twist"])
@pytest.mark.parametrize("section", ["audiosocket", "runner", "api"])
@ensureDeferred
async def test_a_port_that_is_taken(command: list[str], section: str, taken: int) -> None:
    listen = f"{section}.listen=tcp:{taken}:interface=127.0.0.1"
    it = Daemon(*SETTINGS, listen, command=command)
    await it.ended
    assert it.status == 1
    assert f"listen on 127.0.0.1:{taken}" in it.text
    assert "Traceback" not in it.text


@pytest.mark.parametrize("command", [TWISTD, TWIST], ids=["twistd", "twist"])
@ensureDeferred
async def test_a_configuration_that_is_wrong(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text('[runner]\nurll = "http://127.0.0.1:1"\n')
    sentence = f"{path}: [runner] unknown key urll (did you mean url?)\n"
    for check in ((), ("--check",)):
        it = Daemon(command=command, arguments=("--config", str(path), *check))
        await it.ended
        assert (it.status, it.text) == (1, sentence)
    path.write_text('[runner]\nurl = "http://127.0.0.1:1"\n')
    it = Daemon(command=command, arguments=("--config", str(path), "--check"))
    await it.ended
    assert (it.status, it.text) == (0, f"{path}: good\n")


@ensureDeferred
async def test_a_port_that_is_taken_in_the_background(tmp_path: Path) -> None:
    """twistd's first process tells what its second one has found, and ends."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        files = (f"--pidfile={tmp_path}/pid", f"--logfile={tmp_path}/log")
        it = Daemon(
            *SETTINGS,
            f"audiosocket.listen=tcp:{port}:interface=127.0.0.1",
            command=[TWISTD[0], *files],
        )
        await it.ended
    assert it.status == 1
    assert f"Couldn't listen on 127.0.0.1:{port}" in it.text
    for _ in range(100):  # the second process removes its file, and ends after the first
        if not (tmp_path / "pid").exists():
            return
        await deferLater(_reactor, 0.05)
    pytest.fail("the file of a process that ended is left")
