"""What a daemon's log must not say over and over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import formatEvent, globalLogPublisher

from tests.certificates import Authority
from tests.e2e.dialled import dialled
from tests.e2e.harness import line

OFTEN = ("runner.health_interval=0.03", "runner.idle_timeout=0.001")
"""Health checks in short order, each on a connection of its own."""

PHONE = "OneShotFactory"
"""In the line of the phone's double, which is in this process too."""


@contextmanager
def said() -> Iterator[list[str]]:
    """The lines that are logged meanwhile."""
    lines: list[str] = []

    def note(event: dict[str, Any]) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(note)


def check(lines: list[str], call_id: str) -> None:
    """Fail at a line about a factory; the calls' own lines must be there, or nothing was seen."""
    assert any(f"{call_id} call.created" in text for text in lines)
    assert [text for text in lines if "factory" in text.lower() and PHONE not in text] == []


@ensureDeferred
async def test_health_checks_and_calls_log_no_factory() -> None:
    async with line(*OFTEN) as it:
        with said() as lines:
            await it.runner.until(lambda: len(it.runner.asked("/health")) >= 3)
            phone, _ = await it.talk()
            phone.hangup()
            await it.ended(phone)
            await it.bridge.runner.bots.stopping.idle()
        check(lines, str(phone.call_id))


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("mode", ["dial", "direct", "twilio"])
@ensureDeferred
async def test_bots_that_are_dialled_log_no_factory(mode: str, secure: bool, tmp_path: Any) -> None:
    authority = Authority()
    trust = [f"runner.ca_file={authority.write(tmp_path / 'ca.pem')}"] if secure else []
    options = {"tls": authority.issue("127.0.0.1")} if secure else {}
    async with dialled(mode, *OFTEN, "runner.health_path=/status", *trust, **options) as it:
        with said() as lines:
            await it.runner.until(lambda: len(it.runner.asked("/status")) >= 3)
            phone, _ = await it.talk()
            phone.hangup()
            await it.ended(phone)
            await it.bridge.runner.bots.stopping.idle()
        check(lines, str(phone.call_id))
