"""Compares the cost of bridges that run at the same time on the same processor. The ratios are the
same on other machines.

A core that is shared with other machines changes its speed every second. Bridges that run at the
same time become slower together. The core must have time to spare: otherwise the kernel gives each
bridge the same time, and every ratio is 1.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bridges import BRIDGES
from pipecat_bridge.tools.load.bridge import Started
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess

SETTLE = 3.0


class Side(NamedTuple):
    """One bridge, with its own callers and bots."""

    name: str
    bridge: Started
    callers: LoadProcess[Callers]


def compare(
    names: Sequence[str],
    calls: int,
    seconds: int,
    folder: Path,
    cpus: tuple[int | None, int | None],
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Run `calls` calls on each bridge. Returns the CPU per call of each, and its ratio to the
    first."""
    report(f"{calls} calls on each of {', '.join(names)}, at the same time")
    with ExitStack() as stack:
        sides = [_side(stack, name, calls, folder, cpus) for name in names]
        for side in sides:
            side.callers.ask("dial")
        time.sleep(calls / 50 + SETTLE)
        parts = _watch(sides, calls, seconds)
        up = [side.callers.ask("status")["up"] for side in sides]
    first = parts[0]
    rows = []
    for side, own, there in zip(sides, parts, up, strict=True):
        ratios = [a / b for a, b in zip(own, first, strict=True) if b]
        rows.append(
            {
                "name": side.name,
                "calls": calls,
                "up": there,
                "cpu_percent_per_call": round(statistics.median(own), 4),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_from": round(min(ratios), 3),
                "ratio_to": round(max(ratios), 3),
            }
        )
    return rows


def _side(
    stack: ExitStack, name: str, calls: int, folder: Path, cpus: tuple[int | None, int | None]
) -> Side:
    runner = LoadProcess(Runner, "127.0.0.1", 0, 1, Pattern(), cpu=cpus[1])
    stack.callback(runner.end)
    url = f"http://127.0.0.1:{runner.ask('port')}"
    bridge = BRIDGES[name](url, folder / f"{name}.log", cpus[0])
    stack.callback(bridge.stop)
    bridge.wait()
    callers = LoadProcess(Callers, Plan(bridge.host, bridge.port, calls), cpu=cpus[1])
    stack.callback(callers.end)
    return Side(name, bridge, callers)


def _watch(sides: Sequence[Side], calls: int, seconds: int) -> list[list[float]]:
    """Per cent of a core for a call, for each side and each second."""
    parts: list[list[float]] = [[] for _ in sides]
    last = [side.bridge.read() for side in sides]
    for _ in range(seconds):
        time.sleep(1.0)
        for index, side in enumerate(sides):
            now, before = side.bridge.read(), last[index]
            parts[index].append(100 * (now.cpu - before.cpu) / (now.time - before.time) / calls)
            last[index] = now
    return parts


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A table in Markdown."""
    lines = ["| at the same time | calls | up | CPU per call, % | ratio | from .. to |"]
    lines.append("|---" * 6 + "|")
    lines += [
        f"| {row['name']} | {row['calls']} | {row['up']} | {row['cpu_percent_per_call']:.3f}"
        f" | {row['ratio']:.2f} | {row['ratio_from']:.2f} .. {row['ratio_to']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)
