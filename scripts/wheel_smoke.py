#!/usr/bin/env python3
"""Builds the sdist and the wheel, installs the wheel alone, and runs it as an operator would.

Run it with a Python that has the package `build`. Every step prints one line. The first failure
ends the run with status 1 and the output of the daemon.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILED = "pipecat_bridge/_native.abi3.so"
PLUGIN = "twisted/plugins/pipecat_bridge_plugin.py"
START_WITHIN = 20.0
STOP_WITHIN = 10.0
# Both commands of Twisted. The options keep twistd in the foreground, without a pid file.
COMMANDS = (("twistd", "-n", "--pidfile="), ("twist",))


class SmokeError(Exception):
    """A check failed. The text says which one."""


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        try:
            smoke(work)
        except SmokeError as wrong:
            print(f"wheel-smoke: {wrong}", file=sys.stderr)
            return 1
    return 0


def smoke(work: Path) -> None:
    wheel, sdist = build(work / "dist")
    check_contents(wheel, sdist)
    step(f"{wheel.name} holds the package, its data and the plugin, and nothing else")
    version = wheel.name.split("-")[1]
    check_changelog(version)
    step(f"CHANGELOG.md goes with version {version}")
    installed = Installed(work / "wheel", wheel)
    step("the wheel alone is installed, and pip check finds no fault")
    installed.check_compiled(True)
    step("its loops are compiled")
    installed.check_commands()
    step("twistd and twist list the plugin; pipecat-bridge prints its version")
    for command in COMMANDS:
        installed.check_life(command)
        step(f"{command[0]}: started, /healthz answered 200, SIGTERM, exit status 0")
        installed.check_taken_port(command)
        step(f"{command[0]}: a port that is taken ended the start with status 1")
        installed.check_without_bot(command)
        step(f"{command[0]}: embedded mode without the bot extra ended the start in one sentence")
    plain = Installed(work / "plain", sdist, {"CC": "false"})
    plain.check_compiled(False)
    plain.check_life(COMMANDS[0])
    step("the sdist is installed without a C compiler, and the daemon runs")


def step(text: str) -> None:
    print(f"  ok  {text}", flush=True)


def build(folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist. The wheel is built from the sdist, so both are tested."""
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    python = {name for name in source_files() if not name.endswith(".c")}
    expect_same(wheel.name, names, python | {PLUGIN, COMPILED})
    if "-cp311-abi3-" not in wheel.name:
        raise SmokeError(f"{wheel.name} is not for every Python from 3.11 on")
    with tarfile.open(sdist) as tar:
        shipped = {name.partition("/")[2] for name in tar.getnames()}
    needed = source_files() | {PLUGIN, "setup.cfg", "LICENSE", "README.md", "proto/frames.proto"}
    if missing := needed - shipped:
        raise SmokeError(f"{sdist.name} lacks {sorted(missing)}")


def check_changelog(version: str) -> None:
    """Its newest section is this version's; above it may be what is not released yet."""
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = sections[1:] if sections[:1] == ["Unreleased"] else sections
    if released[:1] != [version]:
        raise SmokeError(
            f"CHANGELOG.md begins with {sections[:2]}, expected a section {version!r}, "
            "below 'Unreleased' or on top"
        )


def source_files() -> set[str]:
    """All files of the package in the project, without what is compiled."""
    files = (path for path in (ROOT / "pipecat_bridge").rglob("*") if path.is_file())
    return {
        str(path.relative_to(ROOT))
        for path in files
        if "__pycache__" not in path.parts and path.suffix != ".so"
    }


def expect_same(what: str, found: set[str], expected: set[str]) -> None:
    if missing := expected - found:
        raise SmokeError(f"{what} lacks {sorted(missing)}")
    if extra := found - expected:
        raise SmokeError(f"{what} should not contain {sorted(extra)}")


