"""The bridge that is measured: a daemon started here, or one that runs elsewhere."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.error import URLError
from urllib.request import urlopen

READY_SECONDS: Final = 30.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
TWISTD: Final = "from twisted.scripts.twistd import run; run()"
_METRIC = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


class BridgeStartError(Exception):
    """The bridge did not start, or is not there."""


class Reading(NamedTuple):
    """The use of resources of a bridge at one moment.

    `time`: seconds of the monotonic clock. `cpu`: processor seconds since the start. `waited`:
    seconds that it waited for the processor because other programs used it. `rss`: resident bytes.
    `descriptors`: open file descriptors. Unknown values are nan.
    """

    time: float
    cpu: float
    waited: float
    rss: float
    descriptors: float


class MeasuredBridge(Protocol):
    """What a run needs from a bridge. `here`: the bridge runs on this machine."""

    host: str
    port: int
    here: bool

    def read(self) -> Reading:
        """The use of resources now."""
        ...

    def metrics(self) -> dict[str, float]:
        """The bridge's own metrics; empty if it has no API."""
        ...

    def stop(self) -> None:
        """End the bridge, if it was started here."""


class Remote:
    """A bridge that runs already. `api`: the base URL of its API, or ""."""

    here = False

    def __init__(self, host: str, port: int, api: str) -> None:
        self.host, self.port = host, port
        self._api = api.rstrip("/")
        self._longest: dict[str, float] = {}  # maxima that were read after the last `metrics`

    def read(self) -> Reading:
        """The use of resources by /metrics; all nan without an API."""
        metrics = scrape(self._api) if self._api else {}
        for name, value in metrics.items():
            if name.endswith("_max"):
                self._longest[name] = max(value, self._longest.get(name, 0.0))
        nan = float("nan")
        return Reading(
            time.monotonic(),
            metrics.get("process_cpu_seconds_total", nan),
            nan,
            metrics.get("process_resident_memory_bytes", nan),
            metrics.get("process_open_fds", nan),
        )

    def metrics(self) -> dict[str, float]:
        """The metrics. Each scrape resets the maxima, so maxima of earlier reads are included."""
        metrics = scrape(self._api) if self._api else {}
        for name, value in self._longest.items():
            metrics[name] = max(value, metrics.get(name, 0.0))
        self._longest.clear()
        return metrics

    def stop(self) -> None:
        """Does nothing: the bridge was not started here."""


class Started:
    """A process, with its children, that listens on `port`. Its output goes to the file `log`, and
    its records into a folder beside that.

    `cpu`: the only processor that it may use. `api`: the base URL of its API. With `api` "", it
    counts as ready when the port answers.
    """

    host = "127.0.0.1"
    here = True

    def __init__(
        self, command: Sequence[str], port: int, api: str, log: Path, cpu: int | None = None
    ) -> None:
        self.port = port
        self.api = api
        self._log = log
        self._since_log = log.open("ab")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PIPECAT_BRIDGE_")}
        environment["XDG_STATE_HOME"] = str((log.parent / f"state-{port}").absolute())
        self._process = subprocess.Popen(
            command, stdout=self._since_log, stderr=subprocess.STDOUT, env=environment
        )
        if cpu is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {cpu})
        if hasattr(resource, "prlimit"):
            _, most = resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (most, most))

    @property
    def pid(self) -> int:
        """The id of the process that was started."""
        return self._process.pid

    def wait(self) -> None:
        """Wait until the bridge is ready. Raises BridgeStartError after 30 s."""
        give_up = time.monotonic() + READY_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])
                raise BridgeStartError(f"the bridge did not start; the end of {self._log}:\n{tail}")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            if self.api:
                urlopen(f"{self.api}/healthz", timeout=2.0).close()
            else:
                socket.create_connection((self.host, self.port), 2.0).close()
        except (OSError, URLError):
            return False
        return True

    def read(self) -> Reading:
        """The use of resources by /proc, summed over all its processes."""
        pids = _tree(self._process.pid)
        now = time.monotonic()
        return Reading(
            now,
            sum(map(_cpu, pids)),
            sum(map(_waited, pids)),
            sum(map(_rss, pids)),
            sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        )

    def metrics(self) -> dict[str, float]:
        """The bridge's own metrics; empty if it has no API."""
        return scrape(self.api) if self.api else {}

    def stop(self) -> None:
        """End the bridge."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._since_log.close()


def daemon(
    runner: str, log: Path, cpu: int | None = None, settings: Sequence[str] = (), start: Any = None
) -> Started:
    """Start `twistd pipecat-bridge` on free ports, for the runner at the URL `runner`.

    `settings`: further options, as `section.key=value`. `start`: a command in place of twistd's.
    """
    phone, dialback, api = free_ports(3)
    options = [
        f"audiosocket.listen=tcp:{phone}:interface=127.0.0.1:backlog=1024",
        f"runner.listen=tcp:{dialback}:interface=127.0.0.1:backlog=1024",
        f"api.listen=tcp:{api}:interface=127.0.0.1",
        "runner.mode=dialback",
        f"runner.url={runner}",
        "calls.drain_timeout=0",
        "api.linger=0",
        *settings,
    ]
    program = start or [sys.executable, "-c", TWISTD]
    command = [*program, "-n", "--pidfile=", "pipecat-bridge"]
    for option in options:
        command += ["--set", option]
    return Started(command, phone, f"http://127.0.0.1:{api}", log, cpu)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def scrape(api: str) -> dict[str, float]:
    """All metrics by name, summed over their labels. Raises BridgeStartError."""
    try:
        with urlopen(f"{api}/metrics", timeout=10.0) as answer:
            text = answer.read().decode()
    except (OSError, URLError) as error:
        raise BridgeStartError(f"{api}/metrics: {error}") from None
    metrics: dict[str, float] = defaultdict(float)
    for name, value in _METRIC.findall(text):
        metrics[name] += float(value)
    return dict(metrics)


def _tree(pid: int) -> list[int]:
    """The ids of a process and all its descendants."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            pids += [int(child) for child in children.read_text().split()]
    return pids


def _cpu(pid: int) -> float:
    """Processor seconds; in steps of a nanosecond if the kernel has them, else of 10 ms."""
    with suppress(OSError):
        return _schedule(pid, 0)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _waited(pid: int) -> float:
    with suppress(OSError):
        return _schedule(pid, 1)
    return float("nan")


def _schedule(pid: int, field: int) -> float:
    """One field of /proc/PID/task/*/schedstat in seconds, summed over the present threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[field]) for task in tasks) / 1e9


def _rss(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
