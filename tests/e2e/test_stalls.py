"""Stalls and bursts of every side: the daemon's own loop, the bot's, and what the caller hears.

On a turned clock, where a stall is a step of the clock in which nobody gets a turn, and every delay
can be told to the millisecond; one test of them all on real sockets.
"""

from __future__ import annotations

import random
import time
from itertools import pairwise

import numpy as np
import pytest
from pytest_twisted import ensureDeferred

from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.e2e.harness import line, reactor
from tests.e2e.memory_line import MemoryLine, memory_line

MS = 0.001
FRAME = 0.02
SIGNALS = ("frame", "rtvi", "flush_media")


def loud(seconds: float, rate: int = 8000, start: int = 0) -> bytes:
    """Samples that are never 0, so that silence can be told from them, and tell their place."""
    numbers = np.arange(start, start + round(seconds * rate))
    return bytes((numbers % 32767 + 1).astype("<i2").data)


def without_silence(phone: StrictAsterisk) -> bytes:
    """What the phone got that is not 0."""
    samples = np.frombuffer(phone.pcm(8000), "<i2")
    return bytes(samples[samples != 0].data)


def voiced(phone: StrictAsterisk, since: float) -> list[float]:
    """When frames with any sound in them came, after `since`."""
    return [frame.at for frame in phone.frames if frame.at > since and any(frame.payload)]


def stall(daemon: MemoryLine, seconds: float) -> None:
    """Nobody gets a turn for so long."""
    daemon.clock.advance(seconds)


def run_with_stalls(daemon: MemoryLine, seconds: float, length: float, seed: int) -> int:
    """Let time pass, with stalls of `length` at random, four a second; how many there were."""
    chance = random.Random(seed)
    end, stalls = daemon.clock.seconds() + seconds, 0
    while daemon.clock.seconds() < end:
        daemon.clock.turn(chance.uniform(0.05, 0.45))
        stall(daemon, length)
        stalls += 1
    return stalls


def test_stalls_of_25_ms_lose_nothing_and_make_no_burst():
    with memory_line() as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(1.0)
        said = loud(60.0)
        bot.say(said, 8000)
        frames, start = len(phone.frames), daemon.clock.seconds()
        assert run_with_stalls(daemon, 65.0, 25 * MS, seed=1) > 200
        elapsed = daemon.clock.seconds() - start
        stats = daemon.record(phone)["quality"]
        assert stats["underruns"] <= 1
        assert stats["scaled_ms"] < 1000  # when the stalls become known
        assert said[2 * 8000 * 20 :] in without_silence(phone)
        assert abs(len(phone.frames) - frames - elapsed / FRAME) <= 2
        assert (
            min(after.at - before.at for before, after in pairwise(phone.frames)) > 10 * MS - 1e-9
        )
        assert phone.far_end.lead_max <= 3  # one by the first audio of the bot
        assert phone.faults == []
        assert bot.faults == []
        record = daemon.record(phone)
        assert record["quality"]["phone_frames_skipped"] == 0
        assert record["quality"]["caller_frames_filled"] == 0
        assert daemon.bridge.clock.skipped == 0


def test_the_callers_voice_is_whole_as_well_under_stalls():
    with memory_line("caller_audio.sample_rate=8000", expected_rate=8000) as daemon:
        phone, bot = daemon.talk()
        spoken = loud(30.0)
        phone.start_audio(spoken[at : at + 320] for at in range(0, len(spoken), 320))
        run_with_stalls(daemon, 32.0, 25 * MS, seed=2)
        heard = np.frombuffer(bot.pcm(), "<i2")
        assert bytes(heard[heard != 0].data) == spoken


@pytest.mark.parametrize("length", [0.12, 0.5, 2.0])
def test_a_long_stall_is_not_caught_up_in_a_burst(length: float):
    with memory_line() as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(1.0)
        said = loud(10.0)
        bot.send_audio(said, 8000)
        daemon.clock.turn(2.0)
        stall(daemon, length)
        daemon.clock.turn(12.0)
        assert without_silence(phone) == said  # late by the stall, but whole
        assert phone.far_end.lead_max <= 3  # one by the first audio of the bot
        assert min(after.at - before.at for before, after in pairwise(phone.frames)) > 5 * MS - 1e-9
        missed = length / FRAME
        assert abs(daemon.bridge.clock.skipped - (missed - 1)) <= 1
        assert phone.faults == []


def test_a_bot_that_sends_a_minute_at_once():
    with memory_line() as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(1.0)
        said, start = loud(60.0), daemon.clock.seconds()
        bot.burst(said, 8000)
        daemon.clock.turn(61.0)
        assert without_silence(phone) == said
        times = voiced(phone, start)
        assert len(times) == 3000
        assert times[0] - start <= 40 * MS + 1e-6
        assert times[-1] - start <= 60.0 + 40 * MS
        assert max(after - before for before, after in pairwise(times)) <= FRAME + MS
        assert phone.far_end.lead_max <= 1
        assert phone.faults == []
        assert daemon.record(phone)["quality"]["underruns"] == 0


