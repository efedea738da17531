"""Runs wstest, the program of the Autobahn test suite, which scripts/autobahn.sh has installed."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

HOME: Final = Path(__file__).parents[2] / ".autobahn"
_ROOT: Final = HOME / "root"
_READY: Final = 20.0

EVERY: Final = ("*",)
NOT: Final = ("12.*", "13.*")
"""Compression, which the bridge does not have."""

Results = dict[str, dict[str, str]]
"""Agent -> case -> what the suite says: OK, NON-STRICT, INFORMATIONAL or FAILED."""


class Suite:
    """One process of wstest. `name` keeps its files apart from those of others."""

    def __init__(self, name: str) -> None:
        self._chroot = _ROOT.exists()
        self._base = _ROOT if self._chroot else HOME
        self._folder = self._base / "work" / name
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "index.json").unlink(missing_ok=True)

    def start(self, mode: str, **spec: Any) -> subprocess.Popen[bytes]:
        """Start wstest in a mode of it, with this specification."""
        path = self._folder / "spec.json"
        path.write_text(json.dumps({"outdir": self._inside(self._folder), **spec}))
        python = ["python2.7"] if self._chroot else [(HOME / "python").read_text().strip()]
        wst = ["env", f"PYTHONPATH={self._inside(self._base / 'suite')}", *python]
        wst += [self._inside(self._base / "suite" / "wst.py"), "--webport", "0"]
        wst += ["--mode", mode, "--spec", self._inside(path)]
        command = ["chroot", str(_ROOT), *wst] if self._chroot else wst
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)

    def _inside(self, path: Path) -> str:
        return f"/{path.relative_to(_ROOT)}" if self._chroot else str(path)

    def results(self) -> Results:
        """What wstest has written. Fails with the end of its log if there is nothing."""
        path = self._folder / "index.json"
        assert path.exists(), (self._folder / "log").read_text()[-2000:]
        found: dict[str, dict[str, dict[str, str]]] = json.loads(path.read_text())
        return {
            agent: {case: said["behavior"] for case, said in cases.items()}
            for agent, cases in found.items()
        }


def fuzz_server(name: str, agent: str, url: str, cases: Sequence[str]) -> dict[str, str]:
    """Let wstest be the client of a server. Returns case -> result when it has ended."""
    suite = Suite(name)
    one = {"agent": agent, "url": url, "options": {"version": 18}}
    suite.start("fuzzingclient", servers=[one], options={}, **_chosen(cases)).wait()
    return suite.results()[agent]


def _chosen(cases: Sequence[str]) -> dict[str, Any]:
    return {"cases": list(cases), "exclude-cases": list(NOT), "exclude-agent-cases": {}}


@contextmanager
def fuzzing_server(name: str, port: int, cases: Sequence[str]) -> Iterator[Suite]:
    """wstest as a server, while this lasts."""
    suite = Suite(name)
    url = f"ws://127.0.0.1:{port}"
    process = suite.start("fuzzingserver", url=url, options={}, **_chosen(cases))
    try:
        _wait(process, port)
        yield suite
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    give_up = time.monotonic() + _READY
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.1)
