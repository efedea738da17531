"""A bot with a WebSocket server of its own, Pipecat's, which serves one client."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from tests.pipecat.harness import daemon
from tests.pipecat.releases import OLDEST, Release
from tests.pipecat.test_failures import WORDS, hang_up, hears, talk
from tests.unit.signals import chunks

SERVER = "tests/pipecat/bots/server.py"


@ensureDeferred
async def test_a_second_call_finds_another_server(release: Release) -> None:
    one, two = await release.new_runner(SERVER), await release.new_runner(SERVER)
    urls = [f"ws://localhost:{each.port}" for each in (one, two)]
    async with daemon("direct", urls) as line:
        calls = [await talk(line), await talk(line)]
        assert {call.told("ready")[0]["runner"] for call in calls} == set(urls)
        for call in calls:
            await hears(call)
            await hang_up(call)


@ensureDeferred
async def test_a_second_call_at_the_same_server(release: Release) -> None:
    server = await release.new_runner(SERVER)
    async with daemon("direct", f"ws://localhost:{server.port}") as line:
        first = await talk(line)
        second = await line.call(chunks(WORDS, 320))
        if release.name == OLDEST:
            # It closes the first one's WebSocket in good order, as at the end of any call.
            record = await first.ended()
            assert (record["outcome"], record["reason"]) == ("completed", "the bot ended the call")
            await hears(second)
            await hang_up(second)
        else:
            record = await second.ended()
            assert record["outcome"] == "runner-failed"
            assert "Server already has a connected client (1013)" in record["reason"]
            await hears(first)
            await hang_up(first)