class Installed:
    """A new environment with a wheel or an sdist and its dependencies, without extras. `variables`
    are of the environment in which it is built."""

    def __init__(self, work: Path, package: Path, variables: dict[str, str] | None = None) -> None:
        work.mkdir()
        self._work = work
        self._bin = work / "env" / "bin"
        venv.create(work / "env", with_pip=True)
        pip = [str(self._bin / "python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "--quiet", str(package)], variables=variables)
        run([*pip, "check"])

    def check_compiled(self, expected: bool) -> None:
        found = self._run("python", "-c", "from pipecat_bridge.native import *; print(COMPILED)")
        if found.strip() != str(expected):
            raise SmokeError(f"compiled loops: {found.strip()}, expected {expected}")

    def check_commands(self) -> None:
        for command in ("twistd", "twist"):
            if "pipecat-bridge" not in self._run(command, "--help"):
                raise SmokeError(f"{command} --help does not list pipecat-bridge")
        wanted = "import importlib.metadata as m; print(m.version('pipecat-bridge'))"
        version = self._run("python", "-c", wanted).strip()
        if version not in self._run("pipecat-bridge", "version"):
            raise SmokeError(f"pipecat-bridge version does not print {version}")

    def check_life(self, command: tuple[str, ...]) -> None:
        """Check the start, an answer of /healthz, and the end by SIGTERM."""
        ports = free_ports(3)
        config = self._config("dialback", *ports)
        with self._daemon(command, config) as daemon:
            daemon.wait_for_health(ports[2])
            daemon.process.send_signal(signal.SIGTERM)
            daemon.expect_exit(0, STOP_WITHIN)

    def check_taken_port(self, command: tuple[str, ...]) -> None:
        for taken, name in enumerate(("audiosocket", "runner", "api")):
            ports = free_ports(3)
            config = self._config("dialback", *ports)
            with listening(ports[taken]), self._daemon(command, config) as daemon:
                daemon.expect_exit(1, START_WITHIN)
                daemon.expect_said(str(ports[taken]), f"the taken port of [{name}]")

    def check_without_bot(self, command: tuple[str, ...]) -> None:
        config = self._config("embedded", *free_ports(3))
        with self._daemon(command, config) as daemon:
            daemon.expect_exit(1, START_WITHIN)
            daemon.expect_said(".[bot]", "the extra")
            daemon.expect_said("url", "the other way out")
            if "Traceback" in daemon.said():
                raise SmokeError(
                    f"embedded mode without the extra ends in a traceback:\n{daemon.said()}"
                )

    def _config(self, mode: str, phone: int, runner: int, api: int) -> Path:
        config = self._work / "smoke.toml"
        config.write_text(
            f"""\
[audiosocket]
listen = "tcp:{phone}:interface=127.0.0.1"
[runner]
mode = "{mode}"
url = "http://127.0.0.1:1"
listen = "tcp:{runner}:interface=127.0.0.1"
[api]
listen = "tcp:{api}:interface=127.0.0.1"
"""
        )
        return config

    def _run(self, command: str, *arguments: str) -> str:
        return run([str(self._bin / command), *arguments], self._work)

    @contextlib.contextmanager
    def _daemon(self, command: tuple[str, ...], config: Path) -> Iterator[Daemon]:
        arguments = [*command[1:], "pipecat-bridge", "--config", str(config)]
        log = self._work / "daemon.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self._bin / command[0], *arguments],
                cwd=self._work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Daemon(process, log)
        finally:
            process.kill()
            process.wait()


class Daemon:
    """A daemon that was started, and its output."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for_health(self, port: int) -> None:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SmokeError(
                    f"ended at the start, status {self.process.returncode}:\n{self.said()}"
                )
            if status_of(f"http://127.0.0.1:{port}/healthz") == 200:
                return
            time.sleep(0.1)
        raise SmokeError(f"/healthz did not answer 200 within {START_WITHIN:g} s:\n{self.said()}")

    def expect_exit(self, status: int, within: float) -> None:
        try:
            found = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise SmokeError(f"did not end within {within:g} s:\n{self.said()}") from None
        if found != status:
            raise SmokeError(f"exit status {found}, expected {status}:\n{self.said()}")

    def expect_said(self, text: str, what: str) -> None:
        if text not in self.said():
            raise SmokeError(f"the output does not name {what} ({text}):\n{self.said()}")


def free_ports(count: int) -> list[int]:
    """Ports that are free now. They are bound at the same time, so all of them are different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", port)):
        yield


def status_of(url: str) -> int | None:
    """The HTTP status; None if there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def run(
    command: list[str], folder: Path | None = None, variables: dict[str, str] | None = None
) -> str:
    """Run a command, and return its output. Raises SmokeError with the output if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise SmokeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
