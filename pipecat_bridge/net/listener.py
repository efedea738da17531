"""Ports as services: one that listens, one that gets its connections from another process, and one
that only reserves the port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.proxied import PREFIX, ProxiedFactory


class PortService(Protocol):
    """The port of a factory, as a service of the daemon."""

    @property
    def place(self) -> str:
        """The address of the port, to show to people; "" if it does not listen."""
        ...

    @property
    def factory(self) -> Any:
        """Makes the protocol of each connection, and reads a PROXY header if there is one."""
        ...

    @property
    def port(self) -> Any:
        """The listening port; None if it does not listen."""
        ...

    @property
    def limits(self) -> list[ConnectionLimit[Any]]:
        """The limits of connections that wait for a PROXY header; [] without such headers."""
        ...

    def setServiceParent(self, parent: Any) -> None:
        """Start and stop with `parent`."""


Listen = Callable[[IProtocolFactory], PortService]
"""Makes the port of a factory."""


class Listener(Service):
    """Listens on the endpoint string `description` while it runs. `port` is set when it listens.

    The start fails if the port is in use. `endpoint`, if given, is used instead; `description` is
    then only shown to people. With `haproxy:`, `factory` builds its protocols with the address in
    the PROXY header.
    """

    def __init__(
        self,
        reactor: Any,
        description: str,
        factory: IProtocolFactory,
        endpoint: IStreamServerEndpoint | None = None,
    ) -> None:
        self._endpoint = endpoint or serverFromString(reactor, description.removeprefix(PREFIX))
        self.factory = factory
        self.limits: list[ConnectionLimit[Any]] = []
        if description.startswith(PREFIX):
            self.factory = ProxiedFactory(reactor, factory)
            self.limits = [self.factory.waiting]
        self._waiting: Deferred[None] | None = None
        self.description = description
        self.port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Listen. Raises CannotListenError if that fails at once, as it does for TCP."""
        super().privilegedStartService()
        failures: list[Failure] = []
        listening: Deferred[IListeningPort] = self._endpoint.listen(self.factory)
        self._waiting = listening.addCallbacks(self._listening, failures.append)
        if failures:
            failures[0].raiseException()

    def startService(self) -> None:
        """Listen, if `privilegedStartService` was not called before."""
        super().startService()
        if self._waiting is None:
            self.privilegedStartService()

    def _listening(self, port: IListeningPort) -> None:
        self.port = port

    def stopService(self) -> Deferred[None]:
        """Stop listening. Open connections go on."""
        super().stopService()
        if self._waiting is not None:
            self._waiting.cancel()
        port, self.port = self.port, None
        return (port.stopListening() if port is not None else None) or succeed(None)

    @property
    def place(self) -> str:
        """The address of the port, to show to people."""
        if self.port is None:
            return self.description
        host: Any = self.port.getHost()
        return f"{host.host}:{host.port}" if hasattr(host, "port") else str(host)


class HandedOver(Service):
    """Does not listen: another process hands each connection over, for `factory`."""

    place = ""
    port = None

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.limits: list[ConnectionLimit[Any]] = []

    def startService(self) -> None:
        super().startService()
        self.factory.doStart()

    def stopService(self) -> None:
        super().stopService()
        self.factory.doStop()


class ReservedPort(Listener):
    """Binds and listens but never accepts; whoever inherits `fileno()` does."""

    def __init__(self, reactor: Any, description: str) -> None:
        factory = ServerFactory()
        factory.noisy = False
        super().__init__(reactor, description, factory)

    def _listening(self, port: IListeningPort) -> None:
        super()._listening(port)
        concrete: Any = port
        concrete.stopReading()

    def fileno(self) -> int:
        """The file descriptor of the listening socket. The service must run."""
        port: Any = self.port
        return int(port.fileno())

    @property
    def number(self) -> int:
        """The TCP port number; 0 if it has none."""
        port: Any = self.port
        return int(getattr(port.getHost(), "port", 0))
