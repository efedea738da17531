"""Clients that are no good at the API, and connections that say nothing: a call beside goes on."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

import pytest
import treq
from pytest_twisted import ensureDeferred
from twisted.internet.protocol import Protocol
from twisted.web.client import Agent

from pipecat_bridge.call.preparations import MAX_BYTES
from pipecat_bridge.net.limit import LEAST
from pipecat_bridge.web.channel import MAX_BODY
from tests.doubles.asterisk import connect_asterisk
from tests.doubles.runner import RunnerDouble
from tests.e2e.harness import line, reactor, sleep
from tests.e2e.test_drain import TWISTD, daemon

CALL = "b5f6a3c8-3f0e-4f3a-9d5e-2b8f0a1c4d7e"
FEW = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *TWISTD]


def connect(port: int, data: bytes = b"") -> socket.socket:
    """A connection that does not block, and what it says first."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    if data:
        sock.send(data)
    return sock


async def heard(sock: socket.socket, until: bytes = b"}\n") -> bytes:
    """What comes until `until`, or the end."""
    data = b""
    while until not in data:
        try:
            piece = sock.recv(65536)
        except BlockingIOError:
            await sleep(0.01)
            continue
        if not piece:
            break
        data += piece
    return data


def api_port(it: Any) -> int:
    port: int = it.bridge.api.port.getHost().port
    return port
