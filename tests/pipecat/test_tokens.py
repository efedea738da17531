"""Pipecat's development runner says where its bots are, asks for a token, and for an Origin."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.pipecat.harness import daemon
from tests.pipecat.releases import NEWEST, OLDEST, PeerError, Release

STOCK = "tests/pipecat/bots/stock.py"
ORIGIN = "https://phone.example"
OPTIONS = ("--ws-auth", "token", "--allowed-origins", ORIGIN)
ALLOWED = f"runner.origin={ORIGIN}"

oldest = pytest.mark.parametrize("release", [OLDEST], indirect=True)
newest = pytest.mark.parametrize("release", [NEWEST], indirect=True)

GOOD = [
    ("dial", "header"),
    ("dial", "query"),
    ("dial", "path"),
    ("twilio", "header"),
    ("twilio", "path"),
]


async def refused(mode: str, url: str, *settings: str) -> str:
    """Why a call got no bot."""
    async with daemon(mode, url, *settings) as line:
        call = await line.call()
        record = await call.ended()
        assert (record["outcome"], call.phone.hangup_received) == ("runner-failed", True)
        assert (call.told("call.ready"), call.phone.faults) == ([], [])
    reason: str = record["reason"]
    return reason


async def accepted(mode: str, url: str, *settings: str) -> None:
    """A call that gets its bot."""
    async with daemon(mode, url, *settings) as line:
        call = await line.call()
        await call.until("call.ready")
        call.phone.hangup()
        assert (await call.ended())["outcome"] == "caller-hangup"


@ensureDeferred
async def test_a_runner_that_is_asked_by_address_names_localhost(release: Release) -> None:
    runner = await release.runner(STOCK)
    _, answer = await runner.request("POST", "/start", {"transport": "websocket"})
    assert answer["wsUrl"] == f"ws://localhost:{runner.port}/ws-client"
    await accepted("dial", f"http://127.0.0.1:{runner.port}")


@oldest
@ensureDeferred
async def test_the_oldest_asks_for_no_token(release: Release) -> None:
    with pytest.raises(PeerError, match="unrecognized arguments: --ws-auth token"):
        await release.runner(STOCK, *OPTIONS)  # 1.4 is the first that has them
    runner = await release.runner(STOCK)
    _, answer = await runner.request("POST", "/start", {"transport": "websocket"})
    assert answer["token"] == "mock_token"
    for place in ("header", "query"):  # it goes out, and nobody looks at it
        await accepted("dial", runner.url, f"runner.token_in={place}")
    # Nor is there a route for a token in the path.
    assert "403" in await refused("dial", runner.url, "runner.token_in=path")


@newest
@pytest.mark.parametrize(("mode", "place"), GOOD)
@ensureDeferred
async def test_the_token_of_start_opens_the_door(release: Release, mode: str, place: str) -> None:
    runner = await release.runner(STOCK, *OPTIONS)
    await accepted(mode, runner.url, f"runner.token_in={place}", ALLOWED)


@newest
@pytest.mark.parametrize(
    ("mode", "path"),
    [("direct", "/ws-client"), ("direct", "/ws-client?token=wrong"), ("twilio", "/ws")],
)
@ensureDeferred
async def test_without_a_good_token_there_is_no_bot(release: Release, mode: str, path: str) -> None:
    runner = await release.runner(STOCK, *OPTIONS)
    assert "403" in await refused(mode, f"ws://127.0.0.1:{runner.port}{path}", ALLOWED)


@newest
@ensureDeferred
async def test_a_token_is_good_once(release: Release) -> None:
    runner = await release.runner(STOCK, *OPTIONS)
    _, answer = await runner.request("POST", "/start", {"transport": "websocket"})
    url = f"ws://127.0.0.1:{runner.port}/ws-client?token={answer['token']}"
    await accepted("direct", url, ALLOWED)
    assert "403" in await refused("direct", url, ALLOWED)


@newest
@pytest.mark.parametrize("settings", [[], ["runner.origin=https://other.example"]])
@ensureDeferred
async def test_another_origin_is_refused(release: Release, settings: list[str]) -> None:
    runner = await release.runner(STOCK, *OPTIONS)
    assert "403" in await refused("dial", runner.url, *settings)
