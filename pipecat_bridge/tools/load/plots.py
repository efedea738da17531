"""A page of plots of one or more runs. It needs matplotlib, which the extra `demo` installs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(results: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Write `load.png` into `folder`: delays, cost by number of calls, and a stalled bot."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, ((to_bot, to_caller), (cost, stall)) = plt.subplots(2, 2, figsize=(12, 8))
    # A run with a stalled bot is only in the last plot, unless there are no other runs.
    plain = [result for result in results if "stalled" not in result] or results
    _delays(to_bot, plain, "to_bot_ms", "Delay, caller to bot")
    _delays(to_caller, plain, "to_caller_ms", "Delay, bot to caller")
    _cost(cost, plain)
    _stall(stall, results)
    figure.tight_layout()
    path = folder / "load.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _name(result: dict[str, Any]) -> str:
    return str(result.get("name") or f"{result['calls']} calls")


def _delays(axes: Any, results: Sequence[dict[str, Any]], key: str, title: str) -> None:
    """Plot the share of marks that took longer than x."""
    for result in results:
        delays = sorted(result["delays"][key])
        shares = [1 - index / len(delays) for index in range(len(delays))]
        axes.step(delays, shares, where="post", label=_name(result))
    axes.set(title=title, xlabel="ms", ylabel="share that takes longer", xscale="log", yscale="log")
    axes.grid(visible=True, alpha=0.3)
    if results:
        axes.legend()


def _cost(axes: Any, results: Sequence[dict[str, Any]]) -> None:
    """Plot processor and memory by number of calls."""
    ordered = sorted(results, key=lambda result: int(result["calls"]))
    calls = [result["calls"] for result in ordered]
    axes.plot(calls, [result["cpu_percent"] for result in ordered], "o-", label="CPU")
    axes.set(title="Cost of the bridge", xlabel="calls", ylabel="% of a core", ylim=(0, None))
    memory = axes.twinx()
    load = [result["rss_mb"]["load"] for result in ordered]
    memory.plot(calls, load, "s--", color="tab:orange", label="memory")
    memory.set(ylabel="MB", ylim=(0, None))
    axes.legend(loc="upper left")
    memory.legend(loc="lower right")
    axes.grid(visible=True, alpha=0.3)


def _stall(axes: Any, results: Sequence[dict[str, Any]]) -> None:
    """Plot the delay of a call whose bot stops reading, over time."""
    axes.set(title="A bot that stops reading for 5 s", xlabel="s", ylabel="delay, ms")
    for result in results:
        if "stalled" in result:
            break
    else:
        axes.text(0.5, 0.5, "none in these runs", ha="center", transform=axes.transAxes)
        return
    for begin, end in result["stalled"]["stalls"]:
        axes.axvspan(begin, end, color="0.9")
    for key, label in (("to_bot", "caller to bot"), ("to_caller", "bot to caller")):
        marks = result["stalled"][key]
        axes.plot([m[0] for m in marks], [m[1] for m in marks], ".", markersize=3, label=label)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
