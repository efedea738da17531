"""A listening port as a service: its start fails when the port is taken."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from pipecat_bridge.net.proxied import PREFIX, ProxiedFactory


class Listener(Service):
    """Listens on an endpoint string while it runs; `port` is there once it listens.

    `endpoint` is where it listens in place of that, which then only describes it. Behind `haproxy:`
    `factory` builds its protocols with the address that the proxy tells.
    """

    def __init__(
        self,
        reactor: Any,
        description: str,
        factory: IProtocolFactory,
        endpoint: IStreamServerEndpoint | None = None,
    ) -> None:
        self._endpoint = endpoint or serverFromString(reactor, description.removeprefix(PREFIX))
        proxied = description.startswith(PREFIX)
        self.factory = ProxiedFactory(reactor, factory) if proxied else factory
        self._waiting: Deferred[None] | None = None
        self.description = description
        self.port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Listen; raises CannotListenError when that fails at once, as it does for TCP."""
        super().privilegedStartService()
        failures: list[Failure] = []
        listening: Deferred[IListeningPort] = self._endpoint.listen(self.factory)
        self._waiting = listening.addCallbacks(self._listening, failures.append)
        if failures:
            failures[0].raiseException()

    def startService(self) -> None:
        """As `privilegedStartService`, where that was not called before."""
        super().startService()
        if self._waiting is None:
            self.privilegedStartService()

    def _listening(self, port: IListeningPort) -> None:
        self.port = port

    def stopService(self) -> Deferred[None]:
        """Stop listening; connections go on."""
        super().stopService()
        if self._waiting is not None:
            self._waiting.cancel()
        port, self.port = self.port, None
        return (port.stopListening() if port is not None else None) or succeed(None)

    @property
    def place(self) -> str:
        """Where it listens, for people."""
        if self.port is None:
            return self.description
        host: Any = self.port.getHost()
        return f"{host.host}:{host.port}" if hasattr(host, "port") else str(host)


class Reserved(Listener):
    """A port that listens and accepts nothing: who has its `fileno` does."""

    def __init__(self, reactor: Any, description: str) -> None:
        factory = ServerFactory()
        factory.noisy = False
        super().__init__(reactor, description, factory)

    def _listening(self, port: IListeningPort) -> None:
        super()._listening(port)
        concrete: Any = port
        concrete.stopReading()

    def fileno(self) -> int:
        """The descriptor of the listening socket; it must listen."""
        port: Any = self.port
        return int(port.fileno())

    @property
    def number(self) -> int:
        """The port's number, 0 where it has none."""
        port: Any = self.port
        return int(getattr(port.getHost(), "port", 0))
