"""A stock bot that dials back, also one whose services take long to come."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.pipecat.harness import FRAME, daemon, loud
from tests.pipecat.releases import NEWEST, OLDEST, Release, until
from tests.unit.signals import chunks, multitone, seconds, to_pcm

BOT = "tests/pipecat/bots/dialler.py"
FAULTS = ("StartFrame not received yet", "exception receiving data", "Error processing frame")
WORDS = to_pcm(multitone((1004.0,), seconds(8000, 160_000)))

CASES = [
    pytest.param(name, slow, long, id=f"{name}-{slow}")
    for name, slow, long in (
        (OLDEST, "start", "0.2"),
        (OLDEST, "start", "2.5"),
        (NEWEST, "no", "0"),
        (NEWEST, "start", "2.5"),
        (NEWEST, "setup", "2.5"),
    )
]


@pytest.mark.parametrize(("release", "slow", "long"), CASES, indirect=["release"])
@ensureDeferred
async def test_a_call_is_served(release: Release, slow: str, long: str) -> None:
    runner = await release.runner(BOT)
    printed = len(runner.log)
    async with daemon("dialback", runner.url) as line:
        what = {"metadata": {"slow": slow, "seconds": long}}
        call = await line.call(chunks(WORDS, 320), prepared=what)
        ready = await call.until("call.ready")
        await until(lambda: len(loud(call.phone.frames)) > 50, "a second of the echo")
        call.phone.hangup()
        record = await call.ended()
        await runner.saw("over", call.id)
    assert ready["by"] == "bot-ready"
    assert (record["outcome"], call.phone.faults) == ("caller-hangup", [])
    assert not [fault for fault in FAULTS if fault in runner.log[printed:]]


@pytest.mark.parametrize("release", [OLDEST], indirect=True)
@ensureDeferred
async def test_the_oldest_dials_twice_and_is_mute(release: Release) -> None:
    """Its transports share a client, and each dials when the other has not got through yet.

    In the newest a lock is between them. A service that takes its time at the start helps as well.
    """
    runner = await release.runner(BOT)
    printed = len(runner.log)
    async with daemon("dialback", runner.url) as line:
        call = await line.call(chunks(WORDS, 320), prepared={"metadata": {}})
        await call.until("call.ready")
        at = len(call.phone.frames)
        await until(lambda: len(call.phone.frames) > at + 1 / FRAME, "a second")
        call.phone.hangup()
        await call.ended()
        await runner.saw("over", call.id)
    assert "server rejected WebSocket connection: HTTP 409" in runner.log[printed:]
    assert loud(call.phone.frames) == []


@pytest.mark.parametrize(("timeout", "served"), [("1.0", False), ("5.0", True)])
@ensureDeferred
async def test_audio_before_a_noise_filter_is_loaded_breaks_the_bot(
    release: Release, timeout: str, served: bool
) -> None:
    """The one way in which audio comes too early: the transport is connected, and not started."""
    runner = await release.runner(BOT)
    printed = len(runner.log)
    async with daemon("dialback", runner.url, f"runner.ready_timeout={timeout}") as line:
        what = {"metadata": {"slow": "filter", "seconds": "2.5"}}
        call = await line.call(chunks(WORDS, 320), prepared=what)
        ready = await call.until("call.ready")
        if served:
            await until(lambda: len(loud(call.phone.frames)) > 50, "a second of the echo")
            call.phone.hangup()
        record = await call.ended()
    broken = "has no attribute '_audio_in_queue'" in runner.log[printed:]
    assert (broken, ready["by"]) == (not served, "bot-ready" if served else "timeout")
    assert record["outcome"] == ("caller-hangup" if served else "bot-silent")
