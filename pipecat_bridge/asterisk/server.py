"""Takes AudioSocket connections from the networks that are allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.networks import Networks
from pipecat_bridge.net.tally import Tally


class AudioSocketFactory(ServerFactory):
    """Makes a connection for each phone; a peer outside `allow` is closed at once.

    `open` counts the connections that are there.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self, connect: Callable[[], AudioSocketConnection], allow: Sequence[str] = ()
    ) -> None:
        self._connect = connect
        self._networks = Networks(allow)
        self.open = Tally()
        self.refused = 0

    def buildProtocol(self, addr: IAddress | None) -> AudioSocketConnection | None:
        """The connection's protocol, or None to close it."""
        host = getattr(addr, "host", "")
        if host not in self._networks:
            self.refused += 1
            self._log.warn("- connection from {host} closed: not in [audiosocket] allow", host=host)
            return None
        connection = self._connect()
        connection.on_lost = self.open.leave
        self.open.enter()
        return connection
