"""The runner as a process: its HTTP interface, the echo bot, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys

import numpy as np
import pytest

from pipecat_bridge.embedded.recogniser import transcribe

from .fake_bridge import FRAME, FakeBridge
from .runner_process import RunnerProcess

pytestmark = pytest.mark.pipecat
GOODBYE = "#JSGF V1.0; grammar g; public <goodbye> = thank you for calling goodbye | goodbye;"
MINUTE = FRAME * 50 * 60


def test_calls_are_started_counted_refused_twice_and_stopped() -> None:
    asyncio.run(_lifecycle())


async def _lifecycle() -> None:
    async with RunnerProcess() as runner, FakeBridge() as bridge:
        call = bridge.expect("c1")
        body = {"id": "c1", "ws_url": f"{bridge.url}/c1/ws?token=t"}
        assert (await runner.post("/run", json=body))[0] == 200
        await call.until(lambda: call.has("bot-ready"))
        assert call.directions == ["token=t"]
        assert await runner.get("/health") == {"status": "ok", "calls": 1}
        status, answer = await runner.post("/run", json=body)
        assert (status, answer["error"]) == (
            409,
            'the call "c1" is already running; stop it first',
        )
        assert await runner.post("/stop?id=c1") == (200, {"status": "ok", "id": "c1"})
        await call.until_closed()
        assert await runner.get("/health") == {"status": "ok", "calls": 0}
        assert (await runner.post("/stop?id=c1"))[0] == 404
        assert "pipecat" in await runner.get("/status")
    assert [line for line in runner.log if "call=c1" in line] == [
        "INFO    call=c1 started",
        "INFO    call=c1 ended: stopped over HTTP",
    ]


def test_bad_requests_get_one_sentence_and_start_nothing() -> None:
    asyncio.run(_bad_requests())


async def _bad_requests() -> None:
    env = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    good = {"id": "c1", "ws_url": "ws://127.0.0.1:9/c1/ws"}
    async with RunnerProcess(env=env) as runner:
        for options, status, sentence in (
            ({"data": "{"}, 400, "the body is not JSON"),
            ({"json": {"id": "c1"}}, 400, "ws_url is missing"),
            ({"json": {**good, "stt_type": "deepgram"}}, 424, "stt_type deepgram needs a key; set"),
            ({"json": {**good, "llm_type": "nix"}}, 400, 'llm_type is "nix"; expected'),
        ):
            answer = await runner.post("/run", **options)
            assert answer[0] == status
            assert answer[1]["error"].startswith(sentence)
        assert (await runner.post("/nowhere"))[0] == 404
        assert (await runner.get("/health"))["calls"] == 0


def test_a_bridge_that_is_not_there_ends_the_call_with_one_line() -> None:
    asyncio.run(_nobody_there())


async def _nobody_there() -> None:
    async with RunnerProcess() as runner:
        body = {"id": "c1", "ws_url": "ws://127.0.0.1:9/c1/ws?token=secret"}
        assert (await runner.post("/run", json=body))[0] == 200
        await runner.until_idle()
    log = "\n".join(runner.log)
    assert "call=c1 cannot dial ws://127.0.0.1:9/c1/ws: " in log
    assert "call=c1 ended: the bridge could not be reached" in log
    assert "secret" not in log


@pytest.mark.parametrize("sockets", [1, 2])
def test_the_echo_bot_returns_a_minute_of_sound_sample_for_sample(sockets: int) -> None:
    asyncio.run(_echo(sockets))


async def _echo(sockets: int) -> None:
    sound = np.random.default_rng(2).integers(-32768, 32768, MINUTE // 2, "<i2").tobytes()
    async with RunnerProcess("--sockets", str(sockets)) as runner, FakeBridge() as bridge:
        call = bridge.expect("c1")
        body = {"id": "c1", "ws_url": f"{bridge.url}/c1/ws", "llm_type": "echo"}
        assert (await runner.post("/run", json=body))[0] == 200
        await call.until(lambda: call.has("bot-ready"))
        assert call.directions == [[""], ["direction=input", "direction=output"]][sockets - 1]
        sizes = [FRAME, 42, FRAME, 276, 2]  # the odd ends of sound files among whole frames
        start = 0
        while start < len(sound):
            sizes.append(sizes.pop(0))
            await call.send_audio(sound[start : start + sizes[-1]])
            start += sizes[-1]
        await call.until(lambda: len(call.audio()) >= len(sound))
        assert call.audio() == sound
        assert {f.audio.sample_rate for f in call.frames if f.audio.audio} == {16000}
        assert (await runner.post("/stop?id=c1"))[0] == 200
        await call.until_closed(sockets)


def test_sound_that_comes_before_the_pipeline_has_started_is_not_lost() -> None:
    asyncio.run(_early_sound())


async def _early_sound() -> None:
    sound = np.random.default_rng(2).integers(-32768, 32768, FRAME * 25, "<i2").tobytes()
    async with RunnerProcess() as runner, FakeBridge() as bridge:
        call = bridge.expect("c1", at_once=sound)
        body = {"id": "c1", "ws_url": f"{bridge.url}/c1/ws", "bot": "echo"}
        assert (await runner.post("/run", json=body))[0] == 200
        await call.until(lambda: call.audio() == sound)
        await call.until(lambda: call.has("bot-ready"))


@pytest.mark.parametrize("sockets", [1, 2])
def test_the_goodbye_is_sent_to_its_end_before_the_bot_hangs_up(sockets: int) -> None:
    asyncio.run(_goodbye(sockets))


async def _goodbye(sockets: int) -> None:
    async with RunnerProcess() as runner, FakeBridge() as bridge:
        call = bridge.expect("c1")
        body = {"id": "c1", "ws_url": f"{bridge.url}/c1/ws", "sockets": sockets}
        assert (await runner.post("/run", json=body))[0] == 200
        await call.until(call.audio)
        await call.send_message("dtmf", {"buttons": ["9"]})
        await call.until(lambda: any(frame.text.text for frame in call.frames))
        greeted = len(call.frames)
        await call.until_closed(sockets)
        await runner.until_idle()
    assert transcribe(call.audio(greeted), 22050, GOODBYE) == "thank you for calling goodbye"
    assert runner.log[-1] == "INFO    call=c1 ended: the bot has ended the call"


def test_sigterm_closes_the_calls_and_exits_with_zero() -> None:
    asyncio.run(_ended_by(signal.SIGTERM))


def test_the_end_of_standard_input_does_the_same() -> None:
    asyncio.run(_ended_by(None))


async def _ended_by(number: signal.Signals | None) -> None:
    async with RunnerProcess(alone=number is not None) as runner, FakeBridge() as bridge:
        calls = [bridge.expect(name) for name in ("c1", "c2")]
        for name in bridge.calls:
            await runner.post("/run", json={"id": name, "ws_url": f"{bridge.url}/{name}/ws"})
        await asyncio.gather(*(call.until(call.audio) for call in calls))
        if number is None:
            assert runner.process.stdin is not None
            runner.process.stdin.close()
        else:
            runner.process.send_signal(number)
        assert await asyncio.wait_for(runner.process.wait(), 60) == 0
        await asyncio.gather(*(call.until_closed() for call in calls))
    ended = re.compile(r"call=c[12] ended: the runner is shutting down$")
    assert sum(bool(ended.search(line)) for line in runner.log) == 2
    assert len(runner.log) == 4, runner.log


def test_a_port_that_is_taken_ends_the_start_with_status_1() -> None:
    asyncio.run(_port_taken())


async def _port_taken() -> None:
    async with RunnerProcess() as runner:
        port = runner.url.rpartition(":")[2]
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipecat_bridge.embedded", "--port", port),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await second.communicate()
        assert (second.returncode, output) == (1, b"")
        assert f"cannot listen on 127.0.0.1:{port}: " in errors.decode()
