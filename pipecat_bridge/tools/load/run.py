"""One run of a load: sets up calls, measures them and the bridge, and hangs up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, NamedTuple

from pipecat_bridge.tools.load import figures
from pipecat_bridge.tools.load.bridge import MeasuredBridge, Reading
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.calls import Role
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.speed import Elsewhere, Speed
from pipecat_bridge.tools.load.worker import LoadProcess

SET_UP_SECONDS: Final = 30.0
"""Seconds after the last call was dialled in which all calls should be up. Others have failed."""

WARM_UP_CALLS: Final = 3
PARTS: Final = 5
"""Number of parts of a run. The differences between the parts show how reliable a figure is."""


class Course(NamedTuple):
    """Times of a run. `duration`: seconds measured. `settle`: seconds before the measurement.
    `bot_rate`: samples per second that the bridge sends to bots."""

    duration: float = 20.0
    settle: float = 3.0
    bot_rate: int = 16000


def run(
    bridge: MeasuredBridge,
    runner: LoadProcess[Runner],
    plan: Plan,
    course: Course,
    cpus: tuple[int | None, int | None],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Run `plan` on a bridge. Returns all figures, ready for JSON.

    `cpus`: the processors of the bridge and of the callers, None if unknown.
    """
    speed = LoadProcess(Speed if bridge.here else Elsewhere, cpu=cpus[0])
    _warm_up(bridge, runner, plan, cpus[1])
    before = bridge.read()
    callers = LoadProcess(Callers, plan, cpu=cpus[1])
    try:
        callers.ask("dial")
        _set_up(callers, plan, report)
        report(f"measuring for {course.duration:g} s")
        time.sleep(course.settle)
        # Before the measured time, because an answer of /metrics costs the bridge some ms.
        counted = bridge.metrics()
        for worker in (callers, runner, speed):
            worker.ask("record")
        readings = _observe(bridge, course.duration)
        at_load = callers.ask("status")
        heard, said, slow = runner.ask("stop"), callers.ask("stop"), speed.ask("stop")
        counted = _counted(counted, bridge.metrics())
        callers.ask("hang_up")
        time.sleep(min(2.0, course.settle))
        after = bridge.read()
    finally:
        callers.end()
        speed.end()
    return {
        "calls": plan.calls,
        "plan": plan._asdict(),
        "course": course._asdict(),
        **_audio(plan, course, said, heard),
        **_cost(plan, before, readings, after, slow["slowdown"]),
        **_inside(counted, readings[-1].time - readings[0].time),
        "slowdown": slow["slowdown"],
        "work_us": slow["work_us"],
        "counted": counted,
        **_set_up_figures(plan, at_load, said, heard),
        **_generator(said, heard),
    }


def _warm_up(
    bridge: MeasuredBridge, runner: LoadProcess[Runner], plan: Plan, cpu: int | None
) -> None:
    """Make a few calls first. A bridge loads and allocates some things only once, and they should
    not count as the cost of a call."""
    few = plan._replace(calls=WARM_UP_CALLS, length=0.0, stalled=0, bursting=0, dying=0)
    callers = LoadProcess(Callers, few, cpu=cpu)
    try:
        callers.ask("dial")
        until(lambda: callers.ask("status")["up"] == WARM_UP_CALLS, 5.0)
        time.sleep(0.5)
        callers.ask("hang_up")
        until(lambda: not runner.ask("status")["bots"], 5.0)
        time.sleep(0.5)
    finally:
        callers.end()


def _set_up(callers: LoadProcess[Callers], plan: Plan, report: Callable[[str], None]) -> None:
    report(f"{plan.calls} calls, {plan.per_second:g} a second")
    dialling = plan.calls / plan.per_second
    if plan.length:  # the calls are never all up at the same time
        time.sleep(dialling)
        return
    steady = plan.calls - plan.dying
    until(lambda: callers.ask("status")["up"] >= steady, dialling + SET_UP_SECONDS)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, for so many seconds at most. False: it has not come true."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True


def _observe(bridge: MeasuredBridge, seconds: float) -> list[Reading]:
    begin = time.monotonic()
    readings = [bridge.read()]
    for part in range(1, PARTS + 1):
        time.sleep(max(0.0, begin + seconds * part / PARTS - time.monotonic()))
        readings.append(bridge.read())
    return readings


def _audio(
    plan: Plan, course: Course, said: dict[str, Any], heard: dict[str, Any]
) -> dict[str, Any]:
    """Delay, pace and lost audio of the calls whose bots have no fault."""
    roles = said["roles"]
    by_bots = figures.only(Role.STEADY, roles, heard["heard"])
    by_callers = figures.only(Role.STEADY, roles, said["heard"])
    there = figures.to_bot(said["sent"], by_bots)
    back = figures.to_caller(by_bots, by_callers)
    return {
        "to_bot_ms": figures.spread(delay.seconds for delay in there),
        "to_caller_ms": figures.spread(delay.seconds for delay in back),
        "pace": figures.pace(said["pace"]),
        "to_bot_gaps": figures.gaps(by_bots, course.bot_rate)._asdict(),
        "to_caller_gaps": figures.gaps(by_callers, plan.rate)._asdict(),
        "marks": {"to_bot": len(there), "to_caller": len(back), "damaged": said["damaged"]},
        "silent_frames": said["counts"].get("silent_in", 0),
        "delays": {
            "to_bot_ms": [round(delay.seconds * 1000, 2) for delay in there],
            "to_caller_ms": [round(delay.seconds * 1000, 2) for delay in back],
        },
        **_stalled(roles, said, heard),
    }


