"""The daemons that are attacked, one for the whole run, and what each peer has done, at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final

import pytest

from tests.hostile.line import AttackedDaemon, Row
from tests.hostile.peer import Mode

PRIORITY: Final = -10
LONG: Final = 5.0
SHORT: Final = 2.0

Attacked = Callable[[Mode], AttackedDaemon]

_ROWS: list[Row] = []
_HEAD = (
    "peer",
    "longest gap, ms",
    "lost, frames",
    "memory, MB",
    "log, kB",
    "connections",
    "sent, MB",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `make test-hostile`."""
    parser.addoption("--short", action="store_true", help=f"{SHORT:g} s, not {LONG:g}, and fewer")
    parser.addoption("--table", default="", help="write what was measured to this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The short form leaves out what others do as well."""
    if config.getoption("short"):
        out = [item for item in items if _is_also(item)]
        items[:] = [item for item in items if item not in out]
        config.hook.pytest_deselected(items=out)


def _is_also(item: pytest.Item) -> bool:
    call: Any = getattr(item, "callspec", None)
    return call is not None and "peer" in call.params and call.params["peer"].also


@pytest.fixture(scope="session")
def seconds(pytestconfig: pytest.Config) -> float:
    """How long a peer attacks."""
    return SHORT if pytestconfig.getoption("short") else LONG


@pytest.fixture(scope="session")
def attacked() -> Iterator[Attacked]:
    """The daemon of a mode. If an attack has harmed it, the next one begins with another."""
    with suppress(PermissionError):  # root's; other work on the machine must not stall the daemon
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    daemons: dict[Mode, AttackedDaemon] = {}
    # A disk that others write to may hold up whoever logs a line, for longer than a frame takes.
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    folder = Path(mkdtemp(prefix="pipecat-bridge-hostile-", dir=where))

    def one(mode: Mode) -> AttackedDaemon:
        last = daemons.get(mode)
        if last is not None and last.suffers:
            daemons.pop(mode).stop()
        if mode not in daemons:
            daemons[mode] = AttackedDaemon(mode, folder)
            daemons[mode].warm_up()
        return daemons[mode]

    yield one
    for each in daemons.values():
        each.stop()
    rmtree(folder)


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """What was measured, for the table at the end."""
    return _ROWS


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show what was measured, and write it to a file."""
    if not _ROWS:
        return
    lines = [_line(*_HEAD), _line(*("---" for _ in _HEAD)), *map(_shown, _ROWS)]
    terminalreporter.section("measured")
    for line in lines:
        terminalreporter.write_line(line)
    if path := config.getoption("table"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("\n".join([*lines, ""]))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(row: Row) -> str:
    return _line(
        row.peer,
        f"{row.gap:.0f} ({row.raw_gap:.0f})" if row.raw_gap - row.gap > 1 else f"{row.gap:.0f}",
        f"{row.lost_to_bot:g}, {row.lost_to_phone:g}",
        f"{row.before:.0f}, {row.most:.0f}, {row.after:.0f}",
        f"{row.log:.0f}",
        f"{row.connections}",
        f"{row.sent:.1f}",
    )
