"""The AudioSocket server: accepts phones from the allowed networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.asterisk.networks import Networks
from pipecat_bridge.contracts import AnswerCall
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.listener import Listen
from pipecat_bridge.net.rate_limit import BoundedLog
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options


class AudioSocketServer(MultiService):
    """Accepts phones over AudioSocket. `listen` makes its listener, from `factory`."""

    def __init__(
        self,
        reactor: Any,
        options: Options,
        answer: AnswerCall,
        clock: FrameClock,
        now: Callable[[], float],
        listen: Listen,
    ) -> None:
        super().__init__()
        line = LineOptions(
            handshake_timeout=options.audiosocket.handshake_timeout,
            stall_timeout=options.audiosocket.stall_timeout,
            hold_after=options.caller_audio.hold_after,
            g711=options.audiosocket.g711,
        )
        self.factory = AudioSocketFactory(
            reactor,
            lambda: AudioSocketConnection(answer, clock, reactor, line, now),
            Networks(options.audiosocket.allow),
        )
        self.listener = listen(self.factory)
        self.listener.setServiceParent(self)

    @property
    def open(self) -> Tally:
        """The phones that are connected."""
        return self.factory.open

    @property
    def refused(self) -> int:
        """How many phones were not allowed to connect."""
        return self.factory.refused

    @property
    def limits(self) -> list[ConnectionLimit[Any]]:
        """The limits of connections without a UUID."""
        return [self.factory.unknown, *self.listener.limits]

    @property
    def place(self) -> str:
        """The address that phones connect to, as text for people; "" without a listener."""
        return self.listener.place


class AudioSocketFactory(ServerFactory):
    """Makes a connection for each phone; a phone outside `networks` is closed at once.

    `unknown` has the phones that have not told their UUID yet.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        connect: Callable[[], AudioSocketConnection],
        networks: Networks | None = None,
    ) -> None:
        self._strangers = BoundedLog(self._log, clock.seconds)  # phones without a call
        self._connect = connect
        self._networks = networks or Networks([])
        self.open = Tally()
        self.unknown: ConnectionLimit[AudioSocketConnection] = ConnectionLimit(
            clock, "phone", AudioSocketConnection.abort
        )
        self.refused = 0

    def buildProtocol(self, addr: IAddress | None) -> AudioSocketConnection | None:
        """The protocol of one connection; None closes the connection."""
        host = getattr(addr, "host", "")
        if host not in self._networks:
            self.refused += 1
            self._strangers.warn(
                "- connection from {host} closed: not in [audiosocket] allow", host=host
            )
            return None
        connection = self._connect()
        connection.on_known, connection.on_lost = self.unknown.leave, self._lost
        connection.line.strangers = self._strangers
        self.open.enter()
        self.unknown.wait(connection)
        return connection

    def _lost(self, connection: AudioSocketConnection) -> None:
        self.unknown.leave(connection)
        self.open.leave()
