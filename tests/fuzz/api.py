"""Any requests to the API, in memory."""

from __future__ import annotations

import json
from typing import Any, Final

from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.web.api import api_site
from pipecat_bridge.web.metrics import CallCollector, registry
from tests.fuzz.harness import FindingError, LenientTransport, pieces, settle
from tests.unit.sides import Exchange

_CALL: Final = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
_OTHER: Final = "8b2b1a2e-5f0b-4ea5-9f0c-0d5ad6c1b1a7"

_HEADS: Final = (
    f"PUT /v1/calls/{_OTHER}",
    f"POST /v1/calls/{_OTHER}",
    f"POST /v1/calls/{_CALL}/messages",
    f"POST /v1/calls/{_CALL}/stop",
    f"GET /v1/calls/{_CALL}",
)
"""Requests whose body is made up. Any further number: the whole request is."""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _raw(text: str, body: bytes = b"") -> bytes:
    return b"\x07\0" + text.replace("\n", "\r\n").encode() + body


SEEDS: Final = (
    b"\0\0" + _json({"llm_type": "x", "llm_messages": [{}], "metadata": {"caller": "1"}}),
    b"\1\0caller=100&called=200&llm_messages=%5B%5D&tts_voice_id=+49",
    b"\2\0" + _json({"text": "x", "run_immediately": False, "audio_response": True}),
    b"\3\5x",
    # As much as there may be of it.
    b"\0\0" + b"&".join(b"%d=1" % number for number in range(9_000)),
    b"\0\0" + b'{"metadata": {"x": [' + b"1," * 30_000 + b"1]}}",
    b"\0\0" + b"[" * 60_000,
    b"\2\0" + b'{"text": "' + b"\\u00e9" * 10_000 + b'"}',
    _raw(f"GET /v1/calls/{_CALL}/variables/A HTTP/1.1\nHost: x\n\n"),
    _raw("GET /metrics HTTP/1.1\nHost: x\nAccept: application/openmetrics-text\n\n"),
    _raw("HEAD /readyz HTTP/1.0\nHost: 127.0.0.1:8080\n\n"),
    _raw("POST /v1/calls/x HTTP/1.1\nHost: x\nOrigin: http://x\nSec-Fetch-Site: none\n\n"),
    _raw("PUT /v1/calls/x HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n3\n{}\n\n0\n\n"),
    b"\7\0GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: \xbb\r\n\r\n",
    b"\7\0GET / HTTP/1.1\r\nHost: \xbb\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nOrigin: http://[\r\n\r\n",
    b"\7\0POST / HTTP/1.1\r\nHost: x\r\nOrigin: \xbb\r\n\r\n",
    _raw("GET http://evil/%ff HTTP/1.1\nHost: evil.example\nConnection: close\n\n"),
)


def _request(first: int, body: bytes) -> bytes:
    if first >= len(_HEADS):
        return body
    return (
        f"{_HEADS[first]} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def one_input(data: bytes) -> None:
    """The first byte: which request. The second: its cuts. The rest: the body, or all of it."""
    first, seed, rest = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
    exchange = Exchange()
    exchange.talk(_CALL)
    clock = exchange.clock
    metrics = registry(CallCollector(exchange.calls))
    site = api_site(clock, exchange.calls, None, lambda: succeed(True), Descriptors(clock), metrics)
    channel: Any = site.buildProtocol(None)
    transport = LenientTransport()
    channel.makeConnection(transport)
    for piece in pieces(_request(first[0] % 8, rest), seed[0]):
        if transport.disconnecting:
            break
        channel.dataReceived(piece)
        settle(clock)
    answered = transport.value()
    channel.connectionLost(Failure(ConnectionDone()))
    if b"HTTP/1.1 500" in answered or b"HTTP/1.0 500" in answered:
        raise FindingError(f"answered with {answered[:300]!r}")
