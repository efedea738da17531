"""The gain of a second worker.

If there are two more processors for the load generator, the largest load of one core and of two
cores is measured. With fewer processors that would measure the generator. Then only the cost of a
call is compared: with one worker and with two, with the same number of calls for each worker, at
the same time and on the same core. The ratio says how many times the load of one core two cores
would carry, if nothing else limits them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

from benchmarks.capacity import climb
from pipecat_bridge.tools.load.bridge import Started, daemon
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.tools.load.run import Course, run
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess

GOALS: Final = {"to_bot_ms": 6.0, "to_caller_ms": 70.0, "pace": 2.0}
"""Limits at p99, in milliseconds. Also, every call must be up, and no frame may be lost."""

SETTLE: Final = 3.0
COUNTS: Final = (1, 2)

Tell = Callable[[str], None]


class Side(NamedTuple):
    """A bridge with `workers` workers and `calls` calls, and its callers."""

    workers: int
    calls: int
    bridge: Started
    callers: LoadProcess[Callers]


def measure(
    calls: int, ladder: Sequence[int], course: Course, folder: Path, tell: Tell
) -> dict[str, Any]:
    """The cost of a call with `calls` calls for each worker; and the largest load of the `ladder`,
    if there are enough processors."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    result: dict[str, Any] = {"processors": len(usable), "cost": []}
    result["cost"] = _costs(calls, course, folder, usable, tell)
    if len(usable) >= max(COUNTS) + 2:
        result["largest"] = [
            _climb(workers, ladder, course, folder, usable, tell) for workers in COUNTS
        ]
    return result


def _start(workers: int, runner: LoadProcess[Runner], log: Path, cpus: Sequence[int]) -> Started:
    settings = [f"service.workers={workers}"]
    bridge = daemon(f"http://127.0.0.1:{runner.ask('port')}", log, None, settings)
    if cpus:
        os.sched_setaffinity(bridge.pid, cpus)  # the workers start later and inherit it
    return bridge


def _wait(bridge: Started, workers: int) -> None:
    """Wait until all workers take calls. Otherwise the first worker would get all of them."""
    bridge.wait()
    while bridge.metrics().get("pipecat_bridge_workers", 1) < workers:
        time.sleep(0.1)


# The cost of a call


def _costs(
    calls: int, course: Course, folder: Path, usable: Sequence[int], tell: Tell
) -> list[dict[str, Any]]:
    tell(f"{calls} calls a worker, one worker and two at the same time")
    cpus, other = (usable[:1], usable[1]) if len(usable) > 1 else ([], None)
    with ExitStack() as stack:
        sides = []
        for workers in COUNTS:
            runner = LoadProcess(Runner, "127.0.0.1", 0, 1, Pattern(), cpu=other)
            stack.callback(runner.end)
            bridge = _start(workers, runner, folder / f"workers-{workers}.log", cpus)
            stack.callback(bridge.stop)
            _wait(bridge, workers)
            plan = Plan(bridge.host, bridge.port, calls * workers)
            callers = LoadProcess(Callers, plan, cpu=other)
            stack.callback(callers.end)
            sides.append(Side(workers, plan.calls, bridge, callers))
        for side in sides:
            side.callers.ask("dial")
        time.sleep(calls * max(COUNTS) / 50 + SETTLE)
        parts = _watch(sides, max(2, round(course.duration)))
        up = [side.callers.ask("status")["up"] for side in sides]
        spread = [_calls_of_workers(side) for side in sides]
    rows = []
    for side, own, there, workers in zip(sides, parts, up, spread, strict=True):
        ratios = [side.workers * first / cost for first, cost in zip(parts[0], own, strict=True)]
        rows.append(
            {
                "workers": side.workers,
                "calls": side.calls,
                "up": there,
                "calls_of_workers": workers,
                "cpu_percent_per_call": round(100 * statistics.median(own), 4),
                "carries": round(statistics.median(ratios), 3),
                "carries_from": round(min(ratios), 3),
                "carries_to": round(max(ratios), 3),
            }
        )
    return rows


def _watch(sides: Sequence[Side], seconds: int) -> list[list[float]]:
    """Share of a core for a call, for each side and each second, with the supervisor."""
    parts: list[list[float]] = [[] for _ in sides]
    last = [side.bridge.read() for side in sides]
    for _ in range(seconds):
        time.sleep(1.0)
        for index, side in enumerate(sides):
            now, before = side.bridge.read(), last[index]
            parts[index].append((now.cpu - before.cpu) / (now.time - before.time) / side.calls)
            last[index] = now
    return parts


def _calls_of_workers(side: Side) -> str:
    if side.workers == 1:
        return str(side.calls)
    with urlopen(f"{side.bridge.api}/metrics", timeout=10.0) as answer:
        text = answer.read().decode()
    return " + ".join(
        line.split()[1].removesuffix(".0")
        for line in text.splitlines()
        if line.startswith("pipecat_bridge_worker_calls{")
    )


# The largest load


def _climb(
    workers: int,
    ladder: Sequence[int],
    course: Course,
    folder: Path,
    usable: Sequence[int],
    tell: Tell,
) -> dict[str, Any]:
    """Run more and more calls for each worker, until a goal is broken."""

    def load(calls: int) -> dict[str, Any]:
        tell(f"{workers} workers on as many cores, {calls} calls in all:")
        return _run(workers, calls, course, folder, usable, tell)

    found = climb(str(workers), [calls * workers for calls in ladder], load, GOALS)
    return {"workers": workers, "calls": found.calls, "broke": found.broke}


def _run(
    workers: int, calls: int, course: Course, folder: Path, usable: Sequence[int], tell: Tell
) -> dict[str, Any]:
    callers, bots = usable[-2], usable[-1]
    runner = LoadProcess(Runner, "127.0.0.1", 0, 1, Pattern(), cpu=bots)
    try:
        log = folder / f"climb-{workers}-{calls}.log"
        bridge = _start(workers, runner, log, usable[:workers])
        try:
            _wait(bridge, workers)
            plan = Plan(bridge.host, bridge.port, calls)
            return run(bridge, runner, plan, course, (usable[0], callers), tell)
        finally:
            bridge.stop()
    finally:
        runner.end()


def table(result: dict[str, Any]) -> str:
    """Tables in Markdown: the cost; and the largest load, or why it was not measured."""
    lines = [
        "| workers | calls | up | on the workers | CPU per call, %"
        " | would carry, times one core | from .. to |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {row['workers']} | {row['calls']} | {row['up']} | {row['calls_of_workers']}"
        f" | {row['cpu_percent_per_call']:.3f} | {row['carries']:.2f}"
        f" | {row['carries_from']:.2f} .. {row['carries_to']:.2f} |"
        for row in result["cost"]
    ]
    largest = result.get("largest")
    if largest is None:
        needed = max(COUNTS) + 2
        lines += ["", f"The largest load was not measured: that needs {needed} processors, and"
                      f" {result['processors']} are usable."]  # fmt: skip
        return "\n".join(lines)
    lines += ["", "| workers, each on a core | calls carried | times one | what broke first |"]
    lines.append("|---" * 4 + "|")
    one = largest[0]["calls"]
    lines += [
        f"| {row['workers']} | {row['calls']} | {row['calls'] / one if one else 0:.2f}"
        f" | {row['broke']} |"
        for row in largest
    ]
    return "\n".join(lines)
