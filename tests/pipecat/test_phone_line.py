"""What bot authors import runs where nothing but Pipecat is installed."""

from __future__ import annotations

import re

from pytest_twisted import ensureDeferred

from tests.pipecat.releases import Release, until


@ensureDeferred
async def test_its_tests_pass_in_this_pipecat(release: Release) -> None:
    tests = release.run("-m", "unittest", "tests.embedded.test_phone_line")
    try:
        await until(lambda: not tests.running, "the end of its tests", timeout=60.0)
    finally:
        await tests.stop()
    printed = tests.printed.decode(errors="replace")
    assert tests.status == 0, printed[-4000:]
    count = re.search(r"Ran (\d+) tests", printed)
    assert count is not None
    assert int(count[1]) > 10
