"""As much of an ARI application as it takes to put a caller and a bot into one bridge."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.web.client import Agent, HTTPConnectionPool

APPLICATION = "pipecat"
USER, PASSWORD = "pipecat", "change-me"
"""As in etc/asterisk/ari.conf."""


class AriError(Exception):
    """Asterisk refused a request."""


class Events(WebSocketClientProtocol):
    """The application's events: `wait` for one by its type."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []
        self.opened: Deferred[None] = Deferred()
        self._waiting: list[tuple[str, Deferred[dict[str, Any]]]] = []

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        event = json.loads(payload)
        self.seen.append(event)
        for kind, waiter in list(self._waiting):
            if kind == event["type"]:
                self._waiting.remove((kind, waiter))
                waiter.callback(event)

    def wait(self, kind: str, timeout: float = 10.0) -> Deferred[dict[str, Any]]:
        """The next event of this type."""
        waiter: Deferred[dict[str, Any]] = Deferred()
        self._waiting.append((kind, waiter))
        return waiter.addTimeout(timeout, reactor)


class Ari:
    """Requests to Asterisk's REST interface."""

    def __init__(self, port: int) -> None:
        self._port = port
        pool = HTTPConnectionPool(reactor, persistent=False)
        self._http = HTTPClient(Agent(reactor, pool=pool))

    async def events(self) -> Events:
        """Register the application and listen."""
        url = f"ws://127.0.0.1:{self._port}/ari/events?app={APPLICATION}&api_key={USER}:{PASSWORD}"
        factory = WebSocketClientFactory(url, reactor=reactor)
        protocol = Events()
        protocol.factory = factory
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self._port), protocol)
        await protocol.opened
        return protocol

    async def post(self, path: str, **parameters: str) -> Any:
        """POST; the answer's JSON, or None. Raises `AriError`."""
        return await self._request("POST", path, parameters)

    async def delete(self, path: str) -> None:
        """DELETE. Raises `AriError`."""
        await self._request("DELETE", path, {})

    async def _request(self, method: str, path: str, parameters: dict[str, str]) -> Any:
        response = await self._http.request(
            method,
            f"http://127.0.0.1:{self._port}/ari{path}",
            params=parameters,
            auth=(USER, PASSWORD),
        )
        text = await response.text("utf-8")
        if response.code >= 300:
            raise AriError(f"{method} {path}: {response.code} {text}")
        return json.loads(text) if text else None

    async def with_bot(self, caller: str, bridge_address: str) -> tuple[str, str, str]:
        """Put `caller` (a channel id) and a bot into a bridge; ids of bridge, channel and call."""
        call_id = str(uuid4())
        channel = await self.post(
            "/channels/externalMedia",
            app=APPLICATION,
            external_host=bridge_address,
            format="slin16",
            encapsulation="audiosocket",
            transport="tcp",
            data=call_id,
        )
        mixing = await self.post("/bridges", type="mixing")
        await self.post(f"/bridges/{mixing['id']}/addChannel", channel=f"{caller},{channel['id']}")
        return mixing["id"], channel["id"], call_id
