"""Two workers behind one port and one API: what is the same as with one process."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults

from pipecat_bridge.web.metrics import COUNTERS
from tests.doubles import protobuf
from tests.doubles.asterisk import StrictAsterisk
from tests.e2e.dialled import EIGHT, LOUD, constant
from tests.e2e.test_drain import TWIST, TWISTD
from tests.e2e.workers_line import WorkersLine, free_pair, new_id, soon, workers_line

reactor: Any = _reactor

ASYNCIO = [*TWISTD, "--reactor=asyncio"]


def ids(*phones: StrictAsterisk) -> set[str]:
    return {str(phone.call_id) for phone in phones}


def running(listed: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of a list that have not ended."""
    return [call for call in listed["calls"] if "ended_at" not in call]


@pytest.mark.parametrize("command", [TWISTD, TWIST, ASYNCIO], ids=["twistd", "twist", "asyncio"])
@ensureDeferred
async def test_calls_are_spread_and_the_api_sees_and_steers_them_all(command: list[str]) -> None:
    async with workers_line(command=command) as it:
        calls = [await it.talk() for _ in range(4)]
        phones = [phone for phone, _ in calls]
        assert Counter([await it.worker_of(phone) for phone in phones]) == {1: 2, 2: 2}
        ports = {await it.worker_of(phone): it.bot_port(phone) for phone in phones}
        assert len(set(ports.values())) == 2, "each worker has a dial-back address of its own"
        for phone in phones:
            assert it.bot_port(phone) == ports[await it.worker_of(phone)]

        status, listed = await it.api("GET", "/v1/calls")
        assert status == 200
        assert {call["id"] for call in running(listed)} == ids(*phones)
        created = [call["created_at"] for call in running(listed)]
        assert created == sorted(created, reverse=True), "the newest one first"
        for phone, bot in calls:
            path = f"/v1/calls/{phone.call_id}"
            status, record = await it.api("GET", path)
            assert (status, record["id"], record["state"]) == (200, str(phone.call_id), "talking")
            answer = await it.api("POST", f"{path}/messages", json={"text": "Hello."})
            assert answer == (202, {"id": str(phone.call_id), "sent": True})
            await bot.until(lambda bot=bot: any(m["type"] == "send-text" for m in bot.messages))

        for phone in phones[:2]:  # one on each
            status, record = await it.api("POST", f"/v1/calls/{phone.call_id}/stop")
            assert (status, record["outcome"]) == (200, "stopped")
            await phone.lost
            assert (phone.ended, phone.faults) == ("hangup received", [])
        calls[2][1].burst(bytes(range(1, 201)) * 16, 16000)
        calls[2][1].close()
        phones[3].hangup()
        await it.until_calls(0)
        status, listed = await it.api("GET", "/v1/calls")
        assert running(listed) == []
        assert [call["id"] for call in listed["calls"]] == [str(p.call_id) for p in phones[::-1]]
        outcomes = [
            (await it.api("GET", f"/v1/calls/{phone.call_id}/outcome"))[1]["outcome"]
            for phone in phones
        ]
        assert outcomes == ["stopped", "stopped", "completed", "caller-hangup"]


@ensureDeferred
async def test_a_prepared_call_may_come_at_once_and_is_told_what_was_prepared() -> None:
    async with workers_line() as it:

        async def place(number: int) -> StrictAsterisk:
            call_id = new_id()
            asked = {"metadata": {"number": str(number)}, "tts_type": "cartesia"}
            status, answer = await it.api("PUT", f"/v1/calls/{call_id}", json=asked)
            assert (status, answer["state"]) == (201, "prepared")
            return await it.dial(call_id=UUID(call_id))

        phones = [await place(number) for number in range(10)]
        await it.runner.until(lambda: len(it.runner.bots) == 10)
        told = {run.body["id"]: run.body for run in it.runner.asked("/run")}
        for number, phone in enumerate(phones):
            body = told[str(phone.call_id)]
            assert (body["metadata"], body["tts_type"]) == ({"number": str(number)}, "cartesia")
        assert Counter([await it.worker_of(phone) for phone in phones]) == {1: 5, 2: 5}

        prepared = [new_id() for _ in range(4)]
        for call_id in prepared:
            form = {"caller": "+4930123456"}
            status, _ = await it.api("POST", f"/v1/calls/{call_id.upper()}", data=form)
            assert status == 201
            shown = {"id": call_id, "state": "prepared", "metadata": form}
            assert await it.api("GET", f"/v1/calls/{call_id}") == (200, shown)
        status, answer = await it.api("PUT", f"/v1/calls/{phones[7].call_id}", json={})
        assert (status, answer["error"]) == (409, f"call {phones[7].call_id} is running already")


