"""The benchmarks: `python -m benchmarks`. They take minutes; with `--short` seconds, as a test.

The results are in results.json, report.md and load.png. Steps: `path`, one frame in memory;
`conditions`, what is heard with jitter and stalls, on a turned clock;
`ratios`, several bridges at the same time; `ladder`, more and more calls on one core; `sides`, the
bridges one after the other, in rounds; `capacity`, how many calls each bridge carries; `collector`,
short calls with and without a tuned garbage collector; `stall`, a bot that stops reading; `faults`,
the effect of faulty bots on other calls; `profile`, where the processor time goes; `workers`, the
gain of a second process. Only if they are named, or in short: `churn`, many short calls; `hours`,
calls of eight hours on a turned clock; `hour`, calls of one hour in real time; `hostile`, calls
beside each hostile bot and phone; `store`, pages and searches among many stored calls;
`records`, what a store costs; `recorded`, what recordings cost; `away`, calls while the store is
stopped, locked or full.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import (
    against,
    away,
    capacity,
    churn,
    conditions,
    frame_path,
    hostile,
    hours,
    profile,
    recorded,
    rounds,
    sides,
    stall,
    store,
    workers,
)
from benchmarks.bridges import BRIDGES
from pipecat_bridge.tools.load import plots, report
from pipecat_bridge.tools.load.bridge import daemon
from pipecat_bridge.tools.load.callers import Plan
from pipecat_bridge.tools.load.command import processors
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.tools.load.run import Course, run
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess

Result = dict[str, Any]


class Sizes(NamedTuple):
    """Numbers of calls, and durations in seconds, of all steps."""

    ladder: tuple[int, ...] = (1, 20, 50, 100, 150, 200, 250, 300)
    seconds: float = 15.0
    settle: float = 3.0
    sides: int = 100
    rounds: int = 3
    capacity: tuple[int, ...] = (50, 75, 100, 125, 150, 200, 250, 300)
    ratios: int = 12
    stall: int = 20
    collector: int = 50
    faults: int = 100
    churn: int = 100_000
    workers: int = 20
    profile: int = 60
    sentences: int = 3
    hours: float = 8.0
    hour: float = 1.0
    hostile: int = 100
    attack: float = 5.0
    peers: int = 1
    stored: int = 100_000
    queries: int = 1000
    window: float = 3.0
    pairs: int = 20
    away: float = 60.0
    talking: int = 50
    climb: tuple[int, ...] = (100, 150, 200, 225, 250, 275, 300, 350)


SHORT = Sizes(
    ladder=(1, 10),
    seconds=2.0,
    settle=0.5,
    sides=5,
    rounds=1,
    capacity=(3,),
    ratios=3,
    stall=3,
    collector=5,
    faults=10,
    churn=200,
    workers=3,
    profile=3,
    sentences=3,
    hours=0.02,
    hour=0.002,
    hostile=5,
    attack=1.0,
    peers=20,
    stored=500,
    queries=20,
    window=1.0,
    pairs=1,
    away=2.0,
    talking=3,
    climb=(5,),
)
KEPT = {"no store": ("store.url=none",), "store": ()}
"""What is kept of calls -> the options for it."""

COMPARED = ("today", "before", "plain", "asyncio", "asyncio-qq")


class Bench:
    """Has a method for each step. `folder` is for the logs of the bridges, `pictures` for what is
    drawn; `other` is a commit to compare with."""

    def __init__(
        self, sizes: Sizes, folder: Path, pictures: Path, other: str | None = None
    ) -> None:
        self.sizes = sizes
        self._pictures = pictures
        self._ours = ("today", other) if other else ("today",)
        self._compared = self._ours if other else COMPARED
        self._folder = folder
        self._cpus = processors()

    def store(self) -> Result:
        """Ask the store among many calls."""
        return store.run(self.sizes.stored, self.sizes.queries, self._folder, tell)

    def records(self) -> list[Result]:
        """Run the same calls with and without a store."""
        return [
            {
                **self._run(name, self.sizes.sides, f"{name}, round {n}", settings=settings),
                "bridge": name,
                "round": n,
            }
            for n in range(1, self.sizes.rounds + 1)
            for name, settings in KEPT.items()
        ]

    def recorded(self) -> list[Result]:
        """Run calls with and without recordings, in turn."""
        sizes = self.sizes
        return recorded.measure(
            sizes.sides, sizes.window, sizes.pairs, self._folder, self._cpus, tell
        )

    def away(self) -> list[Result]:
        """Run calls while the store is away."""
        sizes = self.sizes
        return away.measure(sizes.talking, sizes.away, self._folder, self._cpus, tell)

    def ladder(self) -> list[Result]:
        """Run more and more calls."""
        return [
            {**self._run(name, calls, self._name(name, f"{calls} calls")), "bridge": name}
            for calls in self.sizes.ladder
            for name in self._ours
        ]

    def _name(self, bridge: str, name: str) -> str:
        return name if bridge == "today" else f"{name}, {bridge}"

    def sides(self) -> list[Result]:
        """Run each bridge alone, in rounds."""
        return [
            {**self._run(name, self.sizes.sides, f"{name}, round {n}"), "bridge": name, "round": n}
            for n in range(1, self.sizes.rounds + 1)
            for name in self._compared
        ]

    def ratios(self) -> list[Result]:
        """Run all bridges at the same time."""
        seconds = max(2, int(self.sizes.seconds))
        return sides.compare(
            self._compared, self.sizes.ratios, seconds, self._folder, self._cpus, tell
        )

    def capacity(self) -> list[Result]:
        """Run more and more calls on each bridge, until a limit is broken."""

        def climb(name: str) -> Result:
            def run(calls: int) -> Result:
                return self._run(name, calls, f"{name}, {calls} calls")

            return capacity.climb(name, self.sizes.capacity, run, capacity.BEARABLE)._asdict()

        return [climb(name) for name in COMPARED]

    def collector(self) -> list[Result]:
        """Run calls of one second each. They leave the most work for a garbage collector."""
        return [
            self._run(name, self.sizes.collector, f"{name}, short calls", length=1.0)
            for name in ("today", "before")
        ]

    def stall(self) -> list[Result]:
        """Run calls in which one bot stops reading for 5 s. The run also shows the time after."""
        seconds = max(self.sizes.seconds, 14.0)
        return [
            self._run(name, self.sizes.stall, f"{name}, one stalled", seconds, stalled=1)
            for name in ("today", "before")
        ]

    def faults(self) -> list[Result]:
        """Run the same calls without and with three faulty bots."""
        calls = self.sizes.faults
        wrong = {"stalled": 1, "bursting": 1, "dying": 1}
        return [
            self._run("today", calls, "all in order"),
            self._run("today", calls, "three do wrong", **wrong),
        ]

    def conditions(self) -> dict[str, Result]:
        """What is heard with jitter, stalls and too little bandwidth, on a turned clock."""
        results = {
            name: against.run_python(
                against.folder(name), conditions.__file__, str(self.sizes.sentences)
            )
            for name in self._ours
        }
        conditions.draw(results, self._pictures)
        return results

    def path(self) -> Result:
        """Measure one frame in memory."""
        return against.path(self._ours) if len(self._ours) > 1 else frame_path.measure()

    def profile(self) -> list[Result]:
        """Measure where the processor time goes, with and without all optimisations."""
        sizes, seconds = self.sizes, max(2, int(self.sizes.seconds))
        return profile.measure(
            ("today", "plain"), sizes.profile, seconds, self._folder, self._cpus, tell
        )

    def workers(self) -> Result:
        """Compare one worker with two."""
        course = Course(self.sizes.seconds, self.sizes.settle)
        return workers.measure(self.sizes.workers, self.sizes.climb, course, self._folder, tell)

    def hours(self) -> Result:
        """Turn talking calls for hours."""
        return hours.measure(self.sizes.hours, self.sizes.talking, tell)

    def hour(self) -> Result:
        """Let calls talk for an hour."""
        sizes = self.sizes
        return churn.talk(sizes.talking, sizes.hour * 3600, self._folder, self._cpus, tell)

    def hostile(self) -> list[Result]:
        """Run calls beside each hostile bot and phone."""
        sizes = self.sizes
        return hostile.measure(
            sizes.hostile, sizes.attack, sizes.peers, self._folder, self._cpus, tell
        )

    def churn(self) -> Result:
        """Run many short calls, one after the other."""
        return churn.measure(self.sizes.churn, self._folder, self._cpus, tell)

    def _run(
        self,
        bridge: str,
        calls: int,
        name: str,
        seconds: float | None = None,
        settings: Sequence[str] | None = None,
        **wrong: float,
    ) -> Result:
        tell(f"{name}:")
        sizes = self.sizes
        runner = LoadProcess(Runner, "127.0.0.1", 0, 1, Pattern(), cpu=self._cpus[1])
        try:
            url = f"http://127.0.0.1:{runner.ask('port')}"
            log = self._folder / f"{bridge}.log"
            if settings is None:
                started = BRIDGES[bridge](url, log, self._cpus[0])
            else:
                started = daemon(url, log, self._cpus[0], settings)
            try:
                started.wait()
                plan = Plan(started.host, started.port, calls, **wrong)  # type: ignore[arg-type]
                course = Course(seconds or sizes.seconds, sizes.settle)
                result = run(started, runner, plan, course, self._cpus, tell)
            finally:
                started.stop()
        finally:
            runner.end()
        return {**result, "name": name}


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


STEPS: dict[str, Callable[[Any], str]] = {
    "path": frame_path.table,
    "conditions": conditions.table,
    "ratios": sides.table,
    "ladder": report.table,
    "sides": rounds.table,
    "capacity": capacity.table,
    "collector": report.table,
    "stall": stall.table,
    "faults": report.table,
    "profile": profile.table,
    "workers": workers.table,
    "churn": churn.table,
    "hours": hours.table,
    "hour": churn.table,
    "hostile": hostile.table,
    "store": store.table,
    "records": rounds.table,
    "recorded": recorded.table,
    "away": away.table,
}
"""Steps by name, with the function that makes the table. Each name is a method of Bench."""


LONG = ("churn", "hours", "hour", "hostile", "store", "records", "recorded", "away")
"""Steps that run only if they are named, or in short."""


def _compared_with(other: str) -> dict[str, Callable[[Any], str]]:
    """The tables of steps that compare today's code with another commit."""
    return {
        "path": lambda results: against.path_table(results, other),
        "ladder": lambda results: (
            f"{report.table(results)}\n\nToday / {other}:\n\n{against.ladder_table(results, other)}"
        ),
    }


