"""Recordings of calls, as they come out of the API."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import treq
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.web.client import Agent

from tests.doubles.asterisk import StrictAsterisk
from tests.e2e.harness import Line, in_folder, line, sleep
from tests.e2e.test_store import in_store

reactor: Any = _reactor

RATE = 8000


def recorded(folder: Path, when: str, *more: str) -> tuple[str, ...]:
    """The options of a daemon that records."""
    return (*in_folder(folder), f"recording.when={when}", "recording.format=wav", *more)


def tone(frequency: float, seconds: float) -> bytes:
    """PCM16 at the phone's rate."""
    times = np.arange(round(seconds * RATE)) / RATE
    wave_form = 8000 * np.sin(2 * np.pi * frequency * times)
    return np.asarray(wave_form, "<i2").tobytes()


def frames(pcm: bytes) -> list[bytes]:
    """Frames of 20 ms."""
    return [pcm[start : start + 320] for start in range(0, len(pcm), 320)]


async def fetch(it: Line, path: str, **headers: str) -> tuple[int, bytes, Any]:
    """Status, body and headers of a GET."""
    port = it.bridge.api.port.getHost().port
    response = await treq.get(
        f"http://127.0.0.1:{port}{path}", headers=headers, agent=Agent(reactor), persistent=False
    )
    return response.code, await response.content(), response.headers


async def sound(it: Line, phone: StrictAsterisk) -> tuple[np.ndarray[Any, Any], int]:
    """The recording of a call: samples of the caller and of the bot, and their rate."""
    await it.until(lambda: "recording.ready" in it.kinds(phone))
    status, body, headers = await fetch(it, f"/v1/calls/{phone.call_id}/recording")
    assert (status, headers.getRawHeaders("content-type")) == (200, ["audio/wav"])
    with wave.open(io.BytesIO(body)) as file:
        assert file.getnchannels() == 2
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        return samples, file.getframerate()


