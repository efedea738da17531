"""Bots that the bridge dials, with `/start` and without: whole calls over real sockets."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from pytest_twisted import ensureDeferred

from tests.doubles.asterisk import HUNG_UP, StrictAsterisk
from tests.e2e.dialled import (
    BY_THE_BRIDGE,
    EIGHT,
    LOUD,
    Ending,
    bot_side,
    constant,
    dialled,
    heard,
    settled,
    without_fade,
)
from tests.e2e.harness import Line, sleep
from tests.e2e.test_backpressure import AT_MOST, SECOND, queue, recovers, speak, unread
from tests.e2e.test_signal import PATIENT, check_live_echo
from tests.unit.bot_side import warnings

MODES = ("dial", "direct")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", [8000, 16000])
@ensureDeferred
async def test_nothing_is_lost_either_way(mode: str, rate: int) -> None:
    # This machine may stand still for longer than 0.1 s, which is no silence of the caller's.
    async with dialled(mode, *PATIENT, echo=True) as it:
        phone, bot = await it.talk(rate=rate)
        await check_live_echo(phone, bot, rate)
        phone.hangup()
        record = await settled(it, phone)
        assert (record["outcome"], record["quality"]["bot_frames_bad"]) == ("caller-hangup", 0)
        assert (bot.faults, it.runner.faults) == ([], [])


class TestTold:
    """What the runner and the bot are told of a call."""

    SETTINGS = (
        'runner.parameters={stt_type = "local", llm_type = "local"}',
        'runner.headers={Authorization = "Bearer pk-1", X-Region = "eu"}',
    )

    async def call(self, it: Any) -> tuple[Any, Any]:
        """A call that was prepared over the API."""
        call_id = "5f6a3b1c-0d2e-4f3a-8b9c-1d2e3f4a5b6c"
        metadata = {"from": "+1", "vip": True}
        call = {"llm_type": "openai", "llm_key": "sk-1", "metadata": metadata}
        status, _ = await it.api("PUT", f"/v1/calls/{call_id}", json=call)
        assert status == 201
        phone, bot = await it.talk(call_id=UUID(call_id))
        phone.hangup()
        await settled(it, phone)
        parameters = {"stt_type": "local", "llm_type": "openai", "llm_key": "sk-1"}
        kinds = [each["type"] for each in bot.messages]
        assert kinds == ["client-ready", "client-message", "disconnect-bot"]
        told = {"id": call_id, "metadata": metadata, "parameters": parameters}
        assert bot.told == told
        return bot, {**parameters, "id": call_id, "metadata": metadata}

    @ensureDeferred
    async def test_by_start_and_in_band(self) -> None:
        start = 'runner.start_body={transport = "websocket", warm = 1, body = {tenant = "t"}}'
        path = "/v1/public/agent/start"
        async with dialled(
            "dial", *self.SETTINGS, start, f"runner.start_path={path}", start_path=path
        ) as it:
            _, told = await self.call(it)
            [request] = it.runner.asked(path)
            body = {"tenant": "t", **told}
            assert request.body == {"transport": "websocket", "warm": 1, "body": body}
            assert request.headers["authorization"] == "Bearer pk-1"
            assert request.headers["x-region"] == "eu"
            assert {each.path for each in it.runner.requests} == {path}
            # They are for who starts the bot; where it runs may be somebody else's.
            [knock] = it.runner.knocks
            assert "x-region" not in knock.headers
            assert "pk-1" not in str(knock)

    @ensureDeferred
    async def test_in_band_alone(self) -> None:
        async with dialled("direct", *self.SETTINGS) as it:
            await self.call(it)
            assert it.runner.requests == []
            [knock] = it.runner.knocks
            assert knock.headers["authorization"] == "Bearer pk-1"
            assert knock.headers["x-region"] == "eu"

    @ensureDeferred
    async def test_a_bot_that_takes_the_place_of_a_lost_one(self) -> None:
        for mode in MODES:
            async with dialled(mode, "calls.on_bot_lost=restart") as it:
                phone, bot = await it.talk()
                bot.die()
                await it.runner.until(lambda it=it: len(it.runner.sessions) == 2)
                second = it.runner.sessions[1]
                await second.until(lambda second=second: second.told)
                assert (bot.told.get("resumption"), second.told["resumption"]) == (None, 1)
                if mode == "dial":
                    bodies = [each.body["body"] for each in it.runner.asked("/start")]
                    assert [body.get("resumption") for body in bodies] == [None, 1]
                phone.hangup()
                assert (await settled(it, phone))["outcome"] == "caller-hangup"


@pytest.mark.parametrize("place", ["header", "query", "path"])
@ensureDeferred
async def test_tokens(place: Any) -> None:
    async with dialled("dial", f"runner.token_in={place}", token_in=place) as it:
        for _ in range(2):
            phone, bot = await it.talk()
            phone.hangup()
            await settled(it, phone)
            assert bot.faults == []
        assert (it.runner.tokens, len(it.runner.sessions)) == ([], 2)


@pytest.mark.parametrize("mode", MODES)
@ensureDeferred
async def test_origin_and_subprotocol(mode: str) -> None:
    settings = ("runner.origin=https://phones.example", "runner.subprotocol=rtvi")
    options = {"origin": "https://phones.example", "subprotocol": "rtvi"}
    async with dialled(mode, *settings, **options) as it:
        phone, bot = await it.talk()
        phone.hangup()
        await settled(it, phone)
        assert bot.faults == []


@pytest.mark.parametrize(
    "ws_url", ["wss://{host}:{port}/ws-client", "ws://0.0.0.0:{port}/ws-client"]
)
@ensureDeferred
async def test_what_the_development_runner_says_of_itself(ws_url: str) -> None:
    async with dialled("dial", ws_url=ws_url) as it:
        phone, _ = await it.talk()
        phone.hangup()
        await settled(it, phone)


@ensureDeferred
async def test_starts_share_connections() -> None:
    async with dialled("dial") as it:
        for _ in range(10):
            phone, _ = await it.talk()
            phone.hangup()
            await settled(it, phone)
        assert len(it.runner.asked("/start")) == 10
        assert it.runner.connections <= 2


@pytest.mark.parametrize("ready_after", [0.0, 0.3, None])
@ensureDeferred
async def test_the_strict_bot_is_never_killed_by_early_audio(ready_after: float | None) -> None:
    async with dialled("direct", ready_after=ready_after) as it:
        phone = await it.dial(rate=16000)
        phone.start_audio()
        await it.runner.until(lambda: it.runner.sessions)
        [bot] = it.runner.sessions
        await bot.until(lambda: len(bot.audio) >= 20)
        assert (bot.faults, bot.closes) == ([], [])
        phone.hangup()
        await settled(it, phone)


@pytest.mark.parametrize("mode", MODES)
@ensureDeferred
async def test_digits_and_texts(mode: str) -> None:
    async with dialled(mode) as it:
        phone, bot = await it.talk()
        for digit in "1#":
            phone.dtmf(digit)
        await bot.until(lambda: len(bot.messages) == 4)
        status, answer = await it.api(
            "POST", f"/v1/calls/{phone.call_id}/messages", json={"text": "hello"}
        )
        assert (status, answer["sent"]) == (202, True)
        await bot.until(lambda: len(bot.messages) == 5)
        buttons = [each["data"]["buttons"] for each in bot.messages[2:4]]
        assert buttons == [["1"], ["#"]]
        assert bot.messages[4]["type"] == "send-text"
        assert bot.messages[4]["data"]["content"] == "hello"
        phone.hangup()
        await settled(it, phone)
        assert bot.faults == []


@pytest.mark.parametrize("how", ["frame", "rtvi", "flush_media"])
@pytest.mark.parametrize("mode", MODES)
@ensureDeferred
async def test_barge_in(mode: str, how: Any) -> None:
    async with dialled(mode) as it:
        phone, bot = await it.talk()
        bot.send_audio(constant(1000, 3.0), EIGHT)
        await phone.until(lambda: heard(phone, 1000) >= 3)
        bot.send_audio(constant(2000, 3.0), EIGHT)
        bot.interrupt(how)
        bot.send_audio(constant(3000), EIGHT)
        await phone.until(lambda: heard(phone, 3000) == 25)
        assert without_fade(phone, 1000) == {0, 1000, 3000}
        assert heard(phone, 1000) < 50
        assert it.record(phone)["quality"]["interruptions"] == 1
        phone.hangup()
        await settled(it, phone)
        assert bot.faults == []


class TestEndings:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("drops_tcp", [True, False])
    @ensureDeferred
    async def test_the_bot_closes_and_its_last_words_are_played(
        self, mode: str, drops_tcp: bool
    ) -> None:
        async with dialled(mode, "websocket.close_timeout=0.3", drops_tcp=drops_tcp) as it:
            phone, bot = await it.talk(driver="application")
            phone.start_audio()
            bot.burst(constant(LOUD, 1.0), EIGHT)
            bot.close()
            record = await settled(it, phone)
            assert record["outcome"] == "completed"
            assert heard(phone, LOUD) == 50
            assert phone.hangup_received
            assert [how.code for how in bot.closes] == [1000]
            assert bot.faults == []

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(("ending", "outcome"), BY_THE_BRIDGE)
    @ensureDeferred
    async def test_the_bot_is_asked_to_end(self, mode: str, ending: Ending, outcome: str) -> None:
        async with dialled(mode) as it:
            phone, bot = await it.talk()
            phone.start_audio()
            await bot.until(lambda: bot.audio)
            await ending(it, phone, bot)
            record = await settled(it, phone)
            assert record["outcome"] == outcome
            assert bot.messages[-1]["type"] == "disconnect-bot"
            [how] = bot.closes
            assert (how.clean, how.code, how.reason) == (True, 1000, "call ended")
            assert bot.faults == []

    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_a_bot_that_closes_by_itself(self, mode: str) -> None:
        async with dialled(mode, "runner.disconnect_grace=60", leaves_after=0.05) as it:
            phone, bot = await it.talk()
            phone.hangup()
            record = await settled(it, phone)
            assert record["outcome"] == "caller-hangup"
            assert [how.clean for how in bot.closes] == [True]
            assert bot.closes[0].reason != "call ended"

    @ensureDeferred
    async def test_last_words_of_a_bot_that_is_asked_to_end_are_read(self) -> None:
        """It may say much, and must not wait for somebody to read it."""
        async with dialled("direct", "bot_audio.max_queue=1", leaves_after=0.05) as it:
            phone, bot = await it.talk()
            bot.burst(bytes(16000 * 2 * 60), 16000)
            [call] = it.bridge.calls.running
            await phone.until(lambda: call.playout.depth > 1)
            phone.hangup()
            await settled(it, phone)
            assert [how.clean for how in bot.closes] == [True]

    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_a_close_that_is_never_answered(self, mode: str) -> None:
        async with dialled(mode, "websocket.close_timeout=0.2", answers_close=False) as it:
            phone, bot = await it.talk()
            phone.hangup()
            record = await settled(it, phone)
            assert record["outcome"] == "caller-hangup"
            await bot.until(lambda: not bot.sockets)
            assert [how.clean for how in bot.closes] == [False]

    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_the_bot_dies(self, mode: str) -> None:
        async with dialled(mode) as it:
            phone, bot = await it.talk()
            bot.burst(constant(LOUD, 60.0), EIGHT)
            await phone.until(lambda: heard(phone, LOUD))
            bot.die()
            record = await settled(it, phone)
            assert record["outcome"] == "bot-hangup"
            assert record["reason"].startswith("the bot's WebSocket closed: connection was closed")
            assert phone.ended == HUNG_UP

    @pytest.mark.parametrize("code", [1002, 1011, 4000])
    @ensureDeferred
    async def test_any_other_code_is_a_bot_that_was_lost(self, code: int) -> None:
        async with dialled("direct") as it:
            phone, bot = await it.talk()
            bot.close(code, "out of memory")
            record = await settled(it, phone)
            assert record["outcome"] == "bot-hangup"
            assert record["reason"] == f"the bot's WebSocket closed: out of memory ({code})"

    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_the_daemon_is_stopped_in_mid_call(self, mode: str) -> None:
        async with dialled(mode) as it:
            phone, bot = await it.talk()
            phone.start_audio()
        assert (phone.ended, phone.faults) == ("hangup received", [])
        assert bot.messages[-1]["type"] == "disconnect-bot"
        assert [how.clean for how in bot.closes] == [True]

    @ensureDeferred
    async def test_a_caller_who_does_not_wait(self) -> None:
        """Hung up within /start and within the handshake: no bot is left behind."""
        for options in (
            {"answers": ["slow"], "slow": 0.2},
            {"answers": ["hang"]},
            {"handshakes": ["hang"]},
        ):
            async with dialled("dial", **options) as it:
                phone = await it.dial()
                awaited = "knocks" if "handshakes" in options else "requests"
                await it.runner.until(lambda it=it, what=awaited: getattr(it.runner, what))
                async with freed(it, phone):
                    phone.hangup()
                    assert (await settled(it, phone))["outcome"] == "caller-hangup"
                await sleep(0.3)
                assert it.runner.sessions == []
                # What is left open is an HTTP connection that waits to be used again.
                await it.runner.until(lambda it=it: it.runner.open_connections <= 1)

    @ensureDeferred
    async def test_a_call_leaves_memory_without_a_garbage_collection(self) -> None:
        for mode in MODES:
            async with dialled(mode) as it:
                for bot_ends in (True, False):
                    phone, bot = await it.talk()
                    async with freed(it, phone):
                        (bot.close if bot_ends else phone.hangup)()
                        await settled(it, phone)
                        await bot.until(lambda bot=bot: not bot.sockets)


@asynccontextmanager
async def freed(it: Line, phone: StrictAsterisk) -> AsyncIterator[None]:
    """A call that ends inside leaves memory soon, without a garbage collection."""
    gc.collect()
    gc.disable()
    try:
        held = [weakref.ref(bot_side(it, phone).link), weakref.ref(it.bridge.calls.running[0])]
        yield
        for _ in range(100):
            if not any(each() for each in held):
                break
            await sleep(0.02)
        assert [each() for each in held] == [None, None]
    finally:
        gc.enable()


@ensureDeferred
async def test_a_bot_that_is_stalled_for_five_seconds() -> None:
    async with dialled("dial") as it:
        phone, bot = await speak(it)
        await bot.until(lambda: len(bot.audio) >= SECOND)
        bot.stall()
        queued = 0
        for _ in range(SECOND):
            await sleep(0.1)
            queued = max(queued, queue(it, phone).queued)
        assert unread(it, phone, bot) <= 25
        assert 140 <= queued <= AT_MOST
        await recovers(it, phone, bot)
        phone.hangup()
        record = await settled(it, phone)
        assert record["quality"]["caller_frames_dropped"] > 0
        assert bot.faults == []


@pytest.mark.parametrize("mode", MODES)
@ensureDeferred
async def test_garbage_of_every_kind(mode: str) -> None:
    """Text where binary is due among it."""
    async with dialled(mode) as it:
        phone, bot = await it.talk()
        with warnings() as said:
            bot.garbage()
            bot.send_audio(constant(LOUD), EIGHT)
            await phone.until(lambda: heard(phone, LOUD) == 25)
        assert [str(phone.call_id) in text for text in said] == [True]
        assert bot_side(it, phone).stats.bad_frames == 13
        assert bot.closes == []
        phone.hangup()
        assert (await settled(it, phone))["outcome"] == "caller-hangup"


@ensureDeferred
async def test_a_second_of_garbage_in_text_ends_nothing() -> None:
    async with dialled("direct") as it:
        phone, bot = await it.talk()
        for _ in range(200):
            bot.garbage("text")
        bot.send_audio(constant(LOUD), EIGHT)
        await phone.until(lambda: heard(phone, LOUD) == 25)
        assert it.record(phone)["quality"]["bot_frames_bad"] == 200
        phone.hangup()
        await settled(it, phone)
