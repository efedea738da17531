"""Bots that misbehave, on real sockets: the call goes on, or ends with the right word."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from tests.doubles import protobuf
from tests.doubles.asterisk import HUNG_UP
from tests.doubles.bot import BotDouble
from tests.doubles.bot_socket import DialError
from tests.e2e.dialled import EIGHT, LOUD, bot_side, constant, heard, samples, without_fade
from tests.e2e.harness import line, reactor, sleep
from tests.unit.bot_side import warnings


@pytest.mark.parametrize("sockets", [None, "both"])
@pytest.mark.parametrize("ready_after", [0.0, 0.3, None])
@ensureDeferred
async def test_the_strict_bot_is_never_killed_by_early_audio(
    sockets: Any, ready_after: float | None
) -> None:
    async with line(sockets=sockets, ready_after=ready_after, dial_delay=0.3) as it:
        phone = await it.dial(rate=16000)
        phone.start_audio(number.to_bytes(2, "little") * 320 for number in range(1, 500))
        await it.runner.until(lambda: it.runner.bots)
        [bot] = it.runner.bots.values()
        await bot.until(lambda: len(bot.audio) >= 40)
        assert (bot.faults, bot.closes) == ([], [])
        got = [int.from_bytes(frame.pcm[-2:], "little") for frame in bot.audio]
        assert got == list(range(got[0], got[0] + len(got)))
        if ready_after is None:  # after 1.3 s: the last half second was kept, not all
            assert got[0] > 10
        phone.hangup()
        await it.ended(phone)


@ensureDeferred
async def test_garbage_of_every_kind() -> None:
    async with line() as it:
        phone, bot = await it.talk()
        phone.start_audio()
        with warnings() as said:
            for _ in range(3):
                bot.garbage()
            bot.send_audio(constant(LOUD), EIGHT)
            await phone.until(lambda: heard(phone, LOUD) == 25)
        assert [str(phone.call_id) in text for text in said] == [True]
        assert bot_side(it, phone).stats.bad_frames == 3 * 13
        assert bot.closes == []
        phone.hangup()
        record = await it.ended(phone)
        assert record["outcome"] == "caller-hangup"
        assert (bot.faults, phone.faults) == ([], [])


@pytest.mark.parametrize("how", ["frame", "rtvi", "flush_media"])
@ensureDeferred
async def test_barge_in_within_one_segment(how: Any) -> None:
    """Audio, the signal, audio: written in one turn of the loop, they go out together."""
    async with line() as it:
        phone, bot = await it.talk()
        bot.send_audio(constant(1000, 3.0), EIGHT)
        await phone.until(lambda: heard(phone, 1000) >= 3)
        bot.send_audio(constant(2000, 3.0), EIGHT)
        bot.interrupt(how)
        bot.send_audio(constant(3000, 0.5), EIGHT)
        await phone.until(lambda: heard(phone, 3000) == 25)
        assert without_fade(phone, 1000) == {0, 1000, 3000}
        assert it.record(phone)["talk"]["interruptions"] == 1
        order = samples(phone)
        assert 1000 not in order[order.index(3000) :]
        phone.hangup()
        await it.ended(phone)
        assert (bot.faults, phone.faults) == ([], [])


@ensureDeferred
async def test_a_barge_in_told_three_times_and_two_that_follow_each_other() -> None:
    async with line() as it:
        phone, bot = await it.talk()

        def interrupt() -> None:
            for how in ("flush_media", "frame", "rtvi"):
                bot.interrupt(how)  # type: ignore[arg-type]

        interrupt()  # the bot says nothing: that is no barge-in
        bot.send_audio(constant(1000, 60.0), EIGHT)
        await phone.until(lambda: heard(phone, 1000) >= 3)
        assert it.events(phone, "interrupted") == []
        interrupt()
        bot.send_audio(constant(2000, 60.0), EIGHT)
        await phone.until(lambda: heard(phone, 2000) >= 3)
        assert len(it.events(phone, "interrupted")) == 1
        interrupt()
        bot.send_audio(constant(3000), EIGHT)
        await phone.until(lambda: heard(phone, 3000) == 25)
        assert (heard(phone, 1000) < 50, heard(phone, 2000) < 50) == (True, True)
        phone.hangup()
        record = await it.ended(phone)
        assert len(it.events(phone, "interrupted")) == 2
        assert record["talk"]["interruptions"] == 2
        assert record["quality"]["interruptions"] == 2


@pytest.mark.parametrize(
    ("shape", "wav_header"), [({}, True), ({"stereo": True, "odd": True}, False)]
)
@ensureDeferred
async def test_odd_shapes_of_audio(shape: dict[str, bool], wav_header: bool) -> None:
    async with line(wav_header=wav_header) as it:
        phone, bot = await it.talk()
        bot.burst(constant(LOUD, 1.0), EIGHT, **shape)  # type: ignore[arg-type]
        bot.close()
        record = await it.ended(phone)
        assert heard(phone, LOUD) == 50
        assert set(samples(phone)) == {0, LOUD}
        assert record["outcome"] == "completed"
        assert record["quality"]["bot_frames_bad"] == 0


@pytest.mark.parametrize("sockets", [None, "both"])
@pytest.mark.parametrize("code", [1000, 1001])
@ensureDeferred
async def test_a_clean_close_is_played_out(sockets: Any, code: int) -> None:
    async with line(sockets=sockets) as it:
        phone, bot = await it.talk(driver="application")
        phone.start_audio()
        bot.burst(constant(LOUD, 1.0), EIGHT)
        bot.long_silence(16000)
        bot.interrupt()
        bot.burst(constant(2000, 1.0), EIGHT)
        bot.close(code)
        record = await it.ended(phone)
        assert record["outcome"] == "completed"
        assert heard(phone, 2000) == 50
        assert phone.hangup_received
        assert phone.faults == []


@pytest.mark.parametrize("code", [1002, 1011, 4000])
@ensureDeferred
async def test_any_other_code_is_a_bot_that_was_lost(code: int) -> None:
    async with line() as it:
        phone, bot = await it.talk()
        bot.burst(constant(LOUD, 60.0), EIGHT)
        bot.close(code, "out of memory")
        record = await it.ended(phone)
        assert record["outcome"] == "bot-hangup"
        assert record["reason"] == f"the bot's WebSocket closed: out of memory ({code})"
        assert (phone.ended, phone.faults) == (HUNG_UP, [])


@pytest.mark.parametrize("direction", ["input", "output"])
@ensureDeferred
async def test_both_sockets_are_closed_when_one_is_lost(direction: Any) -> None:
    async with line() as it:
        phone, bot = await it.talk()
        bot.sockets[direction].die()
        record = await it.ended(phone)
        assert record["outcome"] == "bot-hangup"
        await bot.until(lambda: not bot.sockets)
        assert [how.clean for how in bot.closes if how.direction != direction] == [True]


@ensureDeferred
async def test_a_bot_that_is_half_open_is_dropped() -> None:
    pings = ("websocket.ping_interval=0.2", "websocket.ping_timeout=0.3")
    async with line(*pings, answers_pings=False, answers_close=False) as it:
        phone, bot = await it.talk()
        record = await it.ended(phone)
        assert record["outcome"] == "bot-hangup"
        assert "no answer to a ping within 0.3 s" in record["reason"]
        assert phone.ended == HUNG_UP
        await bot.until(lambda: not bot.sockets)


@ensureDeferred
async def test_a_bot_that_stalls_for_less_is_not() -> None:
    pings = ("websocket.ping_interval=0.2", "websocket.ping_timeout=3")
    async with line(*pings) as it:
        phone, bot = await it.talk()
        phone.start_audio()
        bot.stall()
        await sleep(1.0)
        bot.unstall()
        await bot.until(lambda: len(bot.audio) > 60)
        phone.hangup()
        assert (await it.ended(phone))["outcome"] == "caller-hangup"


@ensureDeferred
async def test_a_second_bot_for_a_call_that_has_one() -> None:
    async with line() as it:
        phone, bot = await it.talk()
        ws_url = it.runner.asked("/run")[0].body["ws_url"]
        for way in ("input", "output", None):
            other = BotDouble(reactor)
            with pytest.raises(DialError) as refused:
                await other.dial(ws_url, way)  # type: ignore[arg-type]
            assert refused.value.status == 409
            assert "connected already" in str(refused.value)
        assert it.bridge.runner.dialback_server.refused == 3
        phone.start_audio()
        await bot.until(lambda: len(bot.audio) > 5)
        phone.hangup()
        await it.ended(phone)
        with pytest.raises(DialError) as refused:
            await BotDouble(reactor).dial(ws_url)
        assert refused.value.status == 404
        assert bot.faults == []


@ensureDeferred
async def test_a_required_token_that_the_runner_forgets() -> None:
    async with line("runner.require_token=true", dial_delay=None) as it:
        phone = await it.dial()
        await it.runner.until(lambda: it.runner.asked("/run"))
        ws_url = it.runner.asked("/run")[0].body["ws_url"]
        with pytest.raises(DialError) as refused:
            await BotDouble(reactor).dial(ws_url.rpartition("/")[0])
        assert refused.value.status == 403
        assert "token missing" in str(refused.value)
        bot = BotDouble(reactor)
        await bot.dial(ws_url)
        await bot.until(lambda: bot.ready_sent)
        phone.hangup()
        await it.ended(phone)
        await bot.until(lambda: not bot.sockets)


@ensureDeferred
async def test_text_and_events_of_a_bot() -> None:
    async with line() as it:
        phone, bot = await it.talk()
        bot.send(protobuf.encode("transcription", text="hello", user_id="u", timestamp="t"))
        bot.rtvi("bot-transcription", {"text": "good morning"})
        bot.rtvi("server-message", {"t": "hangup"})
        await it.until(lambda: "message" in it.kinds(phone))
        phone.hangup()
        record = await it.ended(phone)
        said = [
            (turn["data"]["speaker"], turn["data"]["text"]) for turn in it.events(phone, "turn")
        ]
        assert said == [("bot", "good morning"), ("caller", "hello")]
        assert [told["data"] for told in it.events(phone, "message")] == [{"data": {"t": "hangup"}}]
        assert record["transcript"] == {"turns": 2}
