"""The bridge of a worker: its supervisor passes phones and requests on to it."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.endpoints import AdoptedStreamServerEndpoint

from pipecat_bridge.net.listener import Listener
from pipecat_bridge.runner.pool.announced import AnnouncedAddress
from pipecat_bridge.service import Bridge
from pipecat_bridge.workers.setup import Setup


class WorkerBridge(Bridge):
    """A bridge that listens for its bots only, on a socket that its supervisor has bound."""

    def __init__(self, reactor: Any, setup: Setup, bots: socket.socket | None) -> None:
        super().__init__(setup.options, reactor)
        for listener in (self.phone_listener, self.api_listener):
            listener.disownServiceParent()
        if bots is not None:
            self._listen_on(bots, setup.options.runner.listen)
        self.runner_address = AnnouncedAddress()
        if setup.embedded:
            [upstream] = self.runner.pool.upstreams
            upstream.name, upstream.address = "embedded", self.runner_address

    def _listen_on(self, bots: socket.socket, description: str) -> None:
        family = bots.family
        endpoint = AdoptedStreamServerEndpoint(self.reactor, bots.detach(), family)
        self.bot_listener.disownServiceParent()
        self.bot_listener = Listener(self.reactor, description, self.runner.door, endpoint)
        self.bot_listener.setServiceParent(self)

    def announce(self) -> None:
        """The supervisor tells where it listens."""
        self.warn_of_far_runners()

    def handle_signals(self) -> None:
        """They are the supervisor's: service managers and terminals signal whole groups."""
