"""Slow and stalled bots on real sockets, where the kernel's buffers hide audio."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from pytest_twisted import ensureDeferred

from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.e2e.harness import Line, line, sleep

SECOND = 50  # frames
AT_MOST = 3 * SECOND + 10  # and what waits 50 ms for room, more of it on a busy machine
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


def behind(phone: StrictAsterisk, bot: BotDouble, first: int) -> list[int]:
    """Frames that the phone had sent after each one from `first` on when the bot read that."""
    sent = [frame.at for frame in phone.sent]
    return [
        bisect_right(sent, frame.at) - 1 - number
        for number, frame in zip(numbers(bot), bot.audio, strict=True)
        if number >= first
    ]


async def speak(it: Line) -> tuple[StrictAsterisk, BotDouble]:
    """A call whose caller speaks."""
    phone, bot = await it.talk(**SIXTEEN)
    phone.start_audio(numbered())
    return phone, bot


def queue(it: Line, phone: StrictAsterisk) -> Any:
    return it.bridge.calls.get(str(phone.call_id)).bot


def unread(it: Line, phone: StrictAsterisk, bot: BotDouble) -> int:
    """Frames that were handed to the kernel and that the bot has not read."""
    return int(queue(it, phone).queue_stats.sent) - len(bot.audio)


@ensureDeferred
async def test_bots_that_are_stalled_for_five_seconds() -> None:
    """On one socket, on two, and without the window of pings, to show what the window does."""
    # No silence in place of a caller who is late: on a busy machine the double is.
    no_hold = "caller_audio.hold_after=3600"
    no_window = ("caller_audio.in_flight=3600", "caller_audio.queue_frames=10000")
    async with (
        line(no_hold, sockets=None) as one,
        line(no_hold, sockets="both") as two,
        line(no_hold, *no_window, sockets=None) as other,
    ):
        lines = [one, two, other]
        calls = [await speak(each) for each in lines]
        for _, bot in calls:
            await bot.until(lambda bot=bot: len(bot.audio) >= SECOND)
        for _, bot in calls:
            bot.stall()
        queued = [0, 0, 0]
        for _ in range(SECOND):
            await sleep(0.1)
            now = [queue(it, phone).queued for it, (phone, _) in zip(lines, calls, strict=True)]
            queued = list(map(max, queued, now))
        hidden = [unread(it, *call) for it, call in zip(lines, calls, strict=True)]
        for (phone, bot), most, it in zip(calls[:2], queued, lines, strict=False):
            assert unread(it, phone, bot) <= 25
            assert 140 <= most <= AT_MOST
            await recovers(it, phone, bot)
        assert hidden[2] > 2 * hidden[0]
        for it, (phone, bot) in zip(lines, calls, strict=True):
            phone.hangup()
            assert (await it.ended(phone))["outcome"] == "caller-hangup"
            assert (bot.faults, phone.faults) == ([], [])
        print(f"unread in the kernel: {hidden[:2]} frames with the window, {hidden[2]} without")


async def recovers(it: Line, phone: StrictAsterisk, bot: BotDouble) -> None:
    """The bot reads again; what is said from half a second later on finds nothing before it."""
    bot.unstall()
    last = len(phone.sent)
    await bot.until(lambda: numbers(bot)[-1] > last + SECOND)
    recent = behind(phone, bot, last + SECOND // 2)
    assert len(recent) > 20
    assert sorted(recent)[len(recent) // 2] < SECOND // 2  # six times that, were it late
    assert queue(it, phone).queued <= 25
    assert numbers(bot) == sorted(numbers(bot))
    # What was dropped only now is missing once the frame behind it has come.
    stats = queue(it, phone).queue_stats
    await bot.until(lambda: stats.dropped == numbers(bot)[-1] + 1 - len(bot.audio))


@ensureDeferred
async def test_control_messages_pass_the_queue() -> None:
    async with line() as it:
        phone, bot = await speak(it)
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
            lambda: sum(each.kind == "dtmf" for each in it.bridge.calls.running[0].history) == 3
        )
        waiting = queue(it, phone).link.to_bot.depth
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


@ensureDeferred
async def test_slow_bots_stay_near_the_present() -> None:
    async with (
        line(sockets=None, read_rate=round(FULL_SPEED * 0.9)) as slow,
        line(sockets=None, read_rate=round(FULL_SPEED * 0.5)) as slower,
    ):
        calls = [await speak(slow), await speak(slower)]
        for it, (phone, bot) in zip((slow, slower), calls, strict=True):
            await phone.until(lambda phone=phone: len(phone.sent) >= 5 * SECOND)
            assert queue(it, phone).queued < AT_MOST
            assert max(behind(phone, bot, 0)) < 4 * SECOND
        for it, (phone, bot) in zip((slow, slower), calls, strict=True):
            bot.read_rate, bot.sockets[None]._tcp().bufferSize = 0, 65536
            last = len(phone.sent)
            await bot.until(lambda bot=bot, last=last: numbers(bot)[-1] >= last + SECOND)
            recent = behind(phone, bot, last + SECOND // 2)
            assert sorted(recent)[len(recent) // 2] < SECOND // 2  # six times that, were it late
            phone.hangup()
            await it.ended(phone)
            assert (bot.faults, phone.faults) == ([], [])


@ensureDeferred
async def test_a_bot_that_answers_no_pings_is_bounded_by_the_sockets() -> None:
    """The kernel's buffers are all that hides audio then: SO_SNDBUF here, its own there."""
    async with line(sockets=None, answers_pings=False, receive_buffer=4096) as it:
        phone, bot = await speak(it)
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
async def test_a_bot_that_sends_far_too_much_is_read_and_what_is_too_much_dropped() -> None:
    async with line("bot_audio.max_queue=1.0", sockets=None) as it:
        phone, bot = await speak(it)
        bot.burst(bytes(16000 * 2 * 60), 16000)
        [call] = it.bridge.calls.running
        await phone.until(lambda: call.playout.stats.dropped_ms > 50_000)
        heard = len(bot.audio)
        await bot.until(lambda: len(bot.audio) >= heard + SECOND)
        assert call.playout.depth <= 1.1
        assert queue(it, phone).queued <= 25
        phone.hangup()
        record = await it.ended(phone)
        assert record["outcome"] == "caller-hangup"
        assert record["quality"]["bot_queue_max_ms"] <= 1100
        await bot.until(lambda: not bot.sockets)
        assert (bot.faults, phone.faults) == ([], [])
