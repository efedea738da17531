"""A daemon of its own whose process is killed, and whose database goes away."""

from __future__ import annotations

import signal
import wave
from collections import Counter
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import treq
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.web.client import Agent

from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.doubles.runner import RunnerDouble
from tests.e2e.test_drain import Daemon, daemon
from tests.e2e.test_webhooks import Receiver
from tests.store.postgresql import PostgreSQL

reactor: Any = _reactor

CALLS = 20

SECONDS = 3.0
"""Of audio in each call before the daemon is killed."""


async def ask(it: Daemon, path: str) -> Any:
    """The API's answer."""
    response = await treq.get(f"{it.api}{path}", agent=Agent(reactor), persistent=False)
    assert response.code == 200, path
    return await response.json()


async def calls_with_words(it: Daemon, runner: RunnerDouble) -> list[StrictAsterisk]:
    """Calls whose bots have told a turn."""
    phones = [await connect_asterisk(reactor, it.phones) for _ in range(CALLS)]
    for phone in phones:
        call_id = str(phone.call_id)
        await runner.until(lambda call_id=call_id: call_id in runner.bots)
        bot = runner.bots[call_id]
        await runner.until(lambda bot=bot: bot.ready_sent)
        bot.rtvi("bot-started-speaking")
        bot.rtvi("bot-output", {"text": f"hello {call_id}", "spoken": True})
        bot.rtvi("bot-stopped-speaking")
    return phones


async def kinds(it: Daemon, phone: StrictAsterisk) -> list[str]:
    """The kinds of events of a call, without its end."""
    told = await ask(it, f"/v1/calls/{phone.call_id}/events")
    return [each["kind"] for each in told["events"]]


def last_second(path: Path) -> bool:
    """Whether something is heard in the last second of the caller's side."""
    with wave.open(str(path)) as file:
        rate = file.getframerate()
        file.setpos(max(0, file.getnframes() - rate))
        samples = np.frombuffer(file.readframes(rate), "<i2").reshape(-1, 2)
    return bool(np.abs(samples[:, 0]).max() > 1000)


@ensureDeferred
async def test_a_daemon_that_is_killed(tmp_path: Path) -> None:
    runner = RunnerDouble(reactor)
    url = await runner.listen()
    lines = tmp_path / "events"
    receiver = Receiver()
    settings = (
        receiver.hook,
        f"runner.url={url}",
        "store.url=",
        f"store.directory={tmp_path}",
        f"store.events_file={lines}",
        "recording.when=always",
        "recording.format=wav",
    )
    async with daemon(*settings) as it:
        phones = await calls_with_words(it, runner)
        for phone in phones:
            phone.start_audio(repeat(b"\x00\x20" * 80 + b"\x00\xe0" * 80))
        for phone in phones:
            while "turn" not in await kinds(it, phone):
                pass
        await deferLater(reactor, SECONDS)
        promised = {str(phone.call_id): await kinds(it, phone) for phone in phones}
        while lines.read_bytes().count(b'"kind":"turn"') < CALLS:
            pass  # written after the journal was told
        talked = {phone.call_id: len(phone.frames) * 0.02 for phone in phones}
        it.process.signalProcess(signal.SIGKILL)
        await it.ended
    async with daemon(*settings) as it:
        for phone in phones:
            record = await ask(it, f"/v1/calls/{phone.call_id}")
            while "outcome" not in record:  # the store is opened while the API answers already
                record = await ask(it, f"/v1/calls/{phone.call_id}")
            assert (record["outcome"], record["ended_by"]) == ("lost", "bridge")
            assert record["ready_at"] <= record["ended_at"]
            assert record["transcript"]["turns"] == 1
            told = await ask(it, f"/v1/calls/{phone.call_id}/transcript")
            assert [each["text"] for each in told["turns"]] == [f"hello {phone.call_id}"]
            told = Counter(await kinds(it, phone))
            del told["recording.ready"]  # which is new
            assert told == Counter(promised[str(phone.call_id)])
            while "recording.ready" not in await kinds(it, phone):
                pass
            recording = (await ask(it, f"/v1/calls/{phone.call_id}"))["recording"]
            assert (
                talked[phone.call_id] - 1.2 <= recording["seconds"] <= talked[phone.call_id] + 0.1
            )
            [path] = (tmp_path / "recordings").glob(f"{phone.call_id}.*.wav")
            assert last_second(path)
        page = await ask(it, "/v1/calls?outcome=lost")
        assert len(page["calls"]) == CALLS
        every = {str(phone.call_id): [*await kinds(it, phone), "call.ended"] for phone in phones}
        await receiver.until(lambda: len(receiver.got) >= sum(map(len, every.values())))
        for phone in phones:
            call_id = str(phone.call_id)
            assert Counter(receiver.kinds(call_id)) == Counter(every[call_id])
        assert len({each["id"] for each in receiver.got}) == len(receiver.got)
    await receiver.port.stopListening()
    await runner.shut()


@ensureDeferred
async def test_a_database_that_is_stopped(tmp_path: Path, postgresql: PostgreSQL) -> None:
    runner = RunnerDouble(reactor)
    url = await runner.listen()
    settings = (
        f"runner.url={url}",
        f"store.url={postgresql.url}",
        f"store.directory={tmp_path}",
    )
    async with daemon(*settings) as it:
        before = await calls_with_words(it, runner)
        postgresql.stop()
        during = await calls_with_words(it, runner)
        for phone in before + during:
            assert phone.ended is None
            phone.hangup()
        await it.until(lambda: it.text.count("call.ended") == 2 * CALLS)
        ready = await ask(it, "/readyz")
        assert (ready["ready"], "the store is away" in ready["store"]) == (True, True)
        postgresql.start()
        while (await ask(it, "/readyz"))["store"] != "ok":
            pass
        ids: list[str] = []
        cursor = ""
        while True:
            page = await ask(it, f"/v1/calls?limit=15{cursor}")
            ids += [each["id"] for each in page["calls"]]
            assert {each["outcome"] for each in page["calls"]} == {"caller-hangup"}
            if "cursor" not in page:
                break
            cursor = f"&cursor={page['cursor']}"
        assert sorted(ids) == sorted(str(phone.call_id) for phone in before + during)
    await runner.shut()
