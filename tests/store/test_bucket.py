"""Recordings go into the bucket of a real store, and come from there."""

from __future__ import annotations

import io
import wave
from pathlib import Path

from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from tests.doubles.asterisk import StrictAsterisk
from tests.e2e.harness import Line, line, sleep
from tests.e2e.test_api import metrics, text
from tests.e2e.test_recordings import fetch, frames, recorded, tone
from tests.store.swift import Swift


def remote(folder: Path, swift: Swift, *more: str) -> tuple[str, ...]:
    """The options of a daemon whose recordings go into the bucket."""
    settings = {
        "bucket": swift.bucket,
        "endpoint": swift.endpoint,
        "region": "us-east-1",
        "access_key": swift.access_key,
        "secret_key": swift.secret_key,
        "prefix": "2026/",
    }
    own = (f"s3.{key}={value}" for key, value in settings.items())
    return recorded(folder, "always", *own, *more)


async def called(it: Line) -> StrictAsterisk:
    """A call that has ended, and whose recording is complete."""
    phone, _ = await it.talk()
    await phone.start_audio(frames(tone(440, 0.5)))
    phone.hangup()
    await it.ended(phone)
    await it.until(lambda: "recording.ready" in it.kinds(phone))
    return phone


async def url_of(it: Line, phone: StrictAsterisk) -> str:
    """Where the recording is, once it is in the bucket."""
    while True:
        await sleep(0.05)
        _, record = await it.api("GET", f"/v1/calls/{phone.call_id}")
        if "url" in record["recording"]:
            return str(record["recording"]["url"])


@ensureDeferred
async def test_a_recording_in_the_bucket(tmp_path: Path, swift: Swift) -> None:
    settings = remote(tmp_path, swift)
    async with line(*settings) as it:
        phone = await called(it)
        url = await url_of(it, phone)
        [left] = (tmp_path / "recordings").glob(f"{phone.call_id}.*")
        assert left.suffix == ".s3"
        key = left.read_text()
        assert url == f"s3://{swift.bucket}/{key}"
        assert key.startswith("2026/")
    async with line(*settings) as it:  # whose memory is empty
        assert await url_of(it, phone) == url
        status, body, _ = await fetch(it, f"/v1/calls/{phone.call_id}/recording")  # redirected
        assert status == 200
        assert body == swift.read(key)
        with wave.open(io.BytesIO(body)) as file:
            assert file.getnframes() > 0.4 * file.getframerate()
        part = await fetch(it, f"/v1/calls/{phone.call_id}/recording", range="bytes=0-3")
        assert part[:2] == (206, b"RIFF")
        status, _ = await it.api("DELETE", f"/v1/calls/{phone.call_id}")
        assert status == 202
        while key in swift.keys:
            await sleep(0.1)
        status, _, _ = await fetch(it, f"/v1/calls/{phone.call_id}/recording")
        assert status in (404, 410)


async def failed_once(it: Line) -> None:
    """An attempt has failed."""
    while 'uploads_total{result="failed"} 0.0' in (await text(it, "/metrics"))[1]:
        await sleep(0.05)


@ensureDeferred
async def test_the_bucket_is_away(tmp_path: Path, swift: Swift) -> None:
    async with line(*remote(tmp_path, swift, "s3.secret_key=wrong")) as it:
        first = await called(it)
        await failed_once(it)
        assert (await metrics(it))["pipecat_bridge_uploads_waiting"] == 1
        status, body, _ = await fetch(it, f"/v1/calls/{first.call_id}/recording")
        assert (status, body[:4]) == (200, b"RIFF")  # from the disk
    swift.stop()
    async with line(*remote(tmp_path, swift)) as it:
        second = await called(it)
        await failed_once(it)
        await deferToThread(swift.start)
        for phone in (first, second):
            url = await url_of(it, phone)
            assert url.removeprefix(f"s3://{swift.bucket}/") in swift.keys
