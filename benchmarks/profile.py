"""Where the processor time of a bridge goes.

py-spy takes `RATE` samples of the bridge's stack each second, and stops the bridge for each. So the
bridge must have time to spare. A sample counts for the file of the innermost frame; if its line
makes a system call, for that call. The rest of the processor time is for sleeping, waking, polling
and being stopped.
"""

from __future__ import annotations

import linecache
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.bridges import BRIDGES
from pipecat_bridge.tools.load.bridge import Started
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess

RATE: Final = 250
SETTLE: Final = 5.0
FRAMES: Final = 50
"""Frames of a call in one second, in each direction."""

WAITING: Final = "to sleep, be woken and poll"
SEND: Final = "system call send"
_LINES: Final = (
    (re.compile(r"\.send(msg|to)?\("), SEND),
    (re.compile(r"\.recv(_into|msg)?\("), "system call recv"),
    (re.compile(r"\bpoll\(|_poll\(|_sleep\(|\.select\("), WAITING),
)
_FILES: Final = (
    ("/pipecat_bridge/audio/(fir|polyphase|resample|soxr_resample)", "resampler"),
    ("/(numpy|soxr)/|/benchmarks/before", "resampler"),
    ("/pipecat_bridge/wire/frames|/google/protobuf/", "protobuf"),
    ("/pipecat_bridge/", "the daemon's own"),
    ("/autobahn/", "Autobahn"),
    ("/(twisted|zope)/", "Twisted"),
    ("/(websockets|asyncio)/", "asyncio and websockets"),
)
_FRAME: Final = re.compile(r"^(?P<name>.*) \((?P<file>.*):(?P<line>\d+)\)$")
_TWISTED_SENDS: Final = "untilConcludes"
"""The function in which the TCP transports of Twisted call send."""


class Profile(NamedTuple):
    """Processor time of a bridge. `cpu`: processor seconds in a run of `seconds`. `kinds`: the same
    by kind of work."""

    bridge: str
    calls: int
    seconds: float
    cpu: float
    kinds: dict[str, float]


def measure(
    bridges: Sequence[str],
    calls: int,
    seconds: int,
    folder: Path,
    cpus: tuple[int | None, int | None],
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """A profile of each bridge with `calls` calls; none if py-spy may not read other processes."""
    profiles = []
    for bridge in bridges:
        tell(f"{bridge}: {seconds} s with {calls} calls")
        try:
            profiles.append(_profile(bridge, calls, seconds, folder, cpus)._asdict())
        except subprocess.CalledProcessError as error:
            tell(f"py-spy: {error.stderr.decode(errors='replace').strip()}")
    return profiles


def _profile(
    bridge: str, calls: int, seconds: int, folder: Path, cpus: tuple[int | None, int | None]
) -> Profile:
    runner = LoadProcess(Runner, "127.0.0.1", 0, 1, Pattern(), cpu=cpus[1])
    try:
        url = f"http://127.0.0.1:{runner.ask('port')}"
        started = BRIDGES[bridge](url, folder / f"profile-{bridge}.log", cpus[0])
        try:
            started.wait()
            callers = LoadProcess(Callers, Plan(started.host, started.port, calls), cpu=cpus[1])
            try:
                callers.ask("dial")
                time.sleep(calls / 50 + SETTLE)
                stacks, cpu = _watch(started, seconds, folder / "stacks")
            finally:
                callers.end()
        finally:
            started.stop()
    finally:
        runner.end()
    return Profile(bridge, calls, seconds, cpu, _kinds(stacks, cpu))


def _watch(started: Started, seconds: int, file: Path) -> tuple[list[str], float]:
    """The stacks with their counts, and the processor seconds of the bridge."""
    spy = Path(sys.executable).with_name("py-spy")
    words = ["--rate", str(RATE), "--duration", str(seconds), "--full-filenames"]
    before = started.read()
    subprocess.run(
        [spy, "record", "--pid", str(started.pid), *words, "--format", "raw", "--output", file],
        check=True,
        capture_output=True,
    )
    after = started.read()
    cpu = (after.cpu - before.cpu) / (after.time - before.time) * seconds
    return file.read_text().splitlines(), cpu


def _kinds(stacks: list[str], cpu: float) -> dict[str, float]:
    """Processor seconds of each kind. Only the main thread counts, because others only wait."""
    seen: Counter[str] = Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        if "threading.py" not in frames:
            seen[_kind(frames.rsplit(";", 1)[-1])] += int(count)
    del seen[WAITING]
    kinds = {kind: count / RATE for kind, count in seen.items()}
    return {**kinds, WAITING: max(0.0, cpu - sum(kinds.values()))}


def _kind(frame: str) -> str:
    found = _FRAME.match(frame)
    if found is None:
        return "other"
    if found["name"] == _TWISTED_SENDS:
        return SEND
    file = found["file"]
    line = linecache.getline(file, int(found["line"]))
    for pattern, kind in _LINES:
        if pattern.search(line):
            return kind
    return next((kind for pattern, kind in _FILES if re.search(pattern, file)), "other")


def table(profiles: Sequence[dict[str, Any]]) -> str:
    """A table in Markdown: microseconds for one frame in each direction, and shares of the
    processor time."""
    made = [Profile(**profile) for profile in profiles]
    titles = [f"{one.bridge}, us | %" for one in made]
    lines = ["| a frame there and one back | " + " | ".join(titles) + " |"]
    lines.append("|---" * (2 * len(made) + 1) + "|")
    kinds = dict.fromkeys(kind for one in made for kind in sorted(one.kinds))
    most = sorted(kinds, key=lambda kind: -max(one.kinds.get(kind, 0.0) for one in made))
    lines += [f"| {kind} | " + " | ".join(_cell(one, kind) for one in made) + " |" for kind in most]
    every = [f"{1e6 * one.cpu / _frames(one):.1f} | 100" for one in made]
    lines.append("| all | " + " | ".join(every) + " |")
    return "\n".join(lines)


def _frames(profile: Profile) -> float:
    return profile.calls * FRAMES * profile.seconds


def _cell(profile: Profile, kind: str) -> str:
    spent = profile.kinds.get(kind, 0.0)
    return f"{1e6 * spent / _frames(profile):.1f} | {100 * spent / profile.cpu:.0f}"