def loud(side: np.ndarray[Any, Any]) -> float:
    """Seconds of sound."""
    blocks = np.abs(side[: len(side) // 80 * 80].astype(float)).reshape(-1, 80).mean(axis=1)
    return float((blocks > 500).sum() / 100)


def frequency(side: np.ndarray[Any, Any], rate: int) -> float:
    """The loudest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(side.astype(float)))
    return float(np.argmax(spectrum) * rate / len(side))


@ensureDeferred
async def test_both_sides_of_a_call(tmp_path: Path) -> None:
    async with line(*recorded(tmp_path, "always")) as it:
        phone, bot = await it.talk()
        await phone.start_audio(frames(tone(440, 1.0)))
        bot.send_audio(tone(1000, 0.5), RATE)
        await sleep(1.0)
        phone.hangup()
        record = await it.ended(phone)
        samples, rate = await sound(it, phone)
        caller, other = samples[:, 0], samples[:, 1]
        assert rate == RATE
        assert abs(frequency(caller, rate) - 440) < 5
        assert abs(frequency(other, rate) - 1000) < 5
        assert abs(loud(caller) - 1.0) <= 0.1
        assert abs(loud(other) - 0.5) <= 0.05
        assert abs(len(samples) / rate - record["duration"]) <= 0.1
        await in_store(it)
        _, record = await it.api("GET", f"/v1/calls/{phone.call_id}")
        part = record["recording"]
        assert (part["state"], part["format"]) == ("ready", "wav")
        assert part["seconds"] == round(len(samples) / rate, 2)
        for span, wanted in (("bytes=0-3", b"RIFF"), ("bytes=8-11", b"WAVE")):
            status, body, headers = await fetch(
                it, f"/v1/calls/{phone.call_id}/recording", range=span
            )
            assert (status, body) == (206, wanted)
            shown = headers.getRawHeaders("content-range")[0]
            assert shown == f"{span.replace('=', ' ')}/{part['bytes']}"
        status, _, _ = await fetch(
            it, f"/v1/calls/{phone.call_id}/recording", range=f"bytes={part['bytes']}-"
        )
        assert status == 416
    async with line(*recorded(tmp_path, "always")) as it:  # after a restart
        _, again = await it.api("GET", f"/v1/calls/{phone.call_id}")
        assert again["recording"] == part
        status, body, _ = await fetch(it, f"/v1/calls/{phone.call_id}/recording")
        assert (status, len(body)) == (200, part["bytes"])
        await it.api("DELETE", f"/v1/calls/{phone.call_id}")
        await in_store(it)
        status, _, _ = await fetch(it, f"/v1/calls/{phone.call_id}/recording")
        assert (status, list((tmp_path / "recordings").glob("*.wav"))) == (404, [])


@ensureDeferred
async def test_on_demand_and_paused(tmp_path: Path) -> None:
    async with line(*recorded(tmp_path, "on_demand")) as it:
        phone, bot = await it.talk()
        path = f"/v1/calls/{phone.call_id}/recording"
        assert (await fetch(it, path))[0] == 404
        playing = phone.start_audio(frames(tone(440, 3.0)))
        status, answer = await it.api("POST", path, json={"action": "start"})
        assert (status, answer["recording"]["state"]) == (200, "running")
        status, _ = await it.api("POST", path, json={"action": "start"})
        assert status == 409
        await sleep(0.6)
        bot.rtvi("server-message", {"type": "record", "action": "pause"})
        await it.until(lambda: it.bridge.calls.get(str(phone.call_id)).recording.hides_keys)
        phone.dtmf("7")
        await it.until(lambda: "dtmf" in it.kinds(phone))
        await sleep(0.6)
        status, _ = await it.api("POST", path, json={"action": "resume"})
        assert status == 200
        await sleep(0.6)
        phone.dtmf("8")
        await it.until(lambda: it.kinds(phone).count("dtmf") == 2)
        status, answer = await it.api("POST", path, json={"action": "stop"})
        assert status == 200
        await playing
        phone.hangup()
        await it.ended(phone)
        samples, rate = await sound(it, phone)
        assert abs(len(samples) / rate - 1.2) <= 0.15
        _, told = await it.api("GET", f"/v1/calls/{phone.call_id}/events")
        keys = [each["data"]["digit"] for each in told["events"] if each["kind"] == "dtmf"]
        assert keys == ["?", "8"]


@ensureDeferred
async def test_the_announcement_comes_first(tmp_path: Path) -> None:
    announcement = tmp_path / "announcement.wav"
    with wave.open(str(announcement), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(tone(700, 0.5))
    async with line(*recorded(tmp_path, "always", f"recording.announce={announcement}")) as it:
        phone = await it.dial()
        playing = phone.start_audio(frames(tone(440, 1.5)))
        assert it.runner.asked("/run") == []
        await it.until(lambda: "call.ready" in it.kinds(phone))
        heard = np.frombuffer(phone.pcm(RATE), "<i2")
        assert abs(loud(heard) - 0.5) <= 0.06
        assert abs(frequency(heard, RATE) - 700) < 10
        await playing
        phone.hangup()
        record = await it.ended(phone)
        samples, rate = await sound(it, phone)
        assert loud(samples[:, 1]) == 0.0
        assert abs(record["duration"] - len(samples) / rate - 0.5) <= 0.15
        assert record["talk"]["bot_talk"] <= 0.02  # the announcement is not the bot's


@pytest.mark.parametrize(
    "asked", [{"json": {"metadata": {"record": True}}}, {"data": b"record=true"}]
)
@ensureDeferred
async def test_prepared_to_be_recorded(tmp_path: Path, asked: dict[str, Any]) -> None:
    async with line(*recorded(tmp_path, "on_demand")) as it:
        call_id = str(uuid4())
        await it.api("PUT", f"/v1/calls/{call_id}", **asked)
        phone, _ = await it.talk(call_id=UUID(call_id))
        assert "recording.started" in it.kinds(phone)
        await sleep(0.3)
        phone.hangup()
        await it.ended(phone)
        samples, rate = await sound(it, phone)
        assert len(samples) / rate >= 0.3


@ensureDeferred
async def test_keys_that_the_bot_tells_as_words(tmp_path: Path) -> None:
    async with line(*recorded(tmp_path, "on_demand")) as it:
        phone, bot = await it.talk()
        told = {"final": True, "timestamp": "", "user_id": ""}
        path = f"/v1/calls/{phone.call_id}/recording"
        status, _ = await it.api("POST", path, json={"action": "pause"})
        assert status == 200, "keys can be hidden though nothing is recorded"
        bot.rtvi("user-transcription", {**told, "text": "DTMF: 4111#"})
        bot.rtvi("server-message", "done")
        await it.until(lambda: "message" in it.kinds(phone))
        phone.dtmf("7")
        await it.until(lambda: "dtmf" in it.kinds(phone))
        status, _ = await it.api("POST", path, json={"action": "resume"})
        assert status == 200
        phone.hangup()
        record = await it.ended(phone)
        assert "recording" not in record
        _, transcript = await it.api("GET", f"/v1/calls/{phone.call_id}/transcript")
        assert [turn["text"] for turn in transcript["turns"]] == ["DTMF: ?????"]
        assert [each["data"]["digit"] for each in it.events(phone, "dtmf")] == ["?"]


@ensureDeferred
async def test_recordings_are_off(tmp_path: Path) -> None:
    async with line(*in_folder(tmp_path)) as it:
        phone, bot = await it.talk()
        path = f"/v1/calls/{phone.call_id}/recording"
        status, problem = await it.api("POST", path, json={"action": "start"})
        assert (status, "[recording] when" in problem["error"]) == (409, True)
        bot.rtvi("server-message", {"type": "record", "action": "start"})
        call = it.bridge.calls.get(str(phone.call_id))
        await it.until(lambda: call.warnings.counts["bad-command"])
        phone.hangup()
        assert "recording" not in await it.ended(phone)
