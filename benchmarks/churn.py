"""Many short calls one after the other: shows whether the daemon keeps memory or descriptors."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bridges import today
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess

AT_ONCE = 50
LENGTH = 0.5
"""Seconds that a call lasts, with its set-up."""

SAMPLES = 40


def measure(
    calls: int, folder: Path, cpus: tuple[int | None, int | None], report: Callable[[str], None]
) -> dict[str, Any]:
    """Place `calls` calls. Returns memory, blocks and descriptors of the daemon over time."""
    report(f"{calls} calls of {LENGTH:g} s, {AT_ONCE} at once")
    runner = LoadProcess(Runner, "127.0.0.1", 0, 2, cpu=cpus[1])
    try:
        bridge = today(f"http://127.0.0.1:{runner.ask('port')}", folder / "churn.log", cpus[0])
        try:
            bridge.wait()
            plan = Plan(bridge.host, bridge.port, AT_ONCE, length=LENGTH)
            callers = LoadProcess(Callers, plan, cpu=cpus[1])
            try:
                rows = _watch(calls, callers, bridge)
                placed = callers.ask("status")["dialled"]
            finally:
                callers.end()
            time.sleep(2.0)
            rows.append(_row(placed, bridge))
        finally:
            bridge.stop()
    finally:
        runner.end()
    return {"calls": calls, "rows": rows}


def _watch(calls: int, callers: LoadProcess[Callers], bridge: Any) -> list[dict[str, float]]:
    callers.ask("dial")
    rows = [_row(0, bridge)]
    done = 0
    while done < calls:
        time.sleep(1.0)
        done = callers.ask("status").get("dialled", 0)
        if done >= len(rows) * calls / SAMPLES:
            rows.append(_row(done, bridge))
    callers.ask("hang_up")
    return rows


def _row(done: int, bridge: Any) -> dict[str, float]:
    reading, metrics = bridge.read(), bridge.metrics()
    return {
        "calls": done,
        "rss_mb": round(reading.rss / 1e6, 2),
        "descriptors": reading.descriptors,
        "blocks": metrics.get("pipecat_bridge_memory_blocks", 0.0),
        "ended": metrics.get("pipecat_bridge_calls_ended_total", 0.0),
    }


def table(result: dict[str, Any]) -> str:
    """A table in Markdown, with about ten of the rows."""
    rows = result["rows"]
    some = rows[:: max(1, len(rows) // 10)]
    if some[-1] is not rows[-1]:
        some.append(rows[-1])
    lines = ["| calls placed | ended | memory, MB | blocks | descriptors |", "|---" * 5 + "|"]
    lines += [
        f"| {row['calls']:.0f} | {row['ended']:.0f} | {row['rss_mb']:.1f} | {row['blocks']:.0f}"
        f" | {row['descriptors']:.0f} |"
        for row in some
    ]
    return "\n".join(lines)
