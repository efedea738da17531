"""Which cases are run, and what they said, at the end."""

from __future__ import annotations

import pytest

MEASURED = "measured"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of `make test-autobahn`."""
    parser.addoption("--short", action="store_true", help="only some groups of cases")


@pytest.fixture(scope="session")
def short(pytestconfig: pytest.Config) -> bool:
    """Only some groups."""
    return bool(pytestconfig.getoption("short"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was found. The tests may have run in other processes."""
    reports = [each for some in ("passed", "failed") for each in terminalreporter.getreports(some)]
    lines = [line for each in reports for name, line in each.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section(MEASURED)
        for line in lines:
            terminalreporter.write_line(str(line))
