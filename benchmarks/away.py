"""Calls while the store is away, locked or full: what they feel, and what is known afterwards."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.windows import Cpus, Load, Result, load
from pipecat_bridge.store.store import FILE
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.run import until
from pipecat_bridge.tools.load.worker import LoadProcess
from tests.store.postgresql import PostgreSQL, is_installed

MORE: Final = 5
"""Calls that come while the store is away."""

SMALL: Final = "5m"
LARGE: Final = "500m"
RECORDED: Final = 10

BACK_SECONDS: Final = 60.0


class Fault(NamedTuple):
    """`settings`: of the daemon. `calls` at the same time. `begin` and `end` it."""

    name: str
    calls: int
    settings: tuple[str, ...]
    begin: Callable[[], None]
    end: Callable[[], None]


def _nothing() -> None:
    """There is no fault."""


@contextmanager
def _none(folder: Path, calls: int) -> Iterator[Fault]:
    yield Fault("nothing", calls, (f"store.directory={folder}/none",), _nothing, _nothing)


@contextmanager
def _stopped(folder: Path, calls: int) -> Iterator[Fault]:
    server = PostgreSQL()
    server.start()
    settings = (f"store.url={server.url}", f"store.directory={folder}/postgresql")
    try:
        yield Fault("PostgreSQL is stopped", calls, settings, server.stop, server.start)
    finally:
        server.remove()


@contextmanager
def _locked(folder: Path, calls: int) -> Iterator[Fault]:
    where = folder / "locked"
    where.mkdir()
    with closing(sqlite3.connect(where / FILE, isolation_level=None)) as other:
        yield Fault(
            "SQLite is locked by another process",
            calls,
            (f"store.directory={where}",),
            lambda: _execute(other, "BEGIN IMMEDIATE"),
            lambda: _execute(other, "ROLLBACK"),
        )


def _execute(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)


@contextmanager
def _full(folder: Path, calls: int) -> Iterator[Fault]:
    """A disk of 5 MB, which recordings fill within seconds."""
    disk = folder / "full"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(disk)]
    larger = ["mount", "-o", f"remount,size={LARGE}", str(disk)]
    settings = (f"store.directory={disk}", "recording.when=always", "recording.format=wav")
    subprocess.run(command, check=True)
    try:
        yield Fault(
            "the disk of 5 MB is full, calls are recorded",
            min(calls, RECORDED),
            settings,
            _nothing,
            lambda: _run(larger),
        )
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


FAULTS: Final = (
    _none,
    *([_stopped] if is_installed() else []),
    _locked,
    *([_full] if os.geteuid() == 0 else []),
)
"""Those that this machine can make."""


def measure(
    calls: int, seconds: float, folder: Path, cpus: Cpus, tell: Callable[[str], None]
) -> list[Result]:
    """Each fault for so many seconds, beside so many calls."""
    results = []
    for make in FAULTS:
        with make(folder, calls) as fault:
            tell(f"{fault.calls} calls, {seconds:g} s: {fault.name}")
            log = folder / f"{make.__name__}.log"
            with load(fault.calls, log, cpus, (*fault.settings, "calls.keep_ended=0")) as it:
                results.append(
                    {"fault": fault.name, "calls": fault.calls, **_beside(fault, it, seconds, cpus)}
                )
    return results


def _beside(fault: Fault, it: Load, seconds: float, cpus: Cpus) -> Result:
    fault.begin()
    more = LoadProcess(Callers, Plan(it.bridge.host, it.bridge.port, MORE), cpu=cpus[1])
    try:
        more.ask("dial")
        during = it.window(seconds)
        new = more.ask("status")["up"]
        ready = it.ask("GET", "/readyz")
        for callers in (more, it.callers):
            callers.ask("hang_up")
        time.sleep(1.0)
        fault.end()
    finally:
        more.end()
    every = fault.calls + MORE
    until(lambda: it.ask("GET", "/readyz")["store"] == "ok", BACK_SECONDS)
    until(lambda: len(_ended(it)) == every, BACK_SECONDS)
    records = [it.ask("GET", f"/v1/calls/{each['id']}") for each in _ended(it)]
    return {
        **during,
        "new": new,
        "ready": ready,
        "records": len(records),
        "outcomes": sorted({record["outcome"] for record in records}),
        "skipped": sum(record["quality"]["phone_frames_skipped"] for record in records),
        "dropped": sum(record["quality"]["caller_frames_dropped"] for record in records),
        "faults": sum("fault" in record.get("recording", {}) for record in records),
    }


def _ended(it: Load) -> list[Result]:
    calls: list[Result] = it.ask("GET", "/v1/calls?limit=200")["calls"]
    return [call for call in calls if "ended_at" in call]


def table(results: Sequence[Result]) -> str:
    """A table in Markdown."""
    lines = [
        "| meanwhile | calls that went on, and new ones | frames dropped, skipped"
        " | distance from 20 ms, p50 / p99, ms | late frames | `/readyz` says | calls in the store"
        " afterwards | recordings that tell a fault |",
        "|---" * 8 + "|",
    ]
    for one in results:
        pace = one["pace"]["deviation_ms"]
        cells = (
            one["fault"],
            f"{one['up']} of {one['calls']}, {one['new']} of {MORE}",
            f"{one['dropped']}, {one['skipped']}",
            f"{pace['p50']:.2f} / {pace['p99']:.2f}",
            f"{one['pace']['late']}",
            f"{one['ready']['ready']}: {one['ready']['store']}".lower(),
            f"{one['records']} of {one['calls'] + MORE}, all {', '.join(one['outcomes'])}",
            f"{one['faults']}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
