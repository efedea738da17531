"""Hostile clients of the API, and connections that say nothing, on real sockets."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import treq
from pytest_twisted import ensureDeferred
from twisted.web.client import Agent

from pipecat_bridge.call.preparations import MAX_BYTES
from pipecat_bridge.net.limit import LEAST
from pipecat_bridge.web import channel
from pipecat_bridge.web.channel import MAX_BODY
from tests.doubles.asterisk import connect_asterisk
from tests.doubles.runner import RunnerDouble
from tests.e2e.harness import Line, line, reactor, sleep
from tests.e2e.test_drain import TWISTD, Daemon, daemon
from tests.e2e.workers_line import new_id, soon, workers_line

FEW = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *TWISTD]
GET = b"GET %s HTTP/1.1\r\nhost: a\r\n\r\n"
PUT = b"PUT /v1/calls/x HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"


class Client:
    """A plain socket. `data` is what has come; `closed` when no more will."""

    def __init__(self, port: int, said: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.data = b""
        self.closed = False
        if said:
            self.socket.send(said)

    def send(self, data: bytes) -> bool:
        """Send as much as the kernel takes; False if the connection is closed."""
        try:
            self.socket.send(data)
        except BlockingIOError:
            pass
        except ConnectionError:
            return False
        return True

    @property
    def gone(self) -> bool:
        """Whether the bridge has closed the connection."""
        self.read()
        return self.closed

    def read(self) -> bytes:
        """All that has come so far."""
        while not self.closed:
            try:
                piece = self.socket.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionError:
                piece = b""
            self.data += piece
            self.closed = not piece
        return self.data


@contextmanager
def clients() -> Iterator[Any]:
    """Makes clients, and closes them."""
    with ExitStack() as stack:

        def make(port: int, said: bytes = b"") -> Client:
            client = Client(port, said)
            stack.callback(client.socket.close)
            return client

        yield make


def api_port(it: Line) -> int:
    port: Any = it.bridge.api.port
    number: int = port.getHost().port
    return number


async def value(it: Daemon, series: str) -> float:
    """A metric of a daemon."""
    response = await treq.get(f"{it.api}/metrics", agent=Agent(reactor), persistent=False)
    found = re.search(rf"^{re.escape(series)} (\S+)$", await response.text(), re.M)
    assert found, series
    return float(found[1])


@ensureDeferred
async def test_a_body_of_400_mb_is_refused_at_its_headers() -> None:
    async with line() as it:
        with clients() as connect:
            client = connect(api_port(it), PUT % (400 << 20))
            await soon(lambda: b"}\n" in client.read())
            assert b"413" in client.data.partition(b"\r\n")[0]
            await soon(lambda: not client.send(bytes(1 << 20)))  # it is not read to its end


@ensureDeferred
async def test_a_flood_of_requests_on_one_connection_is_answered() -> None:
    async with line() as it:
        with clients() as connect:
            client = connect(api_port(it), GET % b"/healthz" * 1000)
            other = connect(api_port(it), GET % b"/readyz")
            await soon(lambda: b"}\n" in other.read())
            assert client.read().count(b"200 OK") < 1000, "the other one had its turn meanwhile"
            await soon(lambda: client.read().count(b"200 OK") == 1000)


@ensureDeferred
async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PATIENCE", 0.5)
    async with line() as it:
        with clients() as connect:
            sites = it.bridge.site.connections
            client = connect(api_port(it))
            await soon(lambda: len(sites) == 1)
            await soon(lambda: not client.send(GET % b"/metrics" * 100))
            await soon(lambda: len(sites) == 0)


@ensureDeferred
async def test_slow_clients_take_no_descriptors_of_phones() -> None:
    runner = RunnerDouble(reactor)
    try:
        async with daemon(f"runner.url={await runner.listen()}", command=FEW) as it:
            port = urlsplit(it.api).port
            with clients() as connect:
                slow = [connect(port, b"G") for _ in range(300)]
                slow += [connect(it.phones) for _ in range(300)]
                await soon(lambda: sum(each.gone for each in slow) >= 500)
                for _ in range(20):
                    phone = await connect_asterisk(reactor, it.phones)
                    await it.until(lambda phone=phone: f"{phone.call_id} call.ready" in it.text)
                kind = "pipecat_bridge_connections_dropped_total"
                assert await value(it, f'{kind}{{kind="api"}}') >= 300 - LEAST
                assert await value(it, f'{kind}{{kind="phone"}}') >= 300 - LEAST
                assert await value(it, "pipecat_bridge_descriptors_exhausted_total") == 0
                assert await value(it, "pipecat_bridge_calls") == 20
            lines = re.findall(r"- \d+ [\w ]+ closed: more than 50 at the same time", it.text)
            assert 2 <= len(lines) < 30, "not a line for each"
    finally:
        await runner.shut()


@ensureDeferred
async def test_sockets_that_do_not_finish_the_handshake_keep_no_bot_out() -> None:
    async with line() as it:
        server = it.bridge.runner.dialback_server
        listener: Any = it.bridge.runner.listener
        with clients() as connect:
            most = server.unopened._most()
            for _ in range(most + 40):
                connect(listener.port.getHost().port, b"GET / HT")
                await sleep(0)
            await soon(lambda: server.unopened.dropped >= 40)
            _, bot = await it.talk()
            assert bot.faults == []
            assert len(server.unopened) <= most


@ensureDeferred
async def test_prepared_calls_fill_no_memory_and_none_is_lost() -> None:
    async with line() as it:
        ids = [new_id() for _ in range(MAX_BYTES // 60_000 + 5)]
        data = {"metadata": {"x": "y" * 60_000}}
        statuses = [(await it.api("PUT", f"/v1/calls/{call_id}", json=data))[0] for call_id in ids]
        assert set(statuses) == {201, 503}
        assert statuses == sorted(statuses)
        for call_id, status in zip(ids, statuses, strict=True):
            shown, _ = await it.api("GET", f"/v1/calls/{call_id}")
            assert shown == (200 if status == 201 else 404)


@ensureDeferred
async def test_the_same_with_workers() -> None:
    async with workers_line() as it:
        path = f"/v1/calls/{new_id()}"
        status, answer = await it.api("PUT", path, data=bytes(MAX_BODY + 1))
        assert (status, answer["error"]) == (413, f"the body has more than {MAX_BODY} bytes")
        ids = [new_id() for _ in range(MAX_BYTES // 60_000 + 5)]
        data = {"metadata": {"x": "y" * 60_000}}
        statuses = [(await it.api("PUT", f"/v1/calls/{call_id}", json=data))[0] for call_id in ids]
        assert set(statuses) == {201, 503}
        assert statuses == sorted(statuses)
        assert (await it.api("GET", f"/v1/calls/{ids[0]}"))[1]["state"] == "prepared"


@ensureDeferred
async def test_a_page_of_the_api_itself_and_one_from_elsewhere_with_workers() -> None:
    async with workers_line() as it:
        path = f"/v1/calls/{new_id()}"
        for origin, site, expected in (
            (it.daemon.api, "same-origin", 201),
            ("http://evil.example", "cross-site", 403),
        ):
            headers = {"origin": origin, "sec-fetch-site": site}
            status, _ = await it.api("PUT", path, json={}, headers=headers)
            assert status == expected
