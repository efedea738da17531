"""The Autobahn test suite finds no difference between the shortcut and Autobahn alone.

Each role of the bridge sends back what wstest sends: with the shortcut for binary messages, for
texts, without it, and with Autobahn alone. The stream is taken as it comes, and byte by byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal

import pytest
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.threads import deferToThread

from pipecat_bridge.options import WebSocketOptions
from pipecat_bridge.tools.load.bridge import free_ports
from tests.autobahn.conftest import MEASURED
from tests.autobahn.suite import EVERY, fuzz_server, fuzzing_server
from tests.doubles.echo import WAYS, Way, byte_by_byte, client, server

reactor: Any = _reactor

Delivery = Literal["as it comes", "byte by byte"]

SHORT: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.1.*", "6.2.*", "6.3.*", "6.5.*", "7.*")
"""Without much waiting, and without messages of megabytes."""

NOT_BY_BYTES: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
"""Group 9 has messages of 16 MiB."""

TOO_MANY_FRAMES: Final = {"9.3.1", "9.3.2", "9.3.3", "9.4.1", "9.4.2", "9.4.3"}
"""A message of 4 MiB in frames of up to 1 KiB, and an empty one at its end. The bridge takes 4096
frames (SECURITY.md)."""

_PATIENCE: Final = 30.0  # seconds
_LARGEST: Final = 1 << 26  # what group 9 needs
_OPTIONS: Final = WebSocketOptions(
    max_frame=_LARGEST, max_message=_LARGEST, ping_interval=1e6, handshake_timeout=_PATIENCE
)
_BEGIN_OF_MESSAGES: Final = b"\r\n\r\n"

Found = tuple[dict[Way, dict[str, str]], dict[Way, int]]
"""What the suite says of each case, and how many messages took the shortcut."""


def _cut_after_handshake(factory: Any) -> Any:
    """wstest sends its first frames in one piece with its answer to the handshake. Autobahn would
    take them with it, and the shortcut would see nothing of many cases."""

    class Cut(factory.protocol):  # type: ignore[misc]  # a class made from another
        _greeted = False

        def dataReceived(self, data: bytes) -> None:
            head, end, rest = data.partition(_BEGIN_OF_MESSAGES)
            if end and not self._greeted:
                self._greeted = True
                super().dataReceived(head + end)
                data = rest
            super().dataReceived(data)

    factory.protocol = Cut
    return factory


def _delivered(factory: Any, delivery: Delivery) -> Any:
    return byte_by_byte(factory) if delivery == "byte by byte" else factory


async def _as_server(delivery: Delivery, cases: tuple[str, ...]) -> Found:
    ports, taken, running = [], {}, []
    for way in WAYS:
        factory = _delivered(server(way, reactor, _OPTIONS), delivery)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        ports.append(port)
        url = f"ws://127.0.0.1:{port.getHost().port}"
        name = f"server-{delivery}-{way}".replace(" ", "-")
        running.append(deferToThread(fuzz_server, name, way, url, cases))
        taken[way] = getattr(factory, "link", None)
    try:
        results = await gatherResults(running, consumeErrors=True)
    finally:
        for port in ports:
            await port.stopListening()
    return dict(zip(WAYS, results, strict=True)), _counts(taken)


def _counts(links: dict[Way, Any]) -> dict[Way, int]:
    return {way: link.taken for way, link in links.items() if link is not None}


async def _as_client(delivery: Delivery, cases: tuple[str, ...]) -> Found:
    [port] = free_ports(1)
    with fuzzing_server(f"client-{delivery}".replace(" ", "-"), port, cases) as suite:
        running = [ensureDeferred(_one_client(way, delivery, port)) for way in WAYS]
        taken = await gatherResults(running, consumeErrors=True)
        results: dict[Any, dict[str, str]] = suite.results()
    return results, dict(zip(WAYS, taken, strict=True))


async def _one_client(way: Way, delivery: Delivery, port: int) -> int:
    """Run all cases. Returns how many messages took the shortcut."""
    url = f"ws://127.0.0.1:{port}"
    taken = 0
    for number in range(1, int(await _told(port, f"{url}/getCaseCount")) + 1):
        factory = client(way, reactor, _OPTIONS, f"{url}/runCase?case={number}&agent={way}")
        factory = _cut_after_handshake(_delivered(factory, delivery))
        protocol = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
        await protocol.is_closed
        taken += factory.link.taken if way != "autobahn" else 0
    await _told(port, f"{url}/updateReports?agent={way}")
    return taken


async def _told(port: int, url: str) -> str:
    """What the fuzzing server says at `url` before it closes."""
    told: list[str] = []

    class Ask(WebSocketClientProtocol):  # type: ignore[misc]  # Autobahn's is untyped
        def onMessage(self, payload: bytes, isBinary: bool) -> None:
            told.append(payload.decode())

    factory = WebSocketClientFactory(url, reactor=reactor)
    factory.protocol = Ask
    factory.setProtocolOptions(openHandshakeTimeout=_PATIENCE)
    protocol = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    await protocol.is_closed
    return "".join(told)


_ROLES: Final = {"server": _as_server, "client": _as_client}


def _differences(found: dict[str, str], alone: dict[str, str]) -> dict[str, tuple[str, str]]:
    cases = sorted({*found, *alone} - TOO_MANY_FRAMES)
    both = {case: (found.get(case, "none"), alone.get(case, "none")) for case in cases}
    return {case: said for case, said in both.items() if said[0] != said[1]}


@pytest.mark.parametrize("delivery", ["as it comes", "byte by byte"])
@pytest.mark.parametrize("role", _ROLES)
async def test_no_difference(
    role: str, delivery: Delivery, short: bool, record_property: Callable[[str, object], None]
) -> None:
    cases = SHORT if short else EVERY if delivery == "as it comes" else NOT_BY_BYTES
    results, taken = await _ROLES[role](delivery, cases)
    alone = results["autobahn"]
    for way, found in results.items():
        words = ", ".join(f"{count} {what}" for what, count in Counter(found.values()).items())
        line = f"{role}, {delivery}, {way}: {words}; shortcut: {taken.get(way, 0)} messages"
        record_property(MEASURED, line)
    assert alone
    assert "FAILED" not in alone.values()
    differences = {way: _differences(found, alone) for way, found in results.items()}
    assert differences == {way: {} for way in results}
    for found in (results[way] for way in WAYS if way != "autobahn"):
        assert {found[case] for case in TOO_MANY_FRAMES & set(found)} <= {"FAILED"}
    assert taken["off"] == 0
    assert min(taken["binary"], taken["text"]) > 0, taken