@ensureDeferred
async def test_one_uuid_is_one_call() -> None:
    async with workers_line() as it:
        (first, _), (second, _) = await it.on_each()
        for phone in (first, second):
            again = await it.dial(call_id=phone.call_id)
            await again.lost
            assert (again.ended, again.faults) == ("hangup received", [])
            assert phone.ended is None
        await it.said("a call with this UUID is running already", 2)
        # After its end it may come again, and is one call then too.
        first.hangup()
        await it.daemon.until(lambda: f"{first.call_id} call.ended" in it.daemon.text)
        third, _ = await it.talk(call_id=first.call_id)
        again = await it.dial(call_id=first.call_id)
        await again.lost
        _, listed = await it.api("GET", "/v1/calls")
        assert {call["id"] for call in running(listed)} == ids(second, third)
        _, record = await it.api("GET", f"/v1/calls/{first.call_id}")
        assert record["state"] == "talking"


@ensureDeferred
async def test_the_limit_of_calls_is_one_for_all() -> None:
    async with workers_line("calls.max_calls=3") as it:
        phones = [(await it.talk())[0] for _ in range(3)]
        full = "the limit of [calls] max_calls is reached"
        for _ in range(4):
            refused = await it.dial()
            await refused.lost
            assert (refused.ended, refused.faults) == ("hangup received", [])
        await it.said("3 calls run, the limit of [calls] max_calls", 4)
        assert await it.api("GET", "/readyz") == (503, {"ready": False, "reasons": [full]})
        assert (await it.metrics())['pipecat_bridge_calls_ended_total{outcome="rejected"}'] == 4
        for phone in phones:
            phone.hangup()
            await it.until_calls(2)
            await it.talk()
        # Many at once: no more than the limit are let in, however they are spread.
        _, listed = await it.api("GET", "/v1/calls")
        assert len(running(listed)) == 3
        for call in running(listed):
            await it.api("POST", f"/v1/calls/{call['id']}/stop")
        await it.until_calls(0)
        assert (await it.api("GET", "/readyz"))[0] == 200
        crowd = await gatherResults([Deferred.fromCoroutine(it.dial()) for _ in range(10)])
        await it.said("3 calls run, the limit", 4 + 7)
        await soon(lambda: sum(phone.ended is None for phone in crowd) == 3)


@ensureDeferred
async def test_metrics_add_up() -> None:
    async with workers_line() as it:
        calls = await it.on_each()
        for phone, bot in calls:
            phone.start_audio()
            bot.send_audio(constant(LOUD), EIGHT)
            bot.send(protobuf.encode_rtvi("bot-interrupted"))
            await bot.until(lambda bot=bot: len(bot.audio) > 20)
        before = await it.metrics()
        assert before["pipecat_bridge_calls"] == 2
        assert before["pipecat_bridge_workers"] == 2
        assert before['pipecat_bridge_worker_calls{worker="1"}'] == 1
        assert before["pipecat_bridge_interruptions_total"] == 2
        assert before["pipecat_bridge_caller_frames_total"] >= 20
        for each in ("1", "2", "supervisor"):
            assert before[f'process_cpu_seconds_total{{worker="{each}"}}'] > 0
        for phone, _ in calls:
            phone.hangup()
        await it.until_calls(0)
        records = [(await it.api("GET", f"/v1/calls/{p.call_id}"))[1]["quality"] for p, _ in calls]
        after = await it.metrics()
        for name in COUNTERS:
            metric = f"pipecat_bridge_{name}_total"
            assert after[metric] == sum(record[name] for record in records), name
        assert after['pipecat_bridge_calls_ended_total{outcome="caller-hangup"}'] == 2
        starts = f'runner_starts_total{{result="ready",runner="{it.runner.url}"}}'
        assert after[f"pipecat_bridge_{starts}"] == 2
        assert after["pipecat_bridge_loop_lag_seconds_count"] > 0
        response = await it.request(
            "GET", "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
        )
        assert (await response.text()).endswith("# EOF\n")


