"""A listening port as a service: its start fails when the port is taken."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure


class Listener(Service):
    """Listens on an endpoint string while it runs; `port` is there once it listens."""

    def __init__(self, reactor: Any, description: str, factory: IProtocolFactory) -> None:
        self._endpoint = serverFromString(reactor, description)
        self._factory = factory
        self._waiting: Deferred[None] | None = None
        self.description = description
        self.port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Listen; raises CannotListenError when that fails at once, as it does for TCP."""
        super().privilegedStartService()
        failures: list[Failure] = []
        self._waiting = self._endpoint.listen(self._factory)
        self._waiting.addCallbacks(self._listening, failures.append)
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