def _stalled(roles: dict[int, Role], said: dict[str, Any], heard: dict[str, Any]) -> dict[str, Any]:
    """The delays over time of a bot that stalls: (seconds, ms) for each mark, both ways."""
    marks = figures.only(Role.STALLED, roles, heard["heard"])
    if not marks:
        return {}
    there = figures.to_bot(said["sent"], marks)
    back = figures.to_caller(marks, figures.only(Role.STALLED, roles, said["heard"]))
    first = min(delay.sent for delay in there)

    def line(delays: list[figures.Delay]) -> list[tuple[float, float]]:
        return [(round(d.sent - first, 3), round(d.seconds * 1000, 1)) for d in delays]

    stalls = [(round(a - first, 3), round(b - first, 3)) for _, a, b in heard["stalls"]]
    return {"stalled": {"stalls": stalls, "to_bot": line(there), "to_caller": line(back)}}


def _cost(
    plan: Plan, before: Reading, readings: list[Reading], after: Reading, slowdown: float
) -> dict[str, Any]:
    """Processor time and memory of the bridge."""
    parts = [(b.cpu - a.cpu) / (b.time - a.time) / plan.calls for a, b in pairwise(readings)]
    first, last = readings[0], readings[-1]
    per_call = (last.rss - before.rss) / plan.calls
    return {
        "cpu_percent_per_call": {
            "median": round(100 * statistics.median(parts), 4),
            "min": round(100 * min(parts), 4),
            "max": round(100 * max(parts), 4),
        },
        "cpu_percent_per_call_best": round(100 * statistics.median(parts) / slowdown, 4),
        "cpu_percent": round(100 * (last.cpu - first.cpu) / (last.time - first.time), 2),
        "waited_percent": round(100 * (last.waited - first.waited) / (last.time - first.time), 2),
        "rss_mb": {
            "before": round(before.rss / 1e6, 2),
            "load": round(last.rss / 1e6, 2),
            "after": round(after.rss / 1e6, 2),
        },
        "rss_mb_per_call": round(per_call / 1e6, 3),
        "descriptors": {
            "before": before.descriptors,
            "load": last.descriptors,
            "after": after.descriptors,
        },
        "seconds": round(last.time - first.time, 3),
    }


def _counted(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The increase of each metric; of a maximum its last value."""
    return {
        name: value if name.endswith("_max") else value - before.get(name, 0.0)
        for name, value in after.items()
        if not name.endswith("_created")
    }


def _inside(counted: dict[str, float], seconds: float) -> dict[str, Any]:
    """Lag of the bridge's loop, and pauses of its garbage collector; None if not in /metrics."""
    name = "pipecat_bridge_gc_pause_seconds"
    pauses = counted.get(f"{name}_count")
    gc = None
    if pauses is not None:
        gc = {
            "pauses": pauses,
            "longest_ms": round(1000 * counted.get(f"{name}_max", 0.0), 3),
            "share_percent": round(100 * counted.get(f"{name}_sum", 0.0) / seconds, 3),
        }
    lag_name = "pipecat_bridge_loop_lag_seconds"
    ticks = counted.get(f"{lag_name}_count")
    lag = None
    if ticks:
        lag = {
            "mean": round(1000 * counted[f"{lag_name}_sum"] / ticks, 3),
            "max": round(1000 * counted.get(f"{lag_name}_max", 0.0), 3),
        }
    return {"gc": gc, "loop_lag_ms": lag}


def _set_up_figures(
    plan: Plan, at_load: dict[str, Any], said: dict[str, Any], heard: dict[str, Any]
) -> dict[str, Any]:
    dialled, answered, first = said["dialled"], said["answered"], heard["first_audio"]
    ended = {k: v for k, v in at_load.items() if k.startswith("ended: ")}
    return {
        "up": at_load["up"],
        "ended": ended,
        "answer_ms": figures.spread(answered[n] - dialled[n] for n in answered if n in dialled),
        "set_up_ms": figures.spread(first[n] - dialled[n] for n in first if n in dialled),
    }


def _generator(said: dict[str, Any], heard: dict[str, Any]) -> dict[str, Any]:
    return {
        "generator": {
            "callers_busy": round(said["busy"], 3),
            "bots_busy": round(heard["busy"], 3),
            "callers_late_ms": figures.spread(said["lateness"]),
            "unsent": said["counts"].get("unsent", 0),
        }
    }
