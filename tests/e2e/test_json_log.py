"""`[service] log_format = "json"`: every line that a real daemon writes is one flat JSON object."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.utils import getProcessOutputAndValue

from tests.doubles.asterisk import connect_asterisk
from tests.doubles.runner import RunnerDouble
from tests.e2e.test_drain import SETTINGS, TWIST, TWISTD, daemon
from tests.e2e.workers_line import soon, workers_line

reactor: Any = _reactor

JSON = "service.log_format=json"


def parsed(text: str) -> list[dict[str, Any]]:
    """The lines; fails at one that is not what it must be."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        assert {type(value) for value in line.values()} <= {str, int, float, bool}
    return lines


def check_call(lines: list[dict[str, Any]], call_id: str) -> None:
    """Fail unless the call is there from its beginning to its end."""
    of_call = [line for line in lines if line.get("call") == call_id]
    kinds = [line["kind"] for line in of_call]
    assert (kinds[0], kinds[-1]) == ("call.created", "call.ended")
    assert of_call[-1]["outcome"] == "caller-hangup"


@pytest.mark.parametrize("command", [TWISTD, TWIST], ids=["twistd", "twist"])
@ensureDeferred
async def test_standard_output(command: list[str]) -> None:
    runner = RunnerDouble(reactor)
    url = await runner.listen()
    try:
        settings = (JSON, f"runner.url={url}", "api.linger=0")
        async with daemon(*settings, command=command) as it:
            phone = await connect_asterisk(reactor, it.phones)
            await it.until(lambda: f"{phone.call_id} call.ready" in it.text)
            phone.hangup()
            await it.until(lambda: f"{phone.call_id} call.ended" in it.text)
            it.process.signalProcess("TERM")
            await it.ended
        lines = parsed(it.text)
        check_call(lines, str(phone.call_id))
        assert "AudioSocket on " in "".join(line["message"] for line in lines)
    finally:
        await runner.shut()


@ensureDeferred
async def test_workers() -> None:
    async with workers_line(JSON) as it:
        phone, _ = await it.talk()
        phone.hangup()
        await it.said(f"{phone.call_id} call.ended")
    lines = parsed(it.daemon.text)
    check_call(lines, str(phone.call_id))
    assert {line["worker"] for line in lines if "call" in line} <= {1, 2}


@ensureDeferred
async def test_a_file_of_a_daemon_in_the_background(tmp_path: Path) -> None:
    log, pid = tmp_path / "bridge.log", tmp_path / "pid"
    settings = [f"--set={setting}" for setting in (*SETTINGS, JSON)]
    options = ["--logfile", str(log), "--pidfile", str(pid), "pipecat-bridge", *settings]
    out, err, status = await getProcessOutputAndValue(TWISTD[0], options, env=os.environ)
    assert (out, err, status) == (b"", b"", 0)
    number = int(pid.read_text())
    try:
        await soon(lambda: "AudioSocket on " in log.read_text())
        os.kill(number, signal.SIGUSR1)  # which has twistd begin a new file
        await soon(lambda: (tmp_path / "bridge.log.1").exists())
    finally:
        os.kill(number, signal.SIGTERM)
    await soon(lambda: not pid.exists())
    parsed((tmp_path / "bridge.log.1").read_text())
    assert "Server Shut Down." in [line["message"] for line in parsed(log.read_text())]