def test_a_bot_that_sends_two_minutes_at_once_is_heard_whole_and_stays_up():
    with memory_line("websocket.ping_interval=5", "websocket.ping_timeout=5") as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(1.0)
        said = loud(120.0)
        bot.burst(said, 8000)
        daemon.clock.turn(125.0)
        assert without_silence(phone) == said
        stats = daemon.record(phone)["quality"]
        assert stats["underruns"] == stats["bot_dropped_ms"] == 0
        assert phone.faults == bot.faults == []


def test_what_a_bot_sends_beyond_the_bound_is_dropped_and_told_once():
    with memory_line("bot_audio.max_queue=10") as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(1.0)
        said = loud(30.0)
        bot.burst(said, 8000)
        daemon.clock.turn(30.0)
        heard = without_silence(phone)
        assert heard == said[: len(heard)]
        record = daemon.record(phone)
        stats = record["quality"]
        assert 10_000 <= stats["bot_queue_max_ms"] <= 10_100
        assert stats["bot_dropped_ms"] + len(heard) / 16 == 30_000
        assert record["warnings"] == {"queue-full": stats["bot_dropped_ms"] // 40}
        bot.say(said, 8000)
        daemon.clock.turn(31.0)
        assert without_silence(phone)[len(heard) :].startswith(said)
        assert phone.faults == bot.faults == []


@pytest.mark.parametrize("how", SIGNALS)
@pytest.mark.parametrize("phase", range(0, 20, 3))
def test_after_an_interruption_at_most_one_stale_frame_is_heard(how: str, phase: int):
    with memory_line() as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(1.0)
        bot.burst(loud(30.0), 8000)
        daemon.clock.turn(5.0 + phase * MS)
        interrupted = daemon.clock.seconds()
        bot.interrupt(how)  # type: ignore[arg-type]
        daemon.clock.turn(2.0)
        assert len(voiced(phone, interrupted)) <= 2  # the second one fades
        new = loud(1.0, start=1_000_003)
        frames = len(phone.frames)
        bot.send_audio(new, 8000)
        daemon.clock.turn(2.0)
        pcm = b"".join(frame.payload for frame in phone.frames[frames:])
        assert pcm.strip(b"\0") == new.strip(b"\0")  # what comes after it is whole
        stats = daemon.record(phone)["quality"]
        assert stats["interruptions"] == 1
        assert abs(stats["flushed_ms"] - 25_000) <= 60
        assert phone.faults == []


@pytest.mark.parametrize("how", SIGNALS)
def test_an_interruption_is_heard_at_once_behind_more_than_the_bound(how: str):
    with memory_line("bot_audio.max_queue=60") as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(1.0)
        bot.burst(loud(90.0), 8000)
        daemon.clock.turn(1.2)
        interrupted = daemon.clock.seconds()
        bot.interrupt(how)  # type: ignore[arg-type]
        daemon.clock.turn(1.0)
        assert len(voiced(phone, interrupted)) <= 2  # the second one fades


def test_a_bot_that_stalls_for_5_s_never_slows_asterisk():
    with memory_line() as daemon:
        phone, bot = daemon.talk()
        phone.start_audio()
        daemon.clock.turn(2.0)
        bot.stall()
        stalled, frames = daemon.clock.seconds(), len(phone.sent)
        daemon.clock.turn(5.0)
        assert len(phone.sent) - frames == 250
        assert daemon.record(phone)["quality"]["caller_queued"] <= 150
        bot.unstall()
        heard = len(bot.audio)
        daemon.clock.turn(1.0)
        assert daemon.record(phone)["quality"]["caller_queued"] <= 25  # its pings come every 0.2 s
        caught_up = daemon.clock.seconds()
        daemon.clock.turn(5.0)
        late = [audio for audio in bot.audio[heard:] if audio.at > caught_up]
        assert abs(len(late) - 250) <= 2
        since = [frame.at for frame in phone.frames if frame.at > stalled]
        assert max(after - before for before, after in pairwise(since)) <= FRAME + MS
        assert phone.faults == []
        assert phone.ended is None


def check_all_there(phone: StrictAsterisk, bot: BotDouble, said: bytes, spoken: bytes) -> None:
    assert without_silence(phone) == said
    heard = np.frombuffer(bot.pcm(), "<i2")
    assert bytes(heard[heard != 0].data) == spoken
    assert phone.faults == []
    assert bot.faults == []


@ensureDeferred
async def test_on_real_sockets_a_loop_that_stalls_loses_nothing():
    said, spoken = loud(3.0), loud(3.0)
    chance = random.Random(3)

    def block() -> None:
        nonlocal blocking
        end = time.monotonic() + 25 * MS
        while time.monotonic() < end:
            pass
        blocking = reactor.callLater(chance.uniform(0.05, 0.15), block)

    async with line("caller_audio.sample_rate=8000", expected_rate=8000) as it:
        phone, bot = await it.talk()
        blocking = reactor.callLater(0.0, block)
        try:
            bot.burst(said, 8000)
            phone.start_audio(spoken[at : at + 320] for at in range(0, len(spoken), 320))
            await bot.until(lambda: len(bot.pcm()) >= len(spoken))
            await phone.until(lambda: len(without_silence(phone)) >= len(said))
        finally:
            blocking.cancel()
        check_all_there(phone, bot, said, spoken)
        assert it.record(phone)["quality"]["phone_frames_skipped"] == 0
        phone.hangup()
        await it.ended(phone)
