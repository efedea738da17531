"""Where the processor time of a bridge goes: `python -m benchmarks.profile [BRIDGE] [CALLS]`.

py-spy (which `make` installs) looks at the bridge's stack some hundred times a second and stops it
for that, so the bridge must have time to spare. A look counts for what the innermost frame is of,
told by its file, and for lines that enter the kernel by what the line says. What the process took
beyond the time in which it was seen at work, it took to go to sleep, be woken and poll.
"""

from __future__ import annotations

import linecache
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.bridges import BRIDGES
from pipecat_bridge.load.bridge import Started
from pipecat_bridge.load.callers import Callers, Plan
from pipecat_bridge.load.command import processors
from pipecat_bridge.load.runner import Runner
from pipecat_bridge.load.worker import Worker

RATE: Final = 250
SECONDS: Final = 20
SETTLE: Final = 5.0
FRAMES: Final = 50
"""A second of a call, each way."""

WAITING: Final = "to sleep, be woken and poll"
_LINES: Final = (
    (re.compile(r"\.send(msg|to)?\("), "system call send"),
    (re.compile(r"\.recv(_into|msg)?\("), "system call recv"),
    (re.compile(r"\bpoll\(|_poll\(|_sleep\(|\.select\("), WAITING),
)
_FILES: Final = (
    ("/pipecat_bridge/audio/(polyphase|resample|soxr_resample)", "resampler"),
    ("/(numpy|soxr)/|/benchmarks/before", "resampler"),
    ("/pipecat_bridge/wire/frames|/google/protobuf/", "protobuf"),
    ("/pipecat_bridge/", "the daemon's own"),
    ("/autobahn/", "Autobahn"),
    ("/(twisted|zope)/", "Twisted"),
    ("/(websockets|asyncio)/", "asyncio and websockets"),
)
_FRAME: Final = re.compile(r"^(?P<name>.*) \((?P<file>.*):(?P<line>\d+)\)$")


def main(bridge: str = "today", calls: str = "100") -> None:
    """Print the table of one bridge."""
    count = int(calls)
    with tempfile.TemporaryDirectory(prefix="pipecat-bridge-profile-") as name:
        folder = Path(name)
        stacks, seconds, cpu = _record(bridge, count, folder)
    print(table(_sort(stacks), seconds, cpu, count))


def _record(bridge: str, calls: int, folder: Path) -> tuple[list[str], float, float]:
    """Stacks with how often each was seen, for how long, and processor seconds meanwhile."""
    cpus = processors()
    runner = Worker(Runner, "127.0.0.1", 0, 1, cpu=cpus[1])
    try:
        started = BRIDGES[bridge](f"http://127.0.0.1:{runner.ask('port')}", folder / "log", cpus[0])
        try:
            started.wait()
            callers = Worker(Callers, Plan(started.host, started.port, calls), cpu=cpus[1])
            try:
                callers.ask("dial")
                time.sleep(calls / 50 + SETTLE)
                return _watch(started, folder / "stacks")
            finally:
                callers.end()
        finally:
            started.stop()
    finally:
        runner.end()


def _watch(started: Started, file: Path) -> tuple[list[str], float, float]:
    spy = Path(sys.executable).with_name("py-spy")
    before = started.read()
    words = ["--rate", str(RATE), "--duration", str(SECONDS), "--full-filenames"]
    subprocess.run(
        [spy, "record", "--pid", str(started.pid), *words, "--format", "raw", "--output", file],
        check=True,
        capture_output=True,
    )
    after = started.read()
    cpu = (after.cpu - before.cpu) / (after.time - before.time) * SECONDS
    return file.read_text().splitlines(), SECONDS, cpu


def _sort(stacks: list[str]) -> Counter[str]:
    """How often the main thread was seen at what; other threads only wait."""
    seen: Counter[str] = Counter()
    for stack in stacks:
        frames, _, count = stack.rpartition(" ")
        if "threading.py" not in frames:
            seen[_kind(frames.rsplit(";", 1)[-1])] += int(count)
    return seen


def _kind(frame: str) -> str:
    found = _FRAME.match(frame)
    if found is None:
        return "other"
    file = found["file"]
    line = linecache.getline(file, int(found["line"]))
    for pattern, kind in _LINES:
        if pattern.search(line):
            return kind
    return next((kind for pattern, kind in _FILES if re.search(pattern, file)), "other")


def table(seen: Counter[str], seconds: float, cpu: float, calls: int) -> str:
    """Markdown: shares of the processor time, and microseconds a frame there and one back."""
    times = {kind: count / RATE for kind, count in seen.items() if kind != WAITING}
    times[WAITING] = max(0.0, cpu - sum(times.values()))
    frames = calls * FRAMES * seconds
    lines = ["| | % of the processor time | us for a frame there and one back |", "|---|---|---|"]
    for kind, spent in sorted(times.items(), key=lambda item: -item[1]):
        lines.append(f"| {kind} | {100 * spent / cpu:.0f} | {1e6 * spent / frames:.1f} |")
    lines.append(f"| all: {100 * cpu / seconds:.0f} % of a core | 100 | {1e6 * cpu / frames:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
