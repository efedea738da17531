"""The examples, which are short and run as they are, and what a bot can have done to its call."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.asterisk.pbx import PROJECT
from tests.pipecat.harness import FRAME, PhoneCall, daemon, loud
from tests.pipecat.releases import Release, until
from tests.unit.audio.test_tones import Detector
from tests.unit.signals import chunks, multitone, seconds, to_pcm

LINE_BOT = "examples/phone_bot.py"
WORDS_BOT = "tests/pipecat/bots/line.py"
TWILIO_BOT = "examples/twilio_bot.py"
METADATA = {"caller": "+4930123456", "called": "100"}


@pytest.mark.parametrize("bot", [LINE_BOT, TWILIO_BOT])
def test_an_example_is_at_most_60_lines(bot: str) -> None:
    assert len((PROJECT / bot).read_text().splitlines()) <= 60


def test_the_example_for_twilio_needs_nothing_of_ours() -> None:
    assert "pipecat_bridge" not in (PROJECT / TWILIO_BOT).read_text()


async def greeted(call: PhoneCall) -> None:
    """The bot has said who calls."""
    hello = await call.until("message")
    assert hello == {"data": {"hello": "+4930123456", "id": call.id}}


@ensureDeferred
async def test_the_line_plays_keys_and_sets_variables(release: Release) -> None:
    runner = await release.runner(LINE_BOT)
    async with daemon("dial", runner.url) as line:
        call = await line.call(prepared={"metadata": METADATA})
        await greeted(call)
        call.phone.dtmf("3")
        assert await call.until("variables") == {"variables": {"language": "de", "calls": "1"}}
        call.phone.dtmf("1")
        await call.until("play-dtmf")
        at = call.frames_at["play-dtmf"]
        await until(lambda: len(call.phone.frames) > at + 50, "a second more")
        call.phone.hangup()
        record = await call.ended()
    heard = Detector(8000).hear(b"".join(frame.payload for frame in call.phone.frames[at:]))
    assert "".join(key.digit for key in heard) == "12#"
    assert record["variables"] == {"language": "de", "calls": "1"}
    assert call.phone.faults == []


@ensureDeferred
async def test_the_line_transfers(release: Release) -> None:
    runner = await release.runner(LINE_BOT)
    async with daemon("dial", runner.url) as line:
        call = await line.call(prepared={"metadata": METADATA})
        await greeted(call)
        call.phone.dtmf("2")
        record = await call.ended()
        assert (record["outcome"], record["transfer"]) == ("transferred", "support")
        assert call.phone.hangup_received


@ensureDeferred
async def test_the_line_hangs_up(release: Release) -> None:
    runner = await release.runner(LINE_BOT)
    async with daemon("dial", runner.url) as line:
        call = await line.call(prepared={"metadata": METADATA})
        await greeted(call)
        call.phone.dtmf("9")
        record = await call.ended()
        assert (record["outcome"], record["reason"]) == ("completed", "the caller pressed 9")
        assert call.phone.hangup_received


@ensureDeferred
async def test_a_hangup_waits_for_what_was_said_before_it(release: Release) -> None:
    runner = await release.runner(WORDS_BOT)
    async with daemon("dial", runner.url) as line:
        call = await line.call()
        await call.until("call.ready")
        call.phone.dtmf("1")
        record = await call.ended()
    assert (record["outcome"], record["reason"]) == ("completed", "said")
    assert len(loud(call.phone.frames)) * FRAME == pytest.approx(
        0.6 + 2 * FRAME, abs=2 * FRAME
    )  # it fades


@ensureDeferred
async def test_an_interruption_does_not_undo_a_transfer(release: Release) -> None:
    runner = await release.runner(WORDS_BOT)
    async with daemon("dial", runner.url) as line:
        call = await line.call()
        await call.until("call.ready")
        call.phone.dtmf("2")
        await until(lambda: len(loud(call.phone.frames)) > 10, "the beginning of the words")
        call.phone.dtmf("3")
        record = await call.ended(timeout=5.0)
    assert (record["outcome"], record["transfer"]) == ("transferred", "support")
    assert call.told("interrupted")


@pytest.mark.parametrize(
    ("key", "outcome", "transfer"), [("2", "transferred", "support"), ("9", "completed", None)]
)
@ensureDeferred
async def test_a_bot_for_twilio(
    release: Release, key: str, outcome: str, transfer: str | None
) -> None:
    runner = await release.runner(TWILIO_BOT)
    words = chunks(to_pcm(multitone((1004.0,), seconds(8000, 8000))), 320)
    async with daemon("twilio", f"ws://127.0.0.1:{runner.port}/ws") as line:
        call = await line.call(words, prepared={"metadata": METADATA})
        await until(lambda: "a call from +4930123456" in runner.log, "the caller's number")
        # A bot that ends a call without having said anything has not completed it.
        await until(lambda: loud(call.phone.frames), "the echo")
        call.phone.dtmf(key)
        record = await call.ended()
    assert (record["outcome"], record.get("transfer")) == (outcome, transfer)
    assert record["quality"]["bot_frames_bad"] == 0
    assert (call.phone.hangup_received, call.phone.faults) == (True, [])