@ensureDeferred
async def test_what_is_wrong_is_said_as_by_one_process() -> None:
    async with workers_line() as it:
        nobody = f"/v1/calls/{new_id()}"
        assert (await it.api("GET", nobody))[0] == 404
        assert (await it.api("POST", f"{nobody}/stop"))[0] == 404
        assert (await it.api("GET", "/nothing"))[0] == 404
        assert (await it.api("GET", "/v1/calls/%C3%A9%20%22?x=%00"))[0] == 404
        assert (await it.api("DELETE", "/v1/calls"))[0] == 400, "not all calls at once"
        status, answer = await it.api("PATCH", "/v1/calls")
        assert (status, answer["error"]) == (405, "PATCH is not allowed here: use DELETE, GET")
        response = await it.request("PATCH", nobody)
        allowed = response.headers.getRawHeaders("allow")
        assert (response.code, allowed) == (405, ["DELETE, GET, POST, PUT"])
        status, answer = await it.api("PUT", nobody, data=b"x" * (2 << 20))
        assert (status, answer["error"]) == (413, "the body has more than 65536 bytes")
        status, answer = await it.api("PUT", nobody, data=b'{"llm_typ": 1}')
        assert status == 400
        assert answer["error"].startswith('unknown key "llm_typ"')
        response = await it.request("GET", f"{nobody}/variables/TOPIC")
        assert (response.code, await response.content()) == (404, b"")
        response = await it.request("HEAD", "/v1/calls")
        assert (response.code, await response.content()) == (200, b"")
        assert await it.api("GET", "/healthz") == (200, {"status": "ok"})
        assert await it.api("GET", "/readyz") == (200, {"ready": True, "reasons": []})


@ensureDeferred
async def test_ports_and_addresses_of_the_workers() -> None:
    port = free_pair()
    listen = f"runner.listen=tcp:{port}:interface=127.0.0.1"
    template = "runner.dialback_url=ws://localhost:{port}/of/{worker}"
    async with workers_line(listen, template) as it:
        phone = await it.dial()
        await it.runner.until(lambda: it.runner.asked("/run"))
        worker = await it.worker_of(phone)
        url = it.runner.asked("/run")[0].body["ws_url"]
        assert url.startswith(f"ws://localhost:{port + worker - 1}/of/{worker}/{phone.call_id}/ws/")


@ensureDeferred
async def test_phones_behind_a_proxy() -> None:
    async with workers_line("audiosocket.listen=haproxy:tcp:0:interface=127.0.0.1") as it:
        header = b"PROXY TCP4 10.0.0.7 10.0.0.1 4711 9092\r\n"
        v2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12)
        phones = []
        for first, rest in ((header, b""), (header[:20], header[20:]), (v2, b""), (v2[:5], v2[5:])):
            call_id = UUID(new_id())
            phone = await it.dial(call_id=call_id, handshake=first)
            phone.send(rest + b"\x01\x00\x10" + call_id.bytes)
            phones.append(phone)
        await it.until_calls(4)
        _, listed = await it.api("GET", "/v1/calls")
        assert {call["id"] for call in running(listed)} == ids(*phones)
        for phone in phones:
            await phone.until(lambda phone=phone: len(phone.frames) > 5)
            assert phone.faults == []
        without = await it.dial()
        await without.lost
        assert (await it.metrics())["pipecat_bridge_calls"] == 4


