"""How many calls a bridge carries: runs more and more calls, until a limit is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

BEARABLE: Final = {"to_bot_ms": 150.0, "to_caller_ms": 150.0, "pace": 2.0}
"""Limits at p99, in milliseconds: the delay in one direction that ITU-T G.114 accepts, and the goal
for the pace."""

Result = dict[str, Any]


class Capacity(NamedTuple):
    """The largest number of calls that a bridge carried. `broke`: which limits more calls broke."""

    name: str
    calls: int
    cpu_percent_per_call: float
    broke: str


def climb(
    name: str, ladder: Sequence[int], run: Callable[[int], Result], limits: Mapping[str, float]
) -> Capacity:
    """Run the loads of the ladder one after the other, until one breaks a limit."""
    found = Capacity(name, 0, float("nan"), "nothing")
    for calls in ladder:
        result = run(calls)
        if faults := broken(result, limits):
            return found._replace(broke=f"{', '.join(faults)} with {calls} calls")
        cost = result["cpu_percent_per_call"]["median"]
        found = Capacity(name, calls, cost, "nothing")
    return found


def broken(result: Result, limits: Mapping[str, float]) -> list[str]:
    """The limits that a load broke. Also, every call must be up, and no frame may be lost."""
    p99 = {
        "to_bot_ms": result["to_bot_ms"].get("p99", 0.0),
        "to_caller_ms": result["to_caller_ms"].get("p99", 0.0),
        "pace": result["pace"]["deviation_ms"].get("p99", 0.0),
    }
    faults = [f"{name} {p99[name]:.1f}" for name, most in limits.items() if p99[name] > most]
    if result["up"] < result["calls"]:
        faults.append(f"{result['calls'] - result['up']} calls not up")
    lost = result["to_bot_gaps"]["lost"] + result["to_caller_gaps"]["lost"]
    if lost:
        faults.append(f"{lost:g} frames lost")
    return faults


def table(rows: Sequence[Result]) -> str:
    """A table in Markdown: the bridges, and how many times more calls the first one carries."""
    found = [Capacity(**row) for row in rows]
    lines = [
        "| alone on one core | calls carried | the first carries, times | CPU per call, %"
        " | what broke first |",
        "|---" * 5 + "|",
    ]
    for one in found:
        times = f"{found[0].calls / one.calls:.1f}" if one.calls else "-"
        cost = f"{one.cpu_percent_per_call:.3f}"
        lines.append(f"| {one.name} | {one.calls} | {times} | {cost} | {one.broke} |")
    return "\n".join(lines)
