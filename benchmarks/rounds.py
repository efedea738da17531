"""Compares bridges that run one after the other, in several rounds. Each has the core alone, as in
real use.

A machine that others use changes its speed within minutes. So each round has a run of every bridge,
and a ratio compares two runs of the same round.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import groupby
from typing import Any

Result = dict[str, Any]


def table(results: Sequence[Result]) -> str:
    """A table in Markdown: for each bridge the medians of its rounds, and ratios to the first
    bridge.

    A result has `bridge` and `round`, and the figures of its run.
    """
    rounds = [list(of_round) for _, of_round in groupby(results, lambda result: result["round"])]
    first = rounds[0][0]["bridge"]
    lines = [
        "| alone | calls / up | CPU per call, % (from .. to) | times the first | from .. to"
        " | to bot, ms p50 / p99 | to caller, ms p50 / p99 | pace off by, ms p99 | late frames"
        " | memory per call, MB | pauses of the collector, longest ms |",
        "|---" * 11 + "|",
    ]
    for name in [result["bridge"] for result in rounds[0]]:
        own = [result for result in results if result["bridge"] == name]
        base = [result for result in results if result["bridge"] == first]
        ratios = [_cpu(one) / _cpu(other) for one, other in zip(own, base, strict=True)]
        lines.append(f"| {name} | " + " | ".join(_cells(own, ratios)) + " |")
    return "\n".join(lines)


def _cpu(result: Result) -> float:
    return float(result["cpu_percent_per_call"]["median"])


def _cells(own: Sequence[Result], ratios: Sequence[float]) -> list[str]:
    cost = [_cpu(result) for result in own]
    return [
        f"{own[0]['calls']} / {min(result['up'] for result in own)}",
        f"{statistics.median(cost):.3f} ({min(cost):.3f} .. {max(cost):.3f})",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} .. {max(ratios):.2f}",
        _percentiles([result["to_bot_ms"] for result in own]),
        _percentiles([result["to_caller_ms"] for result in own]),
        f"{_median([result['pace']['deviation_ms'] for result in own], 'p99'):.1f}",
        f"{statistics.median(result['pace']['late'] for result in own):g}",
        f"{statistics.median(result['rss_mb_per_call'] for result in own):.3f}",
        _pauses([result["gc"] for result in own if result["gc"]]),
    ]


def _percentiles(spreads: Sequence[dict[str, float]]) -> str:
    return f"{_median(spreads, 'p50'):.1f} / {_median(spreads, 'p99'):.1f}"


def _median(spreads: Sequence[dict[str, float]], key: str) -> float:
    values = [spread[key] for spread in spreads if spread]
    return statistics.median(values) if values else float("nan")


def _pauses(collectors: Sequence[dict[str, float]]) -> str:
    if not collectors:
        return "-"
    count = sum(one["pauses"] for one in collectors)
    return f"{count:g}, {max(one['longest_ms'] for one in collectors):.1f}"
