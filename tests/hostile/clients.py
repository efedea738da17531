"""Hostile clients of HTTP, at the API's port and at the port for bots."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from uuid import UUID, uuid4

from tests.hostile.peer import Attack, OverError, table

PEERS, hostile = table("client")


def request(method: str, target: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {target} HTTP/1.1", f"Host: {host}", *headers, "", "")).encode()


def put(number: int, body: bytes) -> bytes:
    """A request that prepares a call."""
    target = f"/v1/calls/{UUID(int=number, version=4)}"
    return request("PUT", target, f"Content-Length: {len(body)}") + body


def _slow(attack: Attack, port: int) -> None:
    wires = [attack.wire(port) for _ in range(300)]
    for byte in itertools.cycle(b"GET / HTTP/1.1\r\nX-Header: x\r\n"):
        for number, wire in enumerate(wires):
            try:
                wire.send(bytes((byte,)))
            except OSError:
                wires[number] = attack.wire(port)


@hostile
def headers_byte_by_byte(attack: Attack) -> None:
    """300 connections to the API whose headers come byte by byte."""
    _slow(attack, attack.ports.api)


@hostile(also=True)
def headers_byte_by_byte_of_bots(attack: Attack) -> None:
    """300 connections to the port for bots whose headers come byte by byte."""
    _slow(attack, attack.ports.dialback)


def _long_body(attack: Attack, port: int, begun: bytes, megabyte: bytes) -> None:
    client = attack.wire(port)
    client.drain()
    client.send(begun)
    for _ in range(400):
        client.send(megabyte)


@hostile
def long_body(attack: Attack) -> None:
    """A body of 400 MB, with its length."""
    call = request("PUT", f"/v1/calls/{uuid4()}", "Content-Length: 400000000")
    _long_body(attack, attack.ports.api, call, bytes(1_000_000))


@hostile
def long_body_in_chunks(attack: Attack) -> None:
    """A body of 400 MB, in chunks."""
    call = request("PUT", f"/v1/calls/{uuid4()}", "Transfer-Encoding: chunked")
    _long_body(attack, attack.ports.api, call, b"f4240\r\n" + bytes(1_000_000) + b"\r\n")


@hostile(also=True)
def tiny_chunks(attack: Attack) -> None:
    """A body in chunks of one byte."""
    client = attack.wire(attack.ports.api)
    client.drain()
    client.send(request("PUT", f"/v1/calls/{uuid4()}", "Transfer-Encoding: chunked"))
    client.flood(b"1\r\nx\r\n" * 10_000)


@hostile(also=True)
def long_body_to_bots(attack: Attack) -> None:
    """A body of 400 MB to the port for bots."""
    begun = request("POST", "/x/ws", "Content-Length: 400000000")
    _long_body(attack, attack.ports.dialback, begun, bytes(1_000_000))


@hostile
def pipelined(attack: Attack) -> None:
    """1,000 requests for the list of calls in one piece, again and again."""
    client = attack.wire(attack.ports.api)
    client.drain()
    client.flood(request("GET", "/v1/calls") * 1000)


@hostile
def pipelined_metrics(attack: Attack) -> None:
    """1,000 requests for the metrics in one piece, again and again."""
    client = attack.wire(attack.ports.api)
    client.drain()
    client.flood(request("GET", "/metrics") * 1000)


@hostile(also=True)
def pipelined_to_bots(attack: Attack) -> None:
    """1,000 requests to the port for bots in one piece, again and again."""
    client = attack.wire(attack.ports.dialback)
    client.drain()
    client.flood(request("GET", "/x") * 1000)


@hostile
def answers_unread(attack: Attack) -> None:
    """Clients that ask for the list of calls and read no answer, on 50 connections."""
    clients = [attack.wire(attack.ports.api) for _ in range(50)]
    asked = request("GET", "/v1/calls") * 100

    def ask(number: int) -> None:
        with suppress(OSError, OverError):
            clients[number].flood(asked)

    for number in range(1, len(clients)):
        threading.Thread(target=ask, args=(number,), daemon=True).start()
    clients[0].flood(asked)


@hostile
def paths_of_thousands_of_parts(attack: Attack) -> None:
    """Paths of 15,000 slashes, for nothing and for a call."""
    client = attack.wire(attack.ports.api)
    client.drain()
    slashes = "/" * 15_000
    client.flood(request("GET", slashes) + request("GET", f"/v1/calls/x{slashes}"))


@hostile
def formats_that_are_none(attack: Attack) -> None:
    """Requests for the metrics in formats that do not exist."""
    client = attack.wire(attack.ports.api)
    client.drain()
    accept = "Accept: application/openmetrics-text;version=a"
    client.flood(request("GET", "/metrics", accept) * 100)


@hostile
def preparations(attack: Attack) -> None:
    """743 calls prepared with 1 MB each."""
    client = attack.wire(attack.ports.api)
    client.drain()
    body = b'{"metadata": {"x": "' + b"x" * 1_000_000 + b'"}}'
    for number in range(743):
        client.send(put(number, body))


@hostile(also=True)
def small_preparations(attack: Attack) -> None:
    """Calls prepared with little, as fast as it goes."""
    client = attack.wire(attack.ports.api)
    client.drain()
    for number in itertools.count():
        client.send(put(number, b'{"metadata": {"x": "' + b"x" * 50 + b'"}}'))


@hostile
def numbers_to_prepare(attack: Attack) -> None:
    """Bodies of 1 MB of JSON numbers, and of form fields."""
    client = attack.wire(attack.ports.api)
    client.drain()
    numbers = b'{"metadata": {"x": [' + b"1," * 500_000 + b"1]}}"
    fields = b"&".join(b"n%d=1" % number for number in range(100_000))
    for number in itertools.count():
        client.send(put(number, numbers) + put(number, fields))


@hostile
def foreign_names(attack: Attack) -> None:
    """Requests with a foreign Host, and with a foreign Origin."""
    client = attack.wire(attack.ports.api)
    client.drain()
    foreign = request("GET", "/v1/calls", host="evil.example")
    posted = ("Origin: http://evil.example", "Content-Length: 3")
    client.flood((foreign + request("POST", f"/v1/calls/{uuid4()}", *posted) + b"a=b") * 100)


@hostile(also=True)
def connections(attack: Attack) -> None:
    """Connections to all three ports that close at once."""
    while not attack.over():
        for port in attack.ports[:3]:
            attack.wire(int(port)).close()
