"""The AudioSocket port of all workers."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.application.service import MultiService

from pipecat_bridge.asterisk.networks import Networks
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.listener import ReservedPort
from pipecat_bridge.net.proxied import PREFIX
from pipecat_bridge.options import AudioSocketOptions
from pipecat_bridge.workers.acceptor import Acceptor
from pipecat_bridge.workers.arrival import Arrival
from pipecat_bridge.workers.switchboard import Switchboard


class PhonePort(MultiService):
    """Accepts phones, and gives them to the switchboard when their UUID is known."""

    def __init__(
        self,
        reactor: Any,
        options: AudioSocketOptions,
        switchboard: Switchboard,
        descriptors: Descriptors,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._options = options
        self._switchboard = switchboard
        self._descriptors = descriptors
        self._networks = Networks(options.allow)
        self._proxied = options.listen.startswith(PREFIX)
        self._arrivals: set[Arrival] = set()
        self.unknown: ConnectionLimit[Arrival] = ConnectionLimit(reactor, "phone", Arrival.close)
        self._acceptor: Acceptor | None = None
        self.listener = ReservedPort(reactor, options.listen)
        self.listener.setServiceParent(self)

    def startService(self) -> None:
        super().startService()
        descriptor = os.dup(self.listener.fileno())
        self._acceptor = Acceptor(self._reactor, descriptor, self._descriptors, self._accepted)
        self._acceptor.start()

    def stopService(self) -> Any:
        """Stop accepting, and close the phones that no worker has got."""
        if self._acceptor is not None:
            self._acceptor.stop()
            self._acceptor = None
        for arrival in list(self._arrivals):
            arrival.close()
        return super().stopService()

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        host, port = address[:2] if isinstance(address, tuple) else ("", 0)
        arrival = Arrival(
            self._reactor,
            sock,
            host,
            port,
            self._options.handshake_timeout,
            self._proxied,
            self,
        )
        self._arrivals.add(arrival)
        if self._proxied or self.allows(host):
            arrival.read()
            self.unknown.wait(arrival)
        else:
            self.known(arrival)  # a worker gets the phone, closes it, logs that and counts it

    # From arrivals

    def allows(self, host: str) -> bool:
        """Whether a phone may connect from `host`, an IP address."""
        return host in self._networks

    def known(self, arrival: Arrival) -> None:
        """Give the phone to a worker: its UUID is known."""
        self.unknown.leave(arrival)
        self._switchboard.arrived(arrival)

    def too_late(self, arrival: Arrival) -> None:
        """Refuse the phone: no worker took it in time."""
        self._switchboard.too_late(arrival)

    def gone(self, arrival: Arrival) -> None:
        """Forget the phone: it is closed in this process."""
        self.unknown.leave(arrival)
        self._arrivals.discard(arrival)
