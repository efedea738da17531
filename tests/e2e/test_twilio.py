"""Bots written for Twilio Media Streams: whole calls over real sockets, with a strict one."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from pytest_twisted import ensureDeferred

from pipecat_bridge.audio import g711
from pipecat_bridge.audio.resample import make_resampler
from tests.doubles.asterisk import HUNG_UP
from tests.doubles.twilio_bot import GARBAGE, to_octets, to_pcm
from tests.e2e.dialled import (
    BY_THE_BRIDGE,
    EIGHT,
    Ending,
    bot_side,
    constant,
    dialled,
    heard,
    settled,
    without_fade,
)
from tests.e2e.harness import sleep
from tests.e2e.test_backpressure import AT_MOST, SECOND
from tests.e2e.test_signal import PATIENT, hear, is_over
from tests.unit.bot_side import warnings
from tests.unit.signals import chunks, sinad, stream, to_signal, tone

MU_LAW = 33.0
"""Decibels between a tone at -6 dBFS and what G.711 makes of it, at least."""


def level(sample: int) -> int:
    """What mu-law makes of a sample."""
    pcm = to_pcm(to_octets(int(sample).to_bytes(2, "little", signed=True)))
    return int.from_bytes(pcm, "little", signed=True)


def said(phone: Any, sample: int) -> float:
    """Frames in which the caller heard what mu-law makes of a sample."""
    return heard(phone, level(sample))


class TestSignal:
    @pytest.mark.parametrize("rate", [8000, 16000])
    @ensureDeferred
    async def test_both_ways(self, rate: int) -> None:
        pcm = tone(1000, rate, 1.5) + tone(3000, rate, 1.5) + bytes(rate // 5)
        async with dialled("twilio", *PATIENT, echo=True) as it:
            phone, bot = await it.talk(rate=rate)
            await phone.start_audio(chunks(pcm, rate // 50 * 2))
            await phone.until(lambda: is_over(phone))
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == []
        octets = g711.encode("ulaw", stream(make_resampler(rate, EIGHT), pcm))
        # Where the caller was late to begin, silence came before him; a last piece of less than 20
        # ms is not sent.
        silent, _, got = bot.octets.partition(octets[:1600])
        got = octets[:1600] + got
        assert set(silent) <= {0xFF}
        assert got == octets[: len(got)]
        assert len(octets) - len(got) < 160
        played = stream(make_resampler(EIGHT, rate), to_pcm(bot.octets))
        at_phone = hear(phone.frames, played, rate).pcm
        for second, frequency in ((0.1, 1000), (1.6, 3000)):
            start = round(second * rate)
            signal = to_signal(at_phone)[start : start + rate]
            assert sinad(signal, frequency, rate) > MU_LAW

    @ensureDeferred
    async def test_numbers_and_times_of_a_stream(self) -> None:
        """The bot checks them with each message; here that they are there at all."""
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            phone.start_audio()
            await bot.until(lambda: len(bot.audio) >= 50)
            phone.dtmf("5")
            await bot.until(lambda: bot.digits)
            phone.hangup()
            await settled(it, phone)
            assert bot.order[:2] == ["connected", "start"]
            assert bot.order[-1] == "stop"
            assert set(bot.order[2:-1]) == {"media", "dtmf"}
            assert (bot.digits, bot.faults) == ("5", [])


class TestTold:
    CALL_ID = "5f6a3b1c-0d2e-4f3a-8b9c-1d2e3f4a5b6c"

    async def prepared(self, it: Any) -> Any:
        """The bot of a call that was prepared over the API, and is over."""
        metadata = {"caller": "+1", "dialled": "+2", "vip": True, "tries": 3}
        call = {"llm_type": "openai", "llm_key": "sk-1", "metadata": metadata}
        status, _ = await it.api("PUT", f"/v1/calls/{self.CALL_ID}", json=call)
        assert status == 201
        phone, bot = await it.talk(call_id=UUID(self.CALL_ID))
        phone.hangup()
        await settled(it, phone)
        assert bot.faults == []
        return bot

    @ensureDeferred
    async def test_who_calls(self) -> None:
        settings = ('runner.headers={X-Region = "eu"}', 'runner.parameters={stt_type = "local"}')
        async with dialled("twilio", *settings) as it:
            bot = await self.prepared(it)
            told = {
                "from": "+1",
                "from_number": "+1",
                "caller": "+1",
                "to": "+2",
                "to_number": "+2",
                "dialled": "+2",
                "vip": "true",
                "tries": "3",
                "llm_type": "openai",
                "stt_type": "local",
                "call_id": self.CALL_ID,
            }
            assert bot.told == told
            assert bot.start["callSid"] == "CA" + self.CALL_ID.replace("-", "")
            assert it.runner.requests == []
            assert it.runner.knocks[0].headers["x-region"] == "eu"

    @ensureDeferred
    async def test_a_bot_that_is_started(self) -> None:
        async with dialled("twilio", starts=True, token_in="header") as it:
            bot = await self.prepared(it)
            [request] = it.runner.asked("/start")
            assert request.body["transport"] == "twilio"
            assert request.body["body"]["metadata"]["caller"] == "+1"
            assert request.body["body"]["llm_key"] == "sk-1"
            assert "sk-1" not in str(bot.start)

    @ensureDeferred
    async def test_a_bot_that_takes_the_place_of_a_lost_one_has_a_stream_of_its_own(self) -> None:
        async with dialled("twilio", "calls.on_bot_lost=restart") as it:
            phone, bot = await it.talk()
            phone.start_audio()
            await bot.until(lambda: bot.audio)
            bot.die()
            await it.runner.until(lambda: len(it.runner.sessions) == 2)
            second = it.runner.sessions[1]
            await second.until(lambda: second.audio)
            assert (bot.told.get("resumption"), second.told["resumption"]) == (None, "1")
            assert bot.stream_sid != second.stream_sid
            assert bot.start["callSid"] == second.start["callSid"]
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == second.faults == []


@ensureDeferred
async def test_texts_cannot_be_said() -> None:
    async with dialled("twilio") as it:
        phone, bot = await it.talk()
        path = f"/v1/calls/{phone.call_id}/messages"
        status, answer = await it.api("POST", path, json={"text": "hello"})
        assert status == 409
        assert "takes no text" in answer["error"]
        phone.hangup()
        await settled(it, phone)
        assert (bot.beside, bot.faults) == ([], [])


class TestPlayout:
    @ensureDeferred
    async def test_clear(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            bot.burst(constant(1000, 3.0))
            await phone.until(lambda: said(phone, 1000) >= 3)
            bot.burst(constant(2000, 3.0))
            bot.interrupt()
            bot.burst(constant(3000))
            await phone.until(lambda: said(phone, 3000) == 25)
            assert without_fade(phone, level(1000)) == {0, level(1000), level(3000)}
            assert said(phone, 1000) < 50
            assert it.record(phone)["quality"]["interruptions"] == 1
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == []

    @ensureDeferred
    async def test_a_mark_comes_back_when_what_was_before_it_has_been_played(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            bot.mark("nothing before it")
            await bot.until(lambda: len(bot.marks) == 1)
            bot.burst(constant(1000, 1.0))
            bot.mark("first")
            bot.burst(constant(2000, 0.5))
            bot.mark("second")
            bot.mark("third")
            played = []
            for count in (2, 4):
                await bot.until(lambda count=count: len(bot.marks) >= count)
                await phone.until(lambda: True)
                played.append((said(phone, 1000), said(phone, 2000)))
            assert [name for _, name in bot.marks[1:]] == ["first", "second", "third"]
            # The phone's side of the loopback may be read a little before or after the bot's.
            assert 48 <= played[0][0] <= 50
            assert played[0][1] <= 2
            assert 23 <= played[1][1] <= 25
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == []

    @ensureDeferred
    async def test_marks_come_back_at_once_on_clear(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            bot.burst(constant(1000, 30.0))
            bot.mark("never played")
            bot.mark("neither")
            await phone.until(lambda: said(phone, 1000) >= 3)
            bot.interrupt()
            bot.burst(constant(2000, 0.2))
            bot.mark("played")
            await bot.until(lambda: len(bot.marks) == 3)
            assert said(phone, 1000) < 100
            phone.hangup()
            await settled(it, phone)
            assert [name for _, name in bot.marks] == ["never played", "neither", "played"]
            assert bot.faults == []

    @ensureDeferred
    async def test_marks_that_wait_at_the_end(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            bot.burst(constant(1000, 30.0))
            bot.mark("never played")
            await phone.until(lambda: said(phone, 1000) >= 3)
            phone.hangup()
            await settled(it, phone)
            assert bot.order[-1] == "stop"
            assert bot.faults == []


class TestEndings:
    @ensureDeferred
    async def test_the_bot_closes_and_its_last_words_are_played(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk(driver="application")
            phone.start_audio()
            bot.burst(constant(1000, 1.0))
            bot.close()
            record = await settled(it, phone)
            assert record["outcome"] == "completed"
            assert said(phone, 1000) == 50
            assert phone.hangup_received
            assert not bot.stopped
            assert bot.faults == []

    @pytest.mark.parametrize(("ending", "outcome"), BY_THE_BRIDGE)
    @ensureDeferred
    async def test_the_bot_is_told_to_stop(self, ending: Ending, outcome: str) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            phone.start_audio()
            await bot.until(lambda: bot.audio)
            await ending(it, phone, bot)
            record = await settled(it, phone)
            assert record["outcome"] == outcome
            assert bot.stopped
            [how] = bot.closes
            assert (how.clean, how.code) == (True, 1000)
            assert bot.faults == []

    @ensureDeferred
    async def test_a_bot_that_closes_by_itself(self) -> None:
        async with dialled("twilio", "runner.disconnect_grace=60", leaves_after=0.05) as it:
            phone, bot = await it.talk()
            phone.hangup()
            await settled(it, phone)
            assert bot.stopped
            assert [how.clean for how in bot.closes] == [True]

    @ensureDeferred
    async def test_the_bot_dies(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            bot.burst(constant(1000, 60.0))
            await phone.until(lambda: said(phone, 1000))
            bot.die()
            record = await settled(it, phone)
            assert (record["outcome"], phone.ended) == ("bot-hangup", HUNG_UP)


class TestBeside:
    """JSON of the bot's that Twilio has no event for."""

    @ensureDeferred
    async def test_hangup(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            bot.burst(constant(1000))
            bot.send_json({"type": "hangup", "reason": "done"})
            record = await settled(it, phone)
            assert (record["outcome"], record["reason"]) == ("completed", "done")
            assert said(phone, 1000) == 25

    @ensureDeferred
    async def test_variables_and_transfer(self) -> None:
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            bot.send_json({"type": "set", "variables": {"ORDER": "17"}})
            bot.send_json({"type": "transfer", "target": "support"})
            record = await settled(it, phone)
            assert (record["outcome"], record["transfer"]) == ("transferred", "support")
            assert record["variables"] == {"ORDER": "17"}

    @ensureDeferred
    async def test_rtvi(self) -> None:
        """Pipecat's serializer writes every message frame as it is."""
        async with dialled("twilio") as it:
            phone, bot = await it.talk()
            transcript = {"text": "good morning"}
            bot.send_json({"label": "rtvi-ai", "type": "bot-transcription", "data": transcript})
            bot.send_json({"label": "rtvi-ai", "type": "server-message", "data": {"a": 1}})
            await it.until(lambda: "message" in it.kinds(phone))
            phone.hangup()
            record = await settled(it, phone)
            [turn] = it.events(phone, "turn")
            assert turn["data"]["text"] == "good morning"
            assert (record["transcript"], record["quality"]["bot_frames_bad"]) == ({"turns": 1}, 0)


@ensureDeferred
async def test_garbage_of_every_kind() -> None:
    """Binary where text is due among it."""
    async with dialled("twilio") as it:
        phone, bot = await it.talk()
        with warnings() as logged:
            for _ in range(2):
                bot.garbage()
            bot.burst(constant(1000))
            await phone.until(lambda: said(phone, 1000) == 25)
        assert all(str(phone.call_id) in text for text in logged), logged
        assert Counter(text.split()[2] for text in logged)["bad-message:"] == 1, "told once"
        assert bot_side(it, phone).stats.bad_frames == 2 * len(GARBAGE)
        assert bot.closes == []
        phone.hangup()
        assert (await settled(it, phone))["outcome"] == "caller-hangup"
        assert bot.faults == []


@ensureDeferred
async def test_events_that_mean_nothing_are_no_faults() -> None:
    async with dialled("twilio") as it:
        phone, bot = await it.talk()
        for event in ("connected", "start", "stop", "dtmf", "hello"):
            bot.send_event(event, **{event: {}})
        bot.burst(constant(1000))
        await phone.until(lambda: said(phone, 1000) == 25)
        assert it.record(phone)["quality"]["bot_frames_bad"] == 0
        phone.hangup()
        await settled(it, phone)


@ensureDeferred
async def test_a_bot_that_is_stalled_for_five_seconds() -> None:
    async with dialled("twilio") as it:
        phone, bot = await it.talk()
        # Each frame says which one it is, as far as mu-law can: 100 levels in turn.
        phone.start_audio(chunks(b"".join(_numbered(number) for number in range(2000)), 320))
        await bot.until(lambda: len(bot.audio) >= SECOND)
        bot.stall()
        queued = 0
        for _ in range(SECOND):
            await sleep(0.1)
            queued = max(queued, bot_side(it, phone).queued)
        assert bot_side(it, phone).queue_stats.sent - len(bot.audio) <= 25
        assert 140 <= queued <= AT_MOST
        phone.dtmf("5")
        phone.dtmf("#")
        bot.unstall()
        last = len(phone.sent)
        await phone.until(lambda: len(phone.sent) >= last + SECOND)
        assert bot_side(it, phone).queued <= 25
        assert bot_side(it, phone).queue_stats.dropped > 60
        newest = bot.audio[-1].pcm[:2]
        recent = range(len(phone.sent) - 25, len(phone.sent))
        assert newest in [_numbered(number)[:2] for number in recent]
        phone.hangup()
        await settled(it, phone)
        # Numbers and times are without a gap, although not all was sent and digits overtook audio.
        assert (bot.digits, bot.faults) == ("5#", [])


def _numbered(number: int) -> bytes:
    octet = bytes([0x80 + number % 100])
    return to_pcm(octet) * 160


def test_numbers_are_told_apart_by_mu_law() -> None:
    frames = [_numbered(number) for number in range(100)]
    assert len(set(frames)) == 100
    assert all(to_pcm(to_octets(frame)) == frame for frame in frames)
    assert np.frombuffer(frames[1], "<i2").std() == 0
