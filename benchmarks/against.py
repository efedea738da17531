"""Another commit of this project, measured in the same run as today's code.

    python -m benchmarks path ladder sides --against HEAD~1

Machines that others use change their speed within minutes, so only figures of one run can be
compared. The commit is checked out into a folder of its own for as long as the run takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.bridges import BRIDGES
from pipecat_bridge.tools.load.bridge import TWISTD, Started, daemon

ROUNDS: Final = 40
"""How often the commits send frames through their paths, in turn."""

_MEASURE: Final = """
import json, sys, timeit
from benchmarks.frame_path import PATHS
paths = {mode: make() for mode, make in PATHS.items()}
frames = {}
for mode, path in paths.items():
    frames[f"{mode}: to bot"], frames[f"{mode}: to caller"] = path.to_bot, path.to_caller
for _ in sys.stdin:
    best = {name: min(timeit.repeat(frame, number=300, repeat=6)) for name, frame in frames.items()}
    print(json.dumps({name: 1e6 * each / 300 for name, each in best.items()}), flush=True)
"""

Result = dict[str, Any]


@contextmanager
def checked_out(revision: str) -> Iterator[str]:
    """Make a bridge of a commit, for as long as the context lasts; the bridge's name."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="pipecat-bridge-commit-") as folder:
        git = ["git", "-C", str(root), "worktree"]
        subprocess.run([*git, "add", "--detach", "--force", folder, revision], check=True)
        try:
            _compile(Path(folder))
            _check(Path(folder))
            BRIDGES[revision] = lambda runner, log, cpu: _start(Path(folder), runner, log, cpu)
            _FOLDERS[revision] = Path(folder)
            yield revision
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True)


def _compile(folder: Path) -> None:
    """Build what is compiled, if anything is in that commit."""
    if not (folder / "setup.py").exists():
        return
    with tempfile.TemporaryDirectory() as name:
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", name]
        subprocess.run([*pip, str(folder)], check=True)
        (wheel,) = Path(name).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(".so"):
                    archive.extract(member, folder)


_FOLDERS: Final[dict[str, Path]] = {"today": Path(__file__).parents[1]}


def _start(folder: Path, runner: str, log: Path, cpu: int | None) -> Started:
    return daemon(runner, log, cpu, (), [*_python(folder), "-c", TWISTD])


def _python(folder: Path) -> list[str]:
    """Python with the code in `folder`. Without -P the code of the working directory came first."""
    return ["env", f"PYTHONPATH={folder}", sys.executable, "-P"]


def _check(folder: Path) -> None:
    """Raise RuntimeError if a daemon of `folder` would run other code."""
    where = [*_python(folder), "-c", "import pipecat_bridge; print(pipecat_bridge.__file__)"]
    told = subprocess.run(where, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = Path(told.strip())
    if not found.is_relative_to(folder):
        raise RuntimeError(f"expected the code of {folder}, but {found} would run")


def folder(name: str) -> Path:
    """Where the code of a commit is, or of "today"."""
    return _FOLDERS[name]


def path(names: Sequence[str]) -> Result:
    """Microseconds of one frame in memory in each of the commits, in each round."""
    with ExitStack() as stack:
        commits = {name: stack.enter_context(_Paths(_FOLDERS[name])) for name in names}
        for each in commits.values():
            each.measure()  # it is slower at first
        rounds: Result = {}
        for _ in range(ROUNDS):
            for name, each in commits.items():
                for row, microseconds in each.measure().items():
                    rounds.setdefault(row, {}).setdefault(name, []).append(round(microseconds, 3))
        return rounds


class _Paths:
    """A process with the paths of one commit. It stays, because two processes with the same code
    may differ by a tenth."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MEASURE],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Paths:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10.0)

    def measure(self) -> dict[str, float]:
        """Microseconds of a frame on each path."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("again", file=self._process.stdin, flush=True)
        figures: dict[str, float] = json.loads(self._process.stdout.readline())
        return figures


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder)}


def run_python(folder: Path, *arguments: str) -> Any:
    """What Python prints as JSON, run with the code in `folder`."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


def path_table(rounds: Result, other: str) -> str:
    """Microseconds of a frame in both commits, and today's as a share of the other's: medians."""
    lines = [f"| one frame, us | today | {other} | ratio |", "|---|---|---|---|"]
    for row, figures in rounds.items():
        now, then = figures["today"], figures[other]
        ratio = median(a / b for a, b in zip(now, then, strict=True))
        lines.append(f"| {row} | {median(now):.2f} | {median(then):.2f} | {ratio:.3f} |")
    return "\n".join(lines)


def ladder_table(results: Sequence[Result], other: str) -> str:
    """CPU, delays and memory of both commits by the number of calls; each as today / other."""
    rows = {
        "CPU per call": lambda one: one["cpu_percent_per_call"]["median"],
        "to bot, p99": lambda one: one["to_bot_ms"].get("p99", float("nan")),
        "to caller, p99": lambda one: one["to_caller_ms"].get("p99", float("nan")),
        "memory per call": lambda one: one["rss_mb_per_call"],
    }
    lines = ["| calls | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    by_bridge = {(one["calls"], one["bridge"]): one for one in results}
    for calls in dict.fromkeys(one["calls"] for one in results):
        pair = by_bridge[calls, "today"], by_bridge[calls, other]
        cells = [f"{read(pair[0]):.3g} / {read(pair[1]):.3g}" for read in rows.values()]
        lines.append(f"| {calls} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
