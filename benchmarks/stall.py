"""The effect of a bot that stops reading for 5 s on its call."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Line = list[tuple[float, float]]


def table(results: Sequence[dict[str, Any]]) -> str:
    """A table in Markdown: the oldest audio that the bot heard, how much it heard, and the delay
    afterwards."""
    lines = [
        "| one bot stalled for 5 s | oldest the bot heard, s | of 5 s it heard, s"
        " | to bot after, ms | to caller after, ms | longest in the other calls, ms |",
        "|---" * 6 + "|",
    ]
    for result in results:
        stalled = result["stalled"]
        begin, end = stalled["stalls"][0]
        there, back = stalled["to_bot"], stalled["to_caller"]
        during = [mark for mark in there if begin <= mark[0] < end]
        cells = [
            f"{max((delay for _, delay in during), default=0.0) / 1000:.1f}",
            f"{len(during) / 10:.1f}",
            _after(there, end),
            _after(back, end + 1.0),
            f"{result['to_bot_ms']['max']:.1f} + {result['to_caller_ms']['max']:.1f}",
        ]
        lines.append(f"| {result['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _after(line: Line, time: float) -> str:
    delays = [delay for sent, delay in line if sent > time]
    return f"{statistics.median(delays):.1f}" if delays else "nothing heard"
