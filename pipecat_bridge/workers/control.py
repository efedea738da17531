"""The worker's side of the commands between worker and supervisor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.bridge import Bridge
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.registry import UnknownCallError
from pipecat_bridge.net.listener import HandedOver
from pipecat_bridge.net.proxied import ProxiedFactory
from pipecat_bridge.runner.pool.announced import AnnouncedAddress
from pipecat_bridge.workers import commands


class HandedPhones:
    """Builds the protocols of phones that the supervisor hands over.

    `proxied`: connections begin with a PROXY header. `last`: the last protocol that was built.
    """

    def __init__(self, reactor: Any, proxied: bool) -> None:
        self._reactor = reactor
        self._proxied = proxied
        self._inside: Any = None
        self.factory: Any = None
        self.last: AudioSocketConnection | None = None

    def listen(self, factory: IProtocolFactory) -> HandedOver:
        """The port of `factory`: it gets phones from the supervisor and does not listen."""
        self._inside = factory
        building = ServerFactory()
        building.noisy = False
        building.buildProtocol = self._build  # type: ignore[method-assign]
        self.factory = ProxiedFactory(self._reactor, building) if self._proxied else building
        return HandedOver(self.factory)

    def _build(self, addr: IAddress | None) -> AudioSocketConnection | None:
        self.last = self._inside.buildProtocol(addr)
        return self.last


class WorkerControl(commands.Control):
    """The worker's end of the pair of sockets. `address`: the address of the embedded runner."""

    def __init__(
        self, reactor: Any, bridge: Bridge, phones: HandedPhones, address: AnnouncedAddress
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._bridge = bridge
        self._phones = phones
        self._address = address
        self._numbers: dict[str, int] = {}  # call id -> the supervisor's number of the phone
        self._ending = False
        bridge.calls.on_ended(self._call_ended)

    def connect(self, descriptor: int) -> None:
        """Connect to the supervisor, and tell it that this worker is ready."""
        with socket.socket(fileno=descriptor) as sock:
            sock.setblocking(False)
            factory = ServerFactory.forProtocol(lambda: self)
            self._reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, factory)
        self.callRemote(commands.Ready)

    # Phones

    @commands.TakePhone.responder
    def take_phone(
        self, descriptor: int, phone: int, data: bytes, elsewhere: int
    ) -> dict[str, Any]:
        """Take a phone, and `data`, the bytes that were read from it."""
        self._bridge.calls.elsewhere = elsewhere
        with socket.socket(fileno=descriptor) as sock:
            connection = self._connection(sock, data)
        if connection is None or not self._is_in_call(connection):
            return {"answered": False}
        self._numbers[connection.line.call_id] = phone
        return {"answered": True}

    def _connection(self, sock: socket.socket, data: bytes) -> AudioSocketConnection | None:
        sock.setblocking(False)
        self._phones.last = None  # none is built if the PROXY header is wrong or not allowed
        try:
            transport = self._reactor.adoptStreamConnection(
                sock.fileno(), sock.family, self._phones.factory
            )
        except OSError:  # the phone has closed already
            return None
        if transport is not None and data:
            transport.protocol.dataReceived(data)
        return self._phones.last

    def _is_in_call(self, connection: AudioSocketConnection) -> bool:
        try:
            call = self._bridge.calls.get(connection.line.call_id)
        except UnknownCallError:
            return False
        return call.phone is connection.line

    def _call_ended(self, call: Call) -> None:
        phone = self._numbers.pop(call.call_id, None)
        if phone is not None:
            self.callRemote(commands.CallEnded, phone=phone)

    @commands.CallsElsewhere.responder
    def calls_elsewhere(self, calls: int) -> dict[str, Any]:
        """Take note how many calls the other workers have."""
        self._bridge.calls.elsewhere = calls
        return {}

    # The API

    @commands.ServeApi.responder
    def serve_api(self, descriptor: int) -> dict[str, Any]:
        """Serve a request to the API on this connection."""
        with socket.socket(fileno=descriptor) as sock:
            sock.setblocking(False)
            self._reactor.adoptStreamConnection(
                sock.fileno(), sock.family, self._bridge.api.factory
            )
        return {}

    @commands.Ping.responder
    def ping(self) -> dict[str, Any]:
        """Show that this process does not stand still."""
        return {}

    @commands.RunnerIs.responder
    def runner_is(self, url: str) -> dict[str, Any]:
        """Take note of the embedded runner's URL."""
        self._address.announce(url)
        return {}

    # The end

    @commands.Drain.responder
    def drain(self) -> dict[str, Any]:
        """Take no new calls from now on."""
        self._bridge.calls.drain()
        return {}

    @commands.Reopen.responder
    def reopen(self) -> dict[str, Any]:
        """Open files again that another program may have moved away."""
        self._bridge.reopen()
        return {}

    @commands.EndCalls.responder
    def end_calls(self) -> dict[str, Any]:
        """End all calls now."""
        self._bridge.end_calls()
        return {}

    @commands.End.responder
    def end(self) -> dict[str, Any]:
        """End all calls and this process."""
        self._end()
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End this process, because the supervisor has ended."""
        super().connectionLost(reason)
        self._end()

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self._bridge.end_calls()
            self._reactor.stop()
