"""What happened to calls survives the daemon, and is told to whoever asks."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import treq
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent

from pipecat_bridge.web.stream import MOST
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.watch import Watched
from tests.e2e.harness import Line, in_folder, line
from tests.e2e.test_api import text

reactor: Any = _reactor

CALLER = "+4930123456"


async def stored(it: Line, phone: StrictAsterisk) -> dict[str, Any]:
    """The record of a call, from a daemon that has never seen it."""
    status, record = await it.api("GET", f"/v1/calls/{phone.call_id}")
    assert status == 200, record
    return dict(record)


async def said(it: Line, *turns: tuple[str, str], caller: str = "") -> StrictAsterisk:
    """A call that has ended, in which the bot has told what was said: speaker and words of each
    turn. It was prepared with the number of its `caller`."""
    call_id = str(uuid4())
    if caller:
        body = {"metadata": {"caller": caller}}
        status, _ = await it.api("PUT", f"/v1/calls/{call_id}", json=body)
        assert status == 201
    phone, bot = await it.talk(call_id=UUID(call_id))
    for speaker, spoken in turns:
        if speaker == "caller":
            bot.rtvi("user-transcription", {"text": spoken, "final": True})
        else:
            bot.rtvi("bot-started-speaking")
            bot.rtvi("bot-output", {"text": spoken, "spoken": True})
            bot.rtvi("bot-stopped-speaking")
            await it.until(lambda: it.kinds(phone)[-1] == "turn")
    if turns:
        bot.rtvi("server-message", "done")
        await it.until(lambda: "message" in it.kinds(phone))
    phone.hangup()
    await it.ended(phone)
    return phone


class Stream(Protocol, Watched):
    """Server-sent events: `events` has the members of each, by their names."""

    def __init__(self) -> None:
        self.text = ""
        self.ended = False

    @property
    def events(self) -> list[dict[str, str]]:
        """The events that are complete."""
        blocks = [each.splitlines() for each in self.text.split("\n\n")[:-1]]
        parted = [[line.split(": ", 1) for line in each if line[0] != ":"] for each in blocks]
        return [dict(each) for each in parted if each]

    def kinds(self, call_id: object) -> list[str]:
        """The kinds of the events of one call."""
        told = [json.loads(each["data"]) for each in self.events]
        return [each["kind"] for each in told if each["call_id"] == str(call_id)]

    def dataReceived(self, data: bytes) -> None:
        self.text += data.decode()
        self.changed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True
        self.changed()


async def listen(it: Line, query: str = "", last: str = "") -> Stream:
    """Listen to the events of a daemon, after the one with the id `last`."""
    port = it.bridge.api.port.getHost().port
    headers = {"last-event-id": last} if last else {}
    response = await treq.get(
        f"http://127.0.0.1:{port}/v1/events{query}",
        headers=headers,
        agent=Agent(reactor),
        persistent=False,
        unbuffered=True,
    )
    assert response.code == 200
    assert response.headers.getRawHeaders("content-type") == ["text/event-stream"]
    stream = Stream()
    response.deliverBody(stream)
    return stream


async def in_store(it: Line) -> None:
    """All that has happened is in the database."""
    assert it.bridge.store is not None
    await it.bridge.store.after()


@ensureDeferred
async def test_all_calls_are_known_after_a_restart(tmp_path: Path) -> None:
    turns = (("bot", "Good morning."), ("caller", "When do you open?"), ("bot", "At nine."))
    async with line(*in_folder(tmp_path)) as it:
        phone = await said(it, *turns, caller=CALLER)
        other = await said(it)
        before = it.record(phone)
    async with line(*in_folder(tmp_path)) as it:
        status, after = await it.api("GET", f"/v1/calls/{phone.call_id}")
        assert (status, after) == (200, before)
        _, told = await it.api("GET", f"/v1/calls/{phone.call_id}/transcript")
        assert [(each["speaker"], each["text"]) for each in told["turns"]] == list(turns)
        _, told = await it.api("GET", f"/v1/calls/{phone.call_id}/events")
        assert [each["kind"] for each in told["events"]].count("turn") == len(turns)
        _, page = await it.api("GET", "/v1/calls")
        ids = [each["id"] for each in page["calls"]]
        assert ids == [str(other.call_id), str(phone.call_id)]


@ensureDeferred
async def test_pages_and_filters(tmp_path: Path) -> None:
    async with line(*in_folder(tmp_path)) as it:
        phones = [await said(it, ("caller", f"number {n}"), caller=CALLER) for n in range(3)]
        last = await said(it)
        running, _ = await it.talk()
        await in_store(it)

        async def ids(query: str) -> list[str]:
            status, page = await it.api("GET", f"/v1/calls?{query}")
            assert status == 200, page
            return [each["id"] for each in page["calls"]]

        by_caller = [str(phone.call_id) for phone in reversed(phones)]
        assert await ids(f"caller={quote(CALLER)}") == by_caller
        assert await ids("text=NUMBER%201") == [str(phones[1].call_id)]
        assert await ids("outcome=caller-hangup&limit=1") == [str(last.call_id)]
        assert await ids("since=2100-01-01T00:00:00Z") == []
        _, first = await it.api("GET", "/v1/calls?limit=3")
        assert first["calls"][0]["state"] == "talking"
        _, second = await it.api("GET", f"/v1/calls?limit=3&cursor={first['cursor']}")
        both = [each["id"] for each in first["calls"] + second["calls"]]
        assert both == [str(running.call_id), str(last.call_id), *by_caller]
        assert "cursor" not in second
        status, body = await text(it, f"/v1/calls.csv?caller={quote(CALLER)}")
        rows = list(csv.DictReader(io.StringIO(body)))
        assert (status, [row["id"] for row in rows], rows[0]["caller"]) == (200, by_caller, CALLER)
        for query in ("limit=0", "since=monday", "cursor=x", "colour=red"):
            status, problem = await it.api("GET", f"/v1/calls?{query}")
            assert (status, "expected" in problem["error"]) == (400, True), query


@ensureDeferred
async def test_what_is_deleted_is_gone(tmp_path: Path) -> None:
    async with line(*in_folder(tmp_path)) as it:
        first, second = [await said(it, ("caller", "hello"), caller=CALLER) for _ in range(2)]
        status, _ = await it.api("DELETE", f"/v1/calls/{first.call_id}")
        assert status == 202
        await in_store(it)
        for part in ("", "/transcript", "/events"):
            status, _ = await it.api("GET", f"/v1/calls/{first.call_id}{part}")
            assert status == 404
        status, _ = await it.api("GET", f"/v1/calls/{second.call_id}")
        assert status == 200
        status, _ = await it.api("DELETE", f"/v1/calls?caller={quote(CALLER)}")
        assert status == 202
        await in_store(it)
        status, page = await it.api("GET", "/v1/calls")
        assert (status, page) == (200, {"calls": []})


@ensureDeferred
async def test_what_is_too_old_is_gone_from_memory_and_store(tmp_path: Path) -> None:
    async with line(*in_folder(tmp_path)) as it:
        phone = await said(it, ("bot", "hello"))
        store = it.bridge.store
        assert store is not None
        path = f"/v1/calls/{phone.call_id}"
        store.keep(0.0, 1e-9)  # days
        store._expire()
        await store.after()
        _, transcript = await it.api("GET", f"{path}/transcript")
        assert transcript["turns"] == []
        _, told = await it.api("GET", f"{path}/events")
        assert "turn" not in [each["kind"] for each in told["events"]]
        assert (await it.api("GET", "/v1/calls?text=hello"))[1]["calls"] == []
        store.keep(1e-9, 0.0)
        store._expire()
        await store.after()
        assert (await it.api("GET", path))[0] == 404


@ensureDeferred
async def test_a_call_that_runs_is_not_deleted(tmp_path: Path) -> None:
    async with line(*in_folder(tmp_path)) as it:
        phone, _ = await it.talk()
        status, problem = await it.api("DELETE", f"/v1/calls/{phone.call_id}")
        assert (status, "runs" in problem["error"]) == (409, True)


@ensureDeferred
async def test_events_are_pushed_and_go_on_where_they_were(tmp_path: Path) -> None:
    kinds = ["call.created", "call.answered", "call.ready", "turn", "message", "call.ended"]
    async with line(*in_folder(tmp_path)) as it:
        stream = await listen(it)
        phone = await said(it, ("bot", "hello"))
        await stream.until(lambda: len(stream.events) == len(kinds))
        assert [each["event"] for each in stream.events] == kinds
        record = json.loads(stream.events[-1]["data"])["data"]["record"]
        assert record == it.record(phone)
        last = stream.events[1]["id"]
        seen = stream.events
        stream.transport.loseConnection()
        missed = await said(it)
        stream = await listen(it, last=last)
        later = await said(it)
        await stream.until(lambda: stream.kinds(later.call_id)[-1:] == ["call.ended"])
        assert stream.events[: len(seen) - 2] == seen[2:]
        plain = [kind for kind in kinds if kind.startswith("call.")]
        assert (stream.kinds(missed.call_id), stream.kinds(later.call_id)) == (plain, plain)
        stream.transport.loseConnection()
    async with line(*in_folder(tmp_path)) as it:
        stream = await listen(it, f"?call={missed.call_id}&kind=call.ended", last=last)
        await stream.until(lambda: len(stream.events) == 1)
        assert stream.kinds(missed.call_id) == ["call.ended"]
        stream.transport.loseConnection()


@ensureDeferred
async def test_a_listener_that_does_not_read_costs_no_call(tmp_path: Path) -> None:
    async with line(*in_folder(tmp_path)) as it:
        stream = await listen(it)
        stream.transport.pauseProducing()
        phone, bot = await it.talk()
        for number in range(3 * MOST):
            bot.rtvi("server-message", {"n": number, "filler": "x" * 2000})
        await it.until(lambda: it.kinds(phone).count("message") == 3 * MOST)
        phone.hangup()
        record = await it.ended(phone)
        assert record["outcome"] == "caller-hangup"
        stream.transport.resumeProducing()
        await stream.until(lambda: stream.ended)
        assert len(stream.events) < 3 * MOST


@ensureDeferred
async def test_a_store_that_cannot_be_used(tmp_path: Path) -> None:
    async with line("store.url=postgresql://nobody@127.0.0.1:1/x", in_folder(tmp_path)[1]) as it:
        phone = await said(it)
        assert it.bridge.store is not None
        await it.until(lambda: it.bridge.store.fault)
        status, ready = await it.api("GET", "/readyz")
        assert (status, ready["ready"]) == (200, True)
        assert "the store is away" in ready["store"]
        status, _ = await it.api("GET", f"/v1/calls/{phone.call_id}")
        assert status == 200
        status, problem = await it.api("GET", "/v1/calls")
        assert (status, "cannot be read" in problem["error"]) == (503, True)
    async with line(*in_folder(tmp_path)) as it:  # the journal has it all
        await in_store(it)
        assert (await stored(it, phone))["outcome"] == "caller-hangup"
