"""The embedded runner's supervisor with real processes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import treq
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.web.client import Agent

from pipecat_bridge.options import EmbeddedOptions
from pipecat_bridge.runner.start.embedded import EmbeddedRunner
from tests.e2e.harness import line, reactor, sleep
from tests.unit.bot_side import logged

LISTEN = """
import http.server, os, sys, threading
def end_with_parent():
    sys.stdin.read()
    os._exit(0)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, form, *values):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Health)
if "deaf" not in globals():
    threading.Thread(target=end_with_parent, daemon=True).start()
print("pid", os.getpid(), flush=True)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""
DEAF = "deaf = True\n"
SILENT = "import time, os; print('pid', os.getpid(), flush=True); time.sleep(60)"
WITH_A_CHILD = "import subprocess; subprocess.Popen(['sleep', '3'])\n"


def runner(script: str, **options: Any) -> EmbeddedRunner:
    settings = EmbeddedOptions(restart_delay=0.05, **options)
    return EmbeddedRunner(reactor, settings, [sys.executable, "-u", "-c", script])


def pids(said: list[str]) -> list[int]:
    return [int(text.split()[-1]) for text in said if text.startswith("runner: pid ")]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def soon(condition: Any) -> None:
    """Wait for what only the log tells."""
    for _ in range(6000):
        if condition():
            return
        await sleep(0.01)
    raise AssertionError("the awaited did not happen within a minute")


async def healthy(url: str) -> bool:
    response = await treq.get(f"{url}/health", agent=Agent(reactor), persistent=False)
    return (response.code, await response.content()) == (200, b"ok")


@ensureDeferred
async def test_it_listens_and_ends_with_us() -> None:
    with logged() as said:
        embedded = runner(LISTEN)
        embedded.start()
        url = await embedded.url()
        assert await healthy(url)
        [pid] = pids(said)
        assert alive(pid)
        await embedded.stop()
        assert not alive(pid)
    assert said[1] == f"embedded runner listens on {url}"
    assert embedded.restarts == 0


@ensureDeferred
async def test_one_that_does_not_look_at_its_input_is_killed() -> None:
    with logged() as said:
        embedded = runner(DEAF + LISTEN, stop_timeout=0.2)
        embedded.start()
        await embedded.url()
        await embedded.stop()
        assert not alive(pids(said)[0])


@ensureDeferred
async def test_one_that_is_killed_is_started_again() -> None:
    with logged() as said:
        embedded = runner(LISTEN)
        embedded.start()
        first = await embedded.url()
        os.kill(pids(said)[0], signal.SIGKILL)
        await soon(lambda: embedded.restarts == 1)
        second = await embedded.url()
        assert second != first
        assert await healthy(second)
        await embedded.stop()
        assert [alive(pid) for pid in pids(said)] == [False, False]
    assert any("signal 9" in text and "starts again in 0.05 s" in text for text in said)


@ensureDeferred
async def test_one_that_cannot_start_is_tried_again_and_leaves_nothing() -> None:
    with logged() as said:
        embedded = runner("raise SystemExit('no model')")
        embedded.start()
        await soon(lambda: embedded.restarts == 3)
        waiting: Deferred[str] = embedded.url()
        await embedded.stop()
        waiting.cancel()
        waiting.addErrback(lambda _: None)
    assert said.count("runner: no model") == 3
    delays = [text.split()[-2] for text in said if "starts again" in text]
    assert delays[:3] == ["0.05", "0.1", "0.2"]


@ensureDeferred
async def test_a_command_that_is_not_there() -> None:
    with logged():
        embedded = EmbeddedRunner(reactor, EmbeddedOptions(restart_delay=0.05), ["/nowhere"])
        embedded.start()
        await soon(lambda: embedded.restarts == 2)
        await embedded.stop()


@ensureDeferred
async def test_one_that_does_not_listen_in_time_is_replaced() -> None:
    with logged() as said:
        embedded = runner(SILENT, start_timeout=0.4)
        embedded.start()
        await soon(lambda: embedded.restarts == 1)
        await embedded.stop()
        assert not any(map(alive, pids(said)))
    assert "embedded runner is not ready after 0.4 s and is killed" in said


@ensureDeferred
async def test_a_process_of_its_own_that_lives_on_does_not_hold_up_the_end() -> None:
    with logged() as said:
        embedded = runner(WITH_A_CHILD + LISTEN)
        embedded.start()
        await embedded.url()
        await embedded.stop()
        assert not alive(pids(said)[0])


@ensureDeferred
async def test_calls_wait_for_it_and_fail_in_time() -> None:
    """A daemon whose runner never comes up: the dialplan goes on."""
    async with line("runner.connect_timeout=0.3") as it:
        with logged():
            embedded = runner(SILENT)
            embedded.start()
            it.bridge.runner.pool.upstreams[0].address = embedded
            phone = await it.dial()
            record = await it.ended(phone)
            assert record["outcome"] == "runner-failed"
            assert record["reason"].startswith("the runner has neither dialled back to ws://")
            assert phone.hangup_received
            assert it.runner.requests == []
            await embedded.stop()
