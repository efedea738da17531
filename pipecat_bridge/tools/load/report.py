"""The report of a run: a table of the figures, and remarks on what makes them doubtful."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

BUSY: Final = 0.7
"""Share of a processor. If a side of the generator is busier, it may add delay itself."""

WAITED: Final = 5.0
"""Per cent of the time. A run is doubtful if the bridge waited longer for its processor."""

Result = dict[str, Any]


def _figures(spread: dict[str, float]) -> str:
    if not spread:
        return "-"
    return " / ".join(f"{value:.1f}" for value in spread.values())


def _known(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _cpu(result: Result) -> str:
    cost = [_known(result["cpu_percent_per_call"][key], ".3f") for key in ("median", "min", "max")]
    return f"{cost[0]} ({cost[1]} .. {cost[2]})"


def _memory(result: Result) -> str:
    return " / ".join(_known(result["rss_mb"][key], ".1f") for key in ("before", "load", "after"))


def _gaps(result: Result) -> str:
    there, back = result["to_bot_gaps"], result["to_caller_gaps"]
    return f"{there['lost']:g} + {back['lost']:g} / {there['repeated']:g} + {back['repeated']:g}"


def _pauses(result: Result) -> str:
    gc = result["gc"]
    if gc is None:
        return "-"
    return f"{gc['pauses']:.0f} / {gc['longest_ms']:.1f} / {gc['share_percent']:.2f}"


def _lag(result: Result) -> str:
    lag = result["loop_lag_ms"]
    return "-" if lag is None else f"{lag['mean']:.2f} / {lag['max']:.1f}"


def _speed(result: Result) -> str:
    return f"{_known(result['work_us'], '.0f')} ({_known(result['slowdown'], '.2f')})"


def _generator(result: Result) -> str:
    generator = result["generator"]
    return f"{generator['callers_busy']:.0%} / {generator['bots_busy']:.0%}"


_ROWS: Final[tuple[tuple[str, Callable[[Result], str]], ...]] = (
    ("calls: asked / up", lambda r: f"{r['calls']} / {r['up']}"),
    ("set-up, ms (p50 / p95 / p99 / max)", lambda r: _figures(r["set_up_ms"])),
    ("first frame to the phone, ms", lambda r: _figures(r["answer_ms"])),
    ("CPU per call, % of a core (min .. max)", _cpu),
    (
        "CPU per call at the core's best speed in the run, %",
        lambda r: _known(r["cpu_percent_per_call_best"], ".3f"),
    ),
    ("CPU of the bridge, %", lambda r: _known(r["cpu_percent"], ".1f")),
    ("memory before / at load / after, MB", _memory),
    ("memory per call, MB", lambda r: _known(r["rss_mb_per_call"], ".3f")),
    ("delay caller -> bot, ms", lambda r: _figures(r["to_bot_ms"])),
    ("delay bot -> caller, ms", lambda r: _figures(r["to_caller_ms"])),
    ("pace to the phone, off 20 ms by", lambda r: _figures(r["pace"]["deviation_ms"])),
    ("late frames (40 ms or more apart)", lambda r: str(r["pace"]["late"])),
    ("distances between frames that were read too late", lambda r: str(r["pace"]["unknown"])),
    ("frames lost / put in, to bot + to caller", _gaps),
    ("loop lag mean / max, ms", _lag),
    ("GC pauses / longest ms / % of the time", _pauses),
    ("generator busy, callers / bots", _generator),
    ("callers' clock late, ms", lambda r: _figures(r["generator"]["callers_late_ms"])),
    ("bridge waited for its core, % of the time", lambda r: _known(r["waited_percent"], ".1f")),
    ("a fixed piece of work took, us (times its best)", _speed),
)


def table(results: Sequence[Result]) -> str:
    """The figures as a table in Markdown, with a column for each run."""
    names = [str(result.get("name") or f"{result['calls']} calls") for result in results]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, cell in _ROWS:
        lines.append(f"| {title} | " + " | ".join(cell(result) for result in results) + " |")
    return "\n".join(lines)


def remarks(result: Result) -> list[str]:
    """One sentence for each thing that makes a run doubtful."""
    found = []
    generator = result["generator"]
    for side in ("callers", "bots"):
        busy = generator[f"{side}_busy"]
        if busy > BUSY:
            found.append(
                f"the {side} were busy for {busy:.0%} of the time: they may have added delay"
            )
    if result["waited_percent"] > WAITED:
        found.append(
            f"the bridge waited for its processor for {result['waited_percent']:.0f} % of the time,"
            " because other programs used it: without them delays and pace would be better"
        )
    if result["up"] < result["calls"] and not result["plan"]["length"]:
        found.append(f"{result['calls'] - result['up']} calls were not set up, or ended early")
    if generator["unsent"]:
        found.append(f"the bridge did not take {generator['unsent']} frames of callers")
    if not (result["plan"]["dying"] or result["plan"]["length"]):
        found += [f"{count} calls {why}" for why, count in result["ended"].items()]
    return found


def for_json(value: Any) -> Any:
    """The value with None in place of nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: for_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [for_json(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
