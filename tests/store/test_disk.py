"""A disk that is full, and a database that another process locks: no call feels either."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater

from pipecat_bridge.store.store import FILE
from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.doubles.runner import RunnerDouble
from tests.e2e.test_drain import Daemon, daemon
from tests.store.test_daemon import ask

reactor: Any = _reactor

CALLS = 10
SMALL = "5m"
LARGE = "100m"
FRAME = b"\x00\x20" * 80 + b"\x00\xe0" * 80


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 5 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def talking(it: Daemon, runner: RunnerDouble, count: int) -> list[StrictAsterisk]:
    """Calls whose callers speak."""
    phones = [await connect_asterisk(reactor, it.phones) for _ in range(count)]
    for phone in phones:
        await runner.until(lambda phone=phone: str(phone.call_id) in runner.bots)
        phone.start_audio(repeat(FRAME))
    return phones


async def all_of(it: Daemon, phones: list[StrictAsterisk]) -> list[dict[str, Any]]:
    """The records of calls, once the store has them."""
    while True:
        page = await ask(it, "/v1/calls?limit=200")
        if all("ended_at" in each for each in page["calls"]) and len(page["calls"]) == len(phones):
            break
    return [await ask(it, f"/v1/calls/{phone.call_id}") for phone in phones]


@ensureDeferred
async def test_ten_recorded_calls_fill_the_disk(small_disk: Path) -> None:
    runner = RunnerDouble(reactor)
    url = await runner.listen()
    settings = (
        f"runner.url={url}",
        "store.url=",
        f"store.directory={small_disk}",
        "recording.when=always",
        "recording.format=wav",
        "calls.keep_ended=0",  # what is known afterwards comes from the store
    )
    filler = small_disk / "filler"
    async with daemon(*settings) as it:
        filler.write_bytes(bytes(4_000_000))
        phones = await talking(it, runner, CALLS)
        await it.until(lambda: it.text.count("the recording is incomplete") >= CALLS)
        later = await talking(it, runner, 2)
        await deferLater(reactor, 1.0)
        for phone in phones + later:
            assert phone.ended is None
            heard = len(runner.bots[str(phone.call_id)].audio)
            assert heard > 0
            phone.hangup()
        await it.until(lambda: it.text.count("call.ended") == CALLS + 2)
        filler.unlink()
        subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(small_disk)], check=True)
        records = await all_of(it, phones + later)
        for record in records:
            assert record["outcome"] == "caller-hangup"
            assert record["quality"]["caller_frames_dropped"] == 0
            assert record["quality"]["phone_frames_skipped"] == 0
        incomplete = [each for each in records if each["warnings"].get("recording")]
        assert incomplete
        for record in incomplete:
            while record["recording"]["state"] != "ready":
                record = await ask(it, f"/v1/calls/{record['id']}")
            assert "No space left" in record["recording"]["fault"]
    await runner.shut()


@ensureDeferred
async def test_another_process_locks_the_database(tmp_path: Path) -> None:
    runner = RunnerDouble(reactor)
    url = await runner.listen()
    settings = (
        f"runner.url={url}",
        "store.url=",
        f"store.directory={tmp_path}",
        "calls.keep_ended=0",
    )
    async with daemon(*settings) as it:
        before = await talking(it, runner, CALLS)
        while len((await ask(it, "/v1/calls"))["calls"]) != CALLS:
            pass
        with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            during = await talking(it, runner, CALLS)
            for phone in before + during:
                assert phone.ended is None
                phone.hangup()
            await it.until(lambda: it.text.count("call.ended") == 2 * CALLS)
            while (await ask(it, "/readyz"))["store"] == "ok":
                pass
            ready = await ask(it, "/readyz")
            assert (ready["ready"], "locked" in ready["store"]) == (True, True)
            other.execute("ROLLBACK")
        records = await all_of(it, before + during)
        assert {each["outcome"] for each in records} == {"caller-hangup"}
    await runner.shut()
