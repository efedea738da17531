"""One Asterisk, one daemon and one runner for the whole suite."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.asterisk.bridge import TWISTD, Bridge, installed_in
from tests.asterisk.pbx import PROJECT, Pbx
from tests.asterisk.process import Program
from tests.doubles.runner import RunnerDouble

T = TypeVar("T")
PRIORITY = -10


def pytest_report_header() -> str:
    """Which daemon is tested; ends the run when a wheel was promised and it is the checkout."""
    place = installed_in()
    if "BRIDGE_TWISTD" in os.environ and place.is_relative_to(PROJECT / "pipecat_bridge"):
        pytest.exit(f"{TWISTD} imports the checkout ({place}), not an installed wheel", 1)
    # Audio is judged, and the bots are in this process: other work on the machine must not stall
    # it, nor Asterisk and the daemon, which inherit this.
    with suppress(PermissionError):  # Pbx.prepare says in a sentence that root is needed
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    return f"daemon under test: {place}, priority {PRIORITY}"


async def use_bridge(pbx: Pbx, bridge: Bridge) -> None:
    """Let the dialplan's globals name this daemon."""
    for name, value in {"PIPECAT_BRIDGE": bridge.phones, "PIPECAT_API": bridge.api}.items():
        await pbx.ami.action("Setvar", Variable=name, Value=value)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; fixtures of the whole session cannot be coroutines themselves."""
    result: T = pytest_twisted.blockon(Deferred.fromCoroutine(coroutine))
    return result


@pytest.fixture(scope="session")
def runner() -> Iterator[RunnerDouble]:
    """A dial-back runner whose bots are silent unless a test says otherwise."""
    double = RunnerDouble(reactor)
    wait(double.listen())
    # The bots run in this process: a pause of its collector would be heard as a bot that stalls.
    gc.collect()
    gc.freeze()
    gc.disable()
    yield double
    gc.enable()
    wait(double.shut())


@pytest.fixture(scope="session")
def bridge(runner: RunnerDouble) -> Iterator[Bridge]:
    """The daemon."""
    daemon = Bridge(runner.url)
    wait(daemon.start())
    yield daemon
    wait(daemon.stop())


@pytest.fixture(scope="session")
def echo_bridge() -> Iterator[Bridge]:
    """A daemon whose bots send back what they hear, in a process of their own."""
    yield from _echo_bridge()


@pytest.fixture(scope="session")
def chunk_bridge() -> Iterator[Bridge]:
    """The same, but its bots send chunks of 40 ms, as Pipecat does."""
    yield from _echo_bridge("40")


def _echo_bridge(*arguments: str) -> Iterator[Bridge]:
    command = [sys.executable, "-m", "tests.asterisk.echo_runner", *arguments]
    echoes = Program.run(command, str(PROJECT))
    daemon = Bridge(wait(echoes.line()))
    wait(daemon.start())
    yield daemon
    wait(daemon.stop())
    wait(echoes.stop())


@pytest.fixture(scope="session")
def pbx(bridge: Bridge) -> Iterator[Pbx]:
    """Asterisk with the daemon in its dialplan."""
    asterisk = Pbx.prepare()
    try:
        wait(asterisk.start())
        wait(use_bridge(asterisk, bridge))
        yield asterisk
    finally:
        wait(asterisk.stop())


MEASURED = PROJECT / ".asterisk" / "measured.json"
_MEASURED: dict[str, dict[str, float]] = {}


class Measurements:
    """Figures for docs/asterisk.md: printed at the end of the run, and kept in `MEASURED`."""

    def add(self, what: str, **figures: float) -> None:
        """Keep one line of the table."""
        _MEASURED[what] = {name: float(value) for name, value in figures.items()}


@pytest.fixture(scope="session")
def measured() -> Measurements:
    """Where tests put what they measured."""
    return Measurements()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured and write it down."""
    if not _MEASURED:
        return
    MEASURED.write_text(json.dumps(_MEASURED, indent=2) + "\n")
    terminalreporter.section(f"measured, also in {MEASURED.relative_to(PROJECT)}")
    for what, figures in _MEASURED.items():
        text = ", ".join(f"{name} {value:g}" for name, value in figures.items())
        terminalreporter.write_line(f"{what}: {text}")
