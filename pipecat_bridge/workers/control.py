"""What a worker does when its supervisor tells it to, and what it tells."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.registry import UnknownCallError
from pipecat_bridge.net.proxied import ProxiedFactory
from pipecat_bridge.workers import commands
from pipecat_bridge.workers.bridge import WorkerBridge


class WorkerControl(commands.Control):
    """The worker's end of the pair. `proxied`: phones begin with a PROXY header."""

    def __init__(self, reactor: Any, bridge: WorkerBridge, proxied: bool) -> None:
        super().__init__()
        self._reactor = reactor
        self._bridge = bridge
        self._phones = _Phones(bridge)
        self._factory: ServerFactory = self._phones
        if proxied:
            self._factory = ProxiedFactory(reactor, self._phones)
        self._api: Any = bridge.api_listener.factory
        self._numbers: dict[str, int] = {}  # by the ids of calls
        self._ending = False
        bridge.calls.on_ended(self._call_ended)

    def connect(self, descriptor: int) -> None:
        """Tell the supervisor that calls can come."""
        self._api.doStart()
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
        """A phone, with what was read of it."""
        self._bridge.calls.elsewhere = elsewhere
        with socket.socket(fileno=descriptor) as sock:
            connection = self._connection(sock, data)
        if connection is None or not self._is_in_call(connection):
            return {"answered": False}
        self._numbers[connection.call_id] = phone
        return {"answered": True}

    def _connection(self, sock: socket.socket, data: bytes) -> AudioSocketConnection | None:
        sock.setblocking(False)
        self._phones.last = None  # none is built for one that its PROXY header betrays
        try:
            transport = self._reactor.adoptStreamConnection(
                sock.fileno(), sock.family, self._factory
            )
        except OSError:  # it has gone already
            return None
        if transport is not None and data:
            transport.protocol.dataReceived(data)
        return self._phones.last

    def _is_in_call(self, connection: AudioSocketConnection) -> bool:
        try:
            call = self._bridge.calls.get(connection.call_id)
        except UnknownCallError:
            return False
        return call.phone is connection

    def _call_ended(self, call: Call) -> None:
        phone = self._numbers.pop(call.call_id, None)
        if phone is not None:
            self.callRemote(commands.CallEnded, phone=phone)

    @commands.CallsElsewhere.responder
    def calls_elsewhere(self, calls: int) -> dict[str, Any]:
        """How many calls the other workers have."""
        self._bridge.calls.elsewhere = calls
        return {}

    # The API

    @commands.ServeApi.responder
    def serve_api(self, descriptor: int) -> dict[str, Any]:
        """A connection on which the API is asked for something."""
        with socket.socket(fileno=descriptor) as sock:
            sock.setblocking(False)
            self._reactor.adoptStreamConnection(sock.fileno(), sock.family, self._api)
        return {}

    @commands.RunnerIs.responder
    def runner_is(self, url: str) -> dict[str, Any]:
        """Where the embedded runner is."""
        self._bridge.runner_address.announce(url)
        return {}

    # The end

    @commands.Drain.responder
    def drain(self) -> dict[str, Any]:
        """No new calls."""
        self._bridge.calls.drain()
        return {}

    @commands.EndCalls.responder
    def end_calls(self) -> dict[str, Any]:
        """No calls."""
        self._bridge.end_calls()
        return {}

    @commands.End.responder
    def end(self) -> dict[str, Any]:
        """No worker."""
        self._end()
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The supervisor is gone: its workers must not stay behind."""
        super().connectionLost(reason)
        self._end()

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self._bridge.end_calls()
            self._reactor.stop()


class _Phones(ServerFactory):
    """Makes what the bridge makes of a phone, and remembers the last one."""

    noisy = False

    def __init__(self, bridge: WorkerBridge) -> None:
        self._bridge = bridge
        self.last: AudioSocketConnection | None = None

    def buildProtocol(self, addr: IAddress | None) -> AudioSocketConnection | None:
        self.last = self._bridge.phones.buildProtocol(addr)
        return self.last