@ensureDeferred
async def test_connections_that_are_no_calls() -> None:
    async with workers_line("audiosocket.handshake_timeout=1") as it:
        silent = await it.dial(handshake=b"")
        half = await it.dial(handshake=b"\x01\x00\x10" + bytes(7))
        for phone in (silent, half):
            await phone.lost
            assert phone.ended == "hangup received"
        await it.said("no call UUID within 1 s", 2)
        wrong = await it.dial(handshake=b"GET / HTTP/1.1\r\n\r\n")
        await wrong.lost
        await it.said("0x47 where the call's UUID (kind 0x01) is expected")
        gone = await it.dial(handshake=b"")
        gone.hangup()
        reset = await it.dial()
        reset.reset()
        await it.until_calls(0)
        phone, _ = await it.talk()
        assert phone.ended is None
        metrics = await it.metrics()
        assert metrics["pipecat_bridge_phones_without_worker_total"] == 2
        assert metrics["pipecat_bridge_calls"] == 1


@ensureDeferred
async def test_networks_that_are_not_allowed() -> None:
    async with workers_line('audiosocket.allow=["10.0.0.0/8"]') as it:
        phone = await it.dial(handshake=b"")
        await phone.lost  # at once, and not when it has not said its UUID in time
        await it.said("connection from 127.0.0.1 closed: not in [audiosocket] allow")
        metrics = await it.metrics()
        assert metrics["pipecat_bridge_phones_refused_total"] == 1
        assert metrics["pipecat_bridge_phones_without_worker_total"] == 0


@ensureDeferred
async def test_the_supervisor_keeps_nothing_of_a_call() -> None:
    async with workers_line() as it:
        await _some_calls(it, 3)
        before = await it.metrics()
        await _some_calls(it, 20)
        after = await it.metrics()
        for process in ("1", "2", "supervisor"):
            name = f'process_open_fds{{worker="{process}"}}'
            assert after[name] < before[name] + 10, process


async def _some_calls(it: WorkersLine, count: int) -> None:
    for _ in range(count):
        call_id = new_id()
        await it.api("PUT", f"/v1/calls/{call_id}", json={})
        phone, _ = await it.talk(call_id=UUID(call_id))
        phone.hangup()
    await it.until_calls(0)
    await soon(lambda: not any(bot.sockets for bot in it.runner.bots.values()))


@ensureDeferred
async def test_a_caller_is_forgotten_by_all_workers() -> None:
    async with workers_line() as it:
        phones = []
        for _ in range(2):
            call_id = new_id()
            await it.api("PUT", f"/v1/calls/{call_id}", json={"metadata": {"caller": "+49301"}})
            phones.append((await it.talk(call_id=UUID(call_id)))[0])
        status, _ = await it.api("DELETE", "/v1/calls?caller=%2B49301")
        assert status == 409
        for phone in phones:
            phone.hangup()
        await it.until_calls(0)
        status, answer = await it.api("DELETE", "/v1/calls?caller=%2B49301")
        assert (status, set(answer["deleted"])) == (202, ids(*phones))
        for phone in phones:
            assert (await it.api("GET", f"/v1/calls/{phone.call_id}"))[0] == 404


@ensureDeferred
async def test_files_of_events_are_opened_again(tmp_path: Path) -> None:
    """By each worker, soon after the signal."""
    lines = tmp_path / "events"
    async with workers_line(f"store.events_file={lines}") as it:
        for phone, _ in await it.on_each():
            phone.hangup()
        await it.until_calls(0)
        lines.rename(tmp_path / "moved")
        it.daemon.process.signalProcess("HUP")
        await it.said("SIGHUP: files are opened again")
        written: set[str] = set()
        while written != {"1", "2"}:
            for phone, _ in await it.on_each():
                phone.hangup()
            await it.until_calls(0)
            text = lines.read_text() if lines.exists() else ""
            written = set(re.findall(r'"node":"[^"]*/([12])"', text))
