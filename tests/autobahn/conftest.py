"""Which cases are run, and what they said, at the end."""

from __future__ import annotations

import pytest

LINES: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of `make test-autobahn`."""
    parser.addoption("--short", action="store_true", help="only some groups of cases")


@pytest.fixture(scope="session")
def short(pytestconfig: pytest.Config) -> bool:
    """Only some groups."""
    return bool(pytestconfig.getoption("short"))


@pytest.fixture(scope="session")
def lines() -> list[str]:
    """Lines to be shown at the end of the run."""
    return LINES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was found."""
    if LINES:
        terminalreporter.section("measured")
        for line in LINES:
            terminalreporter.write_line(line)
