"""Each release of Pipecat, with its runners, for the whole suite; what was measured, at its end."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.pipecat.releases import NEWEST, OLDEST, Release

T = TypeVar("T")
PRIORITY = -10

_MEASURED: list[str] = []


def pytest_report_header() -> str:
    """Audio is judged: other work on the machine must not stall this process, nor the runners."""
    with suppress(PermissionError):  # root's
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    return f"priority {os.getpriority(os.PRIO_PROCESS, 0)}"


def _wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; fixtures of the whole session cannot be coroutines themselves."""
    result: T = pytest_twisted.blockon(Deferred.fromCoroutine(coroutine))
    return result


@pytest.fixture(scope="session", params=[OLDEST, NEWEST])
def release(request: pytest.FixtureRequest) -> Iterator[Release]:
    """The oldest Pipecat that is supported, and the newest."""
    one = Release(request.param)
    yield one
    _wait(one.stop())


@pytest.fixture(scope="session")
def measured() -> list[str]:
    """Lines to be shown at the end of the run."""
    return _MEASURED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured."""
    if _MEASURED:
        terminalreporter.section("measured")
        for line in _MEASURED:
            terminalreporter.write_line(line)