def main() -> int:
    arguments = _arguments()
    results: dict[str, Any] = {}
    tables = []
    other = arguments.against
    steps = {**STEPS, **(_compared_with(other) if other else {})}
    with (
        tempfile.TemporaryDirectory(prefix="pipecat-bridge-bench-") as folder,
        against.checked_out(other) if other else nullcontext(),
    ):
        bench = Bench(SHORT if arguments.short else Sizes(), Path(folder), arguments.out, other)
        for name in arguments.steps:
            results[name] = getattr(bench, name)()
            tables.append(f"## {name}\n\n{steps[name](results[name])}\n")
            print(tables[-1], flush=True)
            for remark in _remarks(results[name]):
                print(f"note: {remark}", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.md").write_text("\n".join(tables))
    (arguments.out / "results.json").write_text(json.dumps(report.for_json(results), indent=1))
    drawn = [*results.get("ladder", []), *results.get("stall", [])]
    if drawn:
        plots.draw(drawn, arguments.out)
    tell(f"written to {arguments.out}")
    return 0


def _remarks(results: Any) -> list[str]:
    runs = [result for result in results if isinstance(result, dict) and "generator" in result]
    return [f"{run['name']}: {remark}" for run in runs for remark in report.remarks(run)]


def _arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"any of {', '.join(STEPS)}")
    parser.add_argument("--short", action="store_true", help="small and quick, for CI")
    parser.add_argument("--out", type=Path, default=Path("bench"), metavar="FOLDER")
    parser.add_argument(
        "--against",
        metavar="COMMIT",
        help="compare with another commit, in `path`, `conditions`, `ladder`, `sides`, `ratios`",
    )
    arguments = parser.parse_args(words)
    unknown = [name for name in arguments.steps if name not in STEPS]
    if unknown:
        parser.error(f"unknown step {unknown[0]}, expected any of {', '.join(STEPS)}")
    usual = [name for name in STEPS if arguments.short or name not in LONG]
    arguments.steps = arguments.steps or usual
    return arguments


if __name__ == "__main__":
    sys.exit(main())
