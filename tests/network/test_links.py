"""Real links that are too narrow, or cut: what is heard meanwhile and afterwards, what is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from pipecat_bridge.tools.load.bridge import Started, daemon
from tests.network.namespace import Namespace, namespace

PHONE_PORT, DIALBACK_PORT, RUNNER_PORT = 9092, 8001, 8000  # of addresses that nobody else has
TOOK_NOTHING = "the phone took no audio for 2 s"
NEEDED = 600_000
"""Bits per second that one call needs from the bridge: 16 and 32 kB of audio, with its headers."""

LONGER_THAN_WARM_UP = 150  # frames

MOST_TO_BOT = 4000.0
"""Milliseconds: what waits in the bridge, at most 3 s, and 0.4 s in the router, and what the bot's
kernel puts in order."""

NORMAL = 120.0
"""Milliseconds, ours and those of a busy machine. Three times as much could be heard."""


class OneCall:
    """A call of the load generator, whose phone and bot are both behind the link."""

    def __init__(self, link: Namespace, bridge: Started, seconds: float, folder: Path) -> None:
        self._bridge = bridge
        self._json = folder / "load.json"
        words = {
            "calls": "1",
            "settle": "1",
            "duration": f"{seconds:g}",
            "address": f"{link.ours}:{PHONE_PORT}",
            "runner-host": link.theirs,
            "runner-port": str(RUNNER_PORT),
            "json": str(self._json),
        }
        program = [sys.executable, "-c", "from pipecat_bridge.cli import main; main()", "load"]
        for name, value in words.items():
            program += [f"--{name}", value]
        self._process = subprocess.Popen(
            link.inside(program),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._id = ""

    def wait(self) -> None:
        """Wait until the call talks."""
        give_up = time.monotonic() + 30.0
        # The load generator's first calls are short, to warm up.
        while not self._id or self.record()["quality"]["caller_frames"] < LONGER_THAN_WARM_UP:
            time.sleep(0.1)
            assert self._process.poll() is None
            assert time.monotonic() < give_up
            running = [call for call in self._get("calls")["calls"] if "ended_at" not in call]
            self._id = next((call["id"] for call in running), "")

    def record(self) -> dict[str, Any]:
        """The record at the daemon's API."""
        return self._get(f"calls/{self._id}")

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(f"{self._bridge.api}/v1/{path}") as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def result(self) -> dict[str, Any]:
        """What phone and bot have measured, when the time is over."""
        self._process.wait(60.0)
        result: dict[str, Any] = json.loads(self._json.read_text())
        return result

    def stop(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and its processes for phones and bots
        self._process.wait()


@contextmanager
def one_call(
    number: int, seconds: float, folder: Path, *settings: str
) -> Iterator[tuple[Namespace, OneCall]]:
    """A link, and a call over it, with `settings` of the daemon."""
    with ExitStack() as stack:
        link = stack.enter_context(namespace(number))
        bridge = daemon(
            f"http://{link.theirs}:{RUNNER_PORT}",
            folder / "daemon.log",
            settings=[
                f"audiosocket.listen=tcp:{PHONE_PORT}:interface={link.ours}",
                f"runner.listen=tcp:{DIALBACK_PORT}:interface={link.ours}",
                *settings,
            ],
        )
        stack.callback(bridge.stop)
        bridge.wait()
        call = OneCall(link, bridge, seconds, folder)
        stack.callback(call.stop)
        call.wait()
        yield link, call


def normal_in_the_end(delays: dict[str, list[float]]) -> bool:
    """Both directions are as quick as ever, for four seconds and more."""
    return all(max(each[-20:]) < NORMAL for each in delays.values())


def test_a_link_of_half_the_bandwidth_loses_audio_and_keeps_no_delay(tmp_path: Path) -> None:
    with one_call(1, 16.0, tmp_path) as (link, call):
        link.narrow(NEEDED // 2)
        time.sleep(5.0)
        stats = call.record()["quality"]
        link.widen()
        result = call.result()
    assert stats["caller_frames_dropped"] + stats["phone_frames_skipped"] > 0
    assert stats["underruns"] > 0
    assert max(result["delays"]["to_bot_ms"]) < MOST_TO_BOT
    assert normal_in_the_end(result["delays"])


def test_a_link_that_is_down_for_3_s_is_survived(tmp_path: Path) -> None:
    with one_call(2, 16.0, tmp_path) as (link, call):
        link.down()
        time.sleep(3.0)
        link.up()
        result = call.result()
        record = call.record()
    assert record.get("outcome") in (None, "caller-hangup")  # the load generator hangs up at last
    assert record["quality"]["phone_frames_skipped"] > 0
    assert record["quality"]["caller_frames_filled"] > 0
    assert normal_in_the_end(result["delays"])


def test_a_link_that_stays_down_ends_the_call(tmp_path: Path) -> None:
    """Neither FIN nor RST comes, and nothing is acknowledged."""
    with one_call(3, 60.0, tmp_path, "audiosocket.stall_timeout=2") as (link, call):
        link.down()
        give_up = time.monotonic() + 20.0
        while call.record()["state"] != "ended" and time.monotonic() < give_up:
            time.sleep(0.2)
        record = call.record()
    assert (record["outcome"], record["reason"]) == ("phone-lost", TOOK_NOTHING)
    lines = (tmp_path / "daemon.log").read_text().splitlines()
    [said] = [line for line in lines if "connection from" in line]
    assert said.endswith(f"{record['id']} connection from {record['peer']} closed: {TOOK_NOTHING}")
