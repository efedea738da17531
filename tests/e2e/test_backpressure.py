"""Slow and stalled bots on real sockets, where the kernel's buffers hide audio."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.e2e.harness import Line, line, sleep

SECOND = 50  # frames
AT_MOST = 3 * SECOND + 3  # and what waits 50 ms for room
SIXTEEN = {"rate": 16000}
FULL_SPEED = 50 * (640 + 13 + 4) + 5 * 14  # bytes a second: protobuf, WebSocket, pings


def numbered() -> Any:
    """Frames of 16 kHz that say which one they are."""
    number = 0
    while True:
        yield number.to_bytes(2, "little") * 320
        number += 1


def numbers(bot: BotDouble) -> list[int]:
    return [int.from_bytes(frame.pcm[:2], "little") for frame in bot.audio]


def delays(phone: StrictAsterisk, bot: BotDouble, first: int) -> list[float]:
    """From the phone's sending of each frame from `first` on to the bot's reading of it."""
    return [
        frame.at - phone.sent[number].at
        for number, frame in zip(numbers(bot), bot.audio, strict=True)
        if number >= first
    ]


def queue(it: Line, phone: StrictAsterisk) -> Any:
    return it.bridge.calls.get(str(phone.call_id)).bot.link


def unread(it: Line, phone: StrictAsterisk, bot: BotDouble) -> int:
    """Frames that were handed to the kernel and that the bot has not read."""
    return int(queue(it, phone).queue_stats.sent) - len(bot.audio)


@pytest.mark.parametrize("sockets", [None, "both"])
@ensureDeferred
async def test_a_bot_that_is_stalled_for_five_seconds(sockets: Any) -> None:
    """One line with the window of pings and one without, to show what the window does."""
    no_window = ("caller_audio.in_flight=3600", "caller_audio.queue_frames=10000")
    async with line(sockets=sockets) as it, line(*no_window, sockets=sockets) as other:
        (phone, bot), (hidden_phone, hidden_bot) = (
            await it.talk(**SIXTEEN),
            await other.talk(**SIXTEEN),
        )
        for one in (phone, hidden_phone):
            one.start_audio(numbered())
        await bot.until(lambda: len(bot.audio) >= SECOND)
        bot.stall()
        hidden_bot.stall()
        depth = 0
        for _ in range(SECOND):
            await sleep(0.1)
            depth = max(depth, queue(it, phone).queued)
        in_flight = unread(it, phone, bot)
        hidden = unread(other, hidden_phone, hidden_bot)
        assert in_flight <= 25
        assert hidden > 2 * in_flight
        assert depth <= AT_MOST
        assert queue(it, phone).queued >= 140
        bot.unstall()
        hidden_bot.unstall()
        last = len(phone.sent)
        await bot.until(lambda: numbers(bot)[-1] > last + SECOND)
        # Frames that were said after the stall find nothing before them.
        recent = delays(phone, bot, last + SECOND // 2)
        assert len(recent) > 20
        assert sorted(recent)[len(recent) // 2] < 0.02
        assert queue(it, phone).queued <= 25
        assert numbers(bot) == sorted(numbers(bot))
        stats = queue(it, phone).queue_stats
        assert stats.dropped == numbers(bot)[-1] + 1 - len(bot.audio)
        for one, record in ((phone, it), (hidden_phone, other)):
            one.hangup()
            assert (await record.ended(one))["outcome"] == "caller-hangup"
        assert (bot.faults, phone.faults) == ([], [])
        print(f"unread in the kernel: {in_flight} frames with the window, {hidden} without")


@ensureDeferred
async def test_control_messages_pass_the_queue() -> None:
    async with line() as it:
        phone, bot = await it.talk(**SIXTEEN)
        phone.start_audio(numbered())
        await bot.until(lambda: len(bot.audio) >= 20)
        bot.stall()
        await phone.until(lambda: queue(it, phone).queued >= 60)
        status, _ = await it.api(
            "POST", f"/v1/calls/{phone.call_id}/messages", json={"text": "hello"}
        )
        assert status == 202
        for digit in "123":
            phone.dtmf(digit)
        await phone.until(
            lambda: sum(each.kind == "dtmf" for each in it.bridge.calls.running[0].kept) == 3
        )
        waiting = queue(it, phone)._queue.depth
        assert waiting >= 30
        before = len(bot.audio)
        bot.unstall()
        await bot.until(lambda: len(bot.messages) == 5)
        # What was in flight came first, what waited in the queue had not yet been sent.
        assert len(bot.audio) - before <= 25 + 10
        kinds = [each["type"] for each in bot.messages]
        assert kinds == ["client-ready", "send-text", "dtmf", "dtmf", "dtmf"]
        phone.hangup()
        await it.ended(phone)
        assert bot.faults == []


@pytest.mark.parametrize(("speed", "bound"), [(0.9, 3.0), (0.5, 4.0)])
@ensureDeferred
async def test_a_slow_bot_stays_near_the_present(speed: float, bound: float) -> None:
    async with line(sockets=None, read_rate=round(FULL_SPEED * speed)) as it:
        phone, bot = await it.talk(**SIXTEEN)
        phone.start_audio(numbered())
        await phone.until(lambda: len(phone.sent) >= 6 * SECOND)
        assert queue(it, phone).queued < AT_MOST
        assert max(delays(phone, bot, 0)) < bound
        bot.read_rate, bot.sockets[None]._tcp().bufferSize = 0, 65536
        last = len(phone.sent)
        await bot.until(lambda: numbers(bot)[-1] >= last + SECOND)
        recent = delays(phone, bot, last + SECOND // 2)
        assert sorted(recent)[len(recent) // 2] < 0.02
        phone.hangup()
        await it.ended(phone)
        assert (bot.faults, phone.faults) == ([], [])


@ensureDeferred
async def test_a_bot_that_answers_no_pings_is_bounded_by_the_sockets() -> None:
    """The kernel's buffers are all that hides audio then: SO_SNDBUF here, its own there."""
    async with line(sockets=None, answers_pings=False, receive_buffer=4096) as it:
        phone, bot = await it.talk(**SIXTEEN)
        phone.start_audio(numbered())
        await bot.until(lambda: len(bot.audio) >= 3 * SECOND)
        assert queue(it, phone).queued <= 1
        bot.stall()
        await phone.until(lambda: queue(it, phone).queued >= 20)
        hidden = unread(it, phone, bot)
        assert hidden < 4 * SECOND
        bot.unstall()
        await bot.until(lambda: queue(it, phone).queued == 0)
        phone.hangup()
        await it.ended(phone)
        assert numbers(bot) == list(range(len(bot.audio)))
        print(f"unread in the kernel without pongs: {hidden} frames")


@ensureDeferred
async def test_a_bot_that_sends_far_too_much_is_not_read_until_there_is_room() -> None:
    async with line("bot_audio.max_queue=1.0", sockets=None) as it:
        phone, bot = await it.talk(**SIXTEEN)
        phone.start_audio(numbered())
        bot.burst(bytes(16000 * 2 * 60), 16000)
        [call] = it.bridge.calls.running
        await phone.until(lambda: call.playout.full)
        heard = len(bot.audio)
        # The bot's ear is on the same socket, and still hears the caller.
        await bot.until(lambda: len(bot.audio) >= heard + SECOND)
        assert call.playout.depth < 1.0 + 65536 / 32000
        assert queue(it, phone).queued <= 25
        phone.hangup()
        record = await it.ended(phone)
        assert record["outcome"] == "caller-hangup"
        assert record["stats"]["bot_queue_max_ms"] < 1000 + 2100
        assert (bot.faults, phone.faults) == ([], [])
