"""The bridge's WebSockets with a link that sends back all messages, and Autobahn without it.

The shortcut past Autobahn must not be noticed: with it, for binary or for text messages, without
it, and with Autobahn alone, the same stream has the same answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, get_args

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet.defer import Deferred

from pipecat_bridge.options import WebSocketOptions
from pipecat_bridge.runner.socket.dialback_server import DialbackProtocol, DialbackServer
from pipecat_bridge.runner.socket.dialler import DialledProtocol, _DialFactory
from pipecat_bridge.runner.socket.protocol import BotSocketProtocol
from pipecat_bridge.runner.socket.settings import protocol_options
from pipecat_bridge.runner.socket.target import Target

Way = Literal["binary", "text", "off", "autobahn"]
"""Which messages take the shortcut, or none of them, or there is nothing but Autobahn."""

WAYS: Final[tuple[Way, ...]] = get_args(Way)


class EchoLink:
    """Sends back what comes. `taken`: number of messages that came past Autobahn, or did not."""

    binary = True
    progress = b""

    def __init__(self, way: Way) -> None:
        self.binary = way != "text"
        self.dialect = self.to_bot = self
        self.taken = 0

    def attach(self, socket: Any, direction: Any) -> None:
        """Send back on `socket`."""
        self.received = self._echo(socket)

    def _echo(self, socket: Any) -> Callable[[bytes], None]:
        def received(payload: bytes) -> None:
            self.taken += 1
            socket.send(payload)

        return received

    def received(self, payload: bytes) -> None:
        """Never called: the socket takes the one of `attach`."""

    def pong(self, socket: Any, payload: bytes) -> None:
        """Nothing was pinged."""

    def lost(self, socket: Any, how: Any) -> None:
        """Nothing is left to send back."""

    def drained(self) -> None:
        """Nothing waits."""


class _Echo(BotSocketProtocol):
    """A socket of the bridge whose link takes messages of both kinds."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)

    def onOpen(self) -> None:
        super().onOpen()
        if self._link is not None:
            self._received = self._link.received


class _Off(_Echo):
    def _between_messages(self) -> bool:
        return False


class _AcceptsAll(DialbackProtocol):
    """Takes any path."""

    def onConnect(self, request: Any) -> None:
        self._link = self.factory.link


class _Server(_Echo, _AcceptsAll):
    pass


class _ServerOff(_Off, _AcceptsAll):
    pass


class _Client(_Echo, DialledProtocol):
    pass


class _ClientOff(_Off, DialledProtocol):
    pass


class _AloneEcho:
    def onMessage(self: Any, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class _AloneServer(_AloneEcho, WebSocketServerProtocol):
    pass


class _AloneClient(_AloneEcho, WebSocketClientProtocol):
    pass


def server(way: Way, reactor: Any, options: WebSocketOptions) -> Any:
    """A factory in the role of a server. `link` of it is the EchoLink, if the bridge has a part."""
    factory: Any
    if way == "autobahn":
        factory = WebSocketServerFactory(reactor=reactor)
        factory.protocol = _AloneServer
        factory.setProtocolOptions(webStatus=False, **protocol_options(options))
        return factory
    factory = DialbackServer(reactor, options)
    factory.protocol = _ServerOff if way == "off" else _Server
    factory.link = EchoLink(way)
    return factory


def client(way: Way, reactor: Any, options: WebSocketOptions, url: str) -> Any:
    """A factory in the role of a client."""
    factory: Any
    if way == "autobahn":
        factory = WebSocketClientFactory(url, reactor=reactor)
        factory.protocol = _AloneClient
        factory.setProtocolOptions(**protocol_options(options))
        return factory
    link: Any = EchoLink(way)
    factory = _DialFactory(reactor, options, link, Target(url, {}), "", "")
    factory.result = Deferred()
    factory.result.addErrback(lambda _: None)
    factory.protocol = _ClientOff if way == "off" else _Client
    factory.link = link
    return factory


ALONE: Final = 1000
"""Bytes of a read that come one by one. Autobahn copies a long frame anew for each piece of it."""


def byte_by_byte(factory: Any) -> Any:
    """Let the protocols of `factory` get each byte alone; of long reads the rest in pieces. Returns
    the factory."""

    class Bytes(factory.protocol):  # type: ignore[misc]  # a class made from another
        def dataReceived(self, data: bytes) -> None:
            if not data:  # the rest of what was taken before
                super().dataReceived(data)
            for at in range(min(ALONE, len(data))):
                super().dataReceived(data[at : at + 1])
            for at in range(ALONE, len(data), ALONE - 1):
                super().dataReceived(data[at : at + ALONE - 1])

    factory.protocol = Bytes
    return factory
