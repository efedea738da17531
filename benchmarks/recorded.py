"""What it costs to record: the same calls with and without, in windows of time that alternate.

The machine may change its speed within seconds. So each window with recordings is compared with the
one before it, and there are many.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.windows import Cpus, Load, Result, load

SETTINGS = ("recording.when=on_demand", "recording.format=wav", "api.linger=0")


def measure(
    calls: int,
    seconds: float,
    pairs: int,
    folder: Path,
    cpus: Cpus,
    tell: Callable[[str], None],
) -> list[Result]:
    """So many pairs of windows, of which the second one has all calls recorded."""
    tell(f"{calls} calls, {pairs} times {seconds:g} s without and with recordings")
    results = []
    with load(calls, folder / "recorded.log", cpus, SETTINGS) as it:
        ids = [each["id"] for each in it.ask("GET", "/v1/calls?limit=200")["calls"]]
        for _ in range(pairs):
            without = it.window(seconds)
            _all(it, ids, "start" if not results else "resume")
            results.append({"without": without, "with": it.window(seconds)})
            _all(it, ids, "pause")
    return results


def _all(it: Load, ids: Sequence[str], action: str) -> None:
    for each in ids:
        it.ask("POST", f"/v1/calls/{each}/recording", {"action": action})


def table(results: Sequence[Result]) -> str:
    """A table in Markdown: medians over the windows, and ratios of pairs."""
    ratios = [pair["with"]["cpu_percent"] / pair["without"]["cpu_percent"] for pair in results]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    lines = [
        "| all calls | up | processor, % of the core | distance from 20 ms, p50 / p99, ms"
        " | late frames | frames to the bot that were lost | delay to the bot, p50 / p99, ms |",
        "|---" * 7 + "|",
        *(f"| {name} | {_cells([pair[key] for pair in results])} |" for name, key in NAMES),
        "",
        f"With / without, {len(ratios)} pairs: processor {statistics.median(ratios):.3f}"
        f" (quartiles {low:.3f} .. {high:.3f}), p99 of the distance"
        f" {statistics.median(_pace(pair) for pair in results):.2f}.",
    ]
    return "\n".join(lines)


NAMES = (("not recorded", "without"), ("recorded", "with"))


def _pace(pair: Result) -> float:
    with_, without = (pair[key]["pace"]["deviation_ms"]["p99"] for key in ("with", "without"))
    return float(with_ / without)


def _cells(windows: Sequence[Result]) -> str:
    def middle(read: Callable[[Result], Any]) -> float:
        return statistics.median(read(each) for each in windows)

    def both(part: Callable[[Result], dict[str, float]]) -> str:
        p50, p99 = (middle(lambda each, p=p: part(each)[p]) for p in ("p50", "p99"))
        return f"{p50:.2f} / {p99:.2f}"

    return " | ".join(
        (
            f"{min(each['up'] for each in windows)}",
            f"{middle(lambda each: each['cpu_percent']):.1f}",
            both(lambda each: each["pace"]["deviation_ms"]),
            f"{middle(lambda each: each['pace']['late']):g}",
            f"{sum(each['to_bot_lost'] for each in windows):g}",
            both(lambda each: each["to_bot_ms"]),
        )
    )
