"""Bots of nothing but Pipecat that fail, and what becomes of their calls.

tests/e2e/test_failures.py has all of it with doubles; here it is seen that Pipecat fails like that.
"""

from __future__ import annotations

import signal

import pytest
from pytest_twisted import ensureDeferred

from tests.pipecat.harness import BridgeLine, PhoneCall, daemon, loud, url_of
from tests.pipecat.releases import DevelopmentRunner, Release, until
from tests.unit.signals import chunks, multitone, seconds, to_pcm

ILL = "tests/pipecat/bots/ill.py"
STOCK = "tests/pipecat/bots/stock.py"
WORDS = to_pcm(multitone((1004.0,), seconds(8000, 160_000)))


async def talk(line: BridgeLine) -> PhoneCall:
    """A call whose caller speaks for 20 s, and hears himself."""
    call = await line.call(chunks(WORDS, 320))
    await call.until("call.ready")
    await hears(call)
    return call


async def hears(call: PhoneCall, timeout: float = 10.0) -> None:
    """Wait until the phone hears something from now on."""
    at = len(call.phone.frames)
    await until(lambda: len(loud(call.phone.frames[at:])) > 5, "0.1 s of sound", timeout)


async def hang_up(call: PhoneCall) -> None:
    call.phone.hangup()
    assert (await call.ended())["outcome"] == "caller-hangup"
    assert call.phone.faults == []


def socket_of(runner: DevelopmentRunner, mode: str, fault: str) -> str:
    """The WebSocket of a bot with that fault."""
    path = "ws" if mode == "twilio" else "ws-client"
    return f"ws://127.0.0.1:{runner.port}/{path}?fault={fault}"


@pytest.mark.parametrize("mode", ["dial", "direct", "twilio"])
@ensureDeferred
async def test_a_bot_that_raises(release: Release, mode: str) -> None:
    runner = await release.runner(ILL)
    async with daemon(mode, url_of(mode, runner)) as line:
        call = await line.call()
        record = await call.ended(timeout=3.0)
    assert record["outcome"] == "runner-failed"
    assert "the bot was lost before it was ready" in record["reason"], record["reason"]
    assert call.told("call.ready") == []
    assert (call.phone.hangup_received, call.phone.faults) == (True, [])


@ensureDeferred
async def test_a_bot_that_raises_costs_no_call_where_another_is_well(release: Release) -> None:
    ill, well = await release.runner(ILL), await release.runner(STOCK)
    ill.forget()
    async with daemon("dial", [ill.url, well.url], "runner.breaker_delay=30") as line:
        for _ in range(12):
            call = await talk(line)
            await hang_up(call)
    assert len([what for what, _ in ill.seen if what == "asked"]) <= 3


@pytest.mark.parametrize("mode", ["direct", "twilio"])
@ensureDeferred
async def test_a_bot_that_ends_without_a_word(release: Release, mode: str) -> None:
    runner = await release.runner(ILL)
    async with daemon(mode, socket_of(runner, mode, "end")) as line:
        call = await line.call()
        record = await call.ended()
    assert call.told("call.ready")
    assert record["outcome"] == "bot-silent"
    assert record["reason"] == "the bot ended the call without having said anything"
    assert loud(call.phone.frames) == []


@ensureDeferred
async def test_a_fatal_error_before_it_is_ready(release: Release) -> None:
    runner = await release.runner(ILL)
    async with daemon("direct", socket_of(runner, "direct", "fatal")) as line:
        call = await line.call()
        record = await call.ended()
    assert record["outcome"] == "runner-failed"
    assert "no API key" in record["reason"]


@ensureDeferred
async def test_a_fatal_error_in_mid_call(release: Release) -> None:
    runner = await release.runner(ILL)
    async with daemon("direct", socket_of(runner, "direct", "later")) as line:
        call = await line.call()
        await hears(call)
        await line.say(call, "fail")
        record = await call.ended()
    assert record["outcome"] == "bot-error"
    assert record["reason"] == "the bot reported a fatal error: no API key"


@pytest.mark.parametrize(("mode", "path"), [("twilio", "/ws-client"), ("direct", "/ws")])
@ensureDeferred
async def test_the_wrong_protocol(release: Release, mode: str, path: str) -> None:
    runner = await release.runner(STOCK)
    async with daemon(mode, f"ws://127.0.0.1:{runner.port}{path}") as line:
        call = await line.call(chunks(WORDS, 320))
        record = await call.ended(timeout=15.0)
    assert record["outcome"] == "runner-failed"
    assert "the bot was lost before it was ready: the bot's WebSocket closed" in record["reason"]


@ensureDeferred
async def test_a_server_that_is_redeployed_in_mid_call(release: Release) -> None:
    first = await release.new_runner(STOCK)
    url = url_of("direct", first)
    restart = ("calls.on_bot_lost=restart", "runner.connect_timeout=30")
    async with daemon("direct", url) as line, daemon("direct", url, *restart) as other:
        lost, kept = await talk(line), await talk(other)
        await first.process.signal(signal.SIGTERM)
        record = await lost.ended()
        assert record["outcome"] == "bot-hangup"
        assert "(1012)" in record["reason"], record["reason"]
        await release.new_runner(STOCK, port=first.port)
        await kept.until("bot.resumed")
        await hears(kept)
        await hang_up(kept)
