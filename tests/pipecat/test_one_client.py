"""A bot with a WebSocket server of its own, Pipecat's, which serves one client."""

from __future__ import annotations

import pytest
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from tests.pipecat.harness import daemon, reactor
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
        assert {call.told("call.ready")[0]["runner"] for call in calls} == set(urls)
        for call in calls:
            await hears(call)
            await hang_up(call)


@ensureDeferred
async def test_a_server_that_has_somebody_elses_client(release: Release) -> None:
    if release.name == OLDEST:
        pytest.skip("in 1.3 the newcomer takes over")
    taken, free = await release.new_runner(SERVER), await release.new_runner(SERVER)
    urls = [f"ws://localhost:{each.port}" for each in (taken, free)]
    other = WebSocketClientProtocol()
    other.factory = WebSocketClientFactory(urls[0])
    await connectProtocol(HostnameEndpoint(reactor, "localhost", taken.port), other)
    await other.is_open
    async with daemon("direct", urls) as line:
        for upstream in line.bridge.runner.pool.upstreams:
            upstream.turn = float(upstream.name != urls[0])  # the next call is tried there first
        call = await talk(line)
        [failed] = call.told("bot.error")
        assert failed["category"] == "start"
        assert failed["runner"] == urls[0]
        assert "Server already has a connected client (1013)" in failed["text"]
        assert call.told("call.ready")[0]["runner"] == urls[1]
        await hang_up(call)
    other.sendClose()
    await other.is_closed


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
