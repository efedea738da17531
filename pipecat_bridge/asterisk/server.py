"""The AudioSocket server: the phones that connect, from the networks that are allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.asterisk.networks import Networks
from pipecat_bridge.contracts import AnswerCall
from pipecat_bridge.net.listener import Listen
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options


class AudioSocketServer(MultiService):
    """The phones that speak AudioSocket. `open` counts them, `refused` those that were not allowed.

    `listen` makes the port that phones connect to, from `factory`.
    """

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
    def place(self) -> str:
        """Where phones connect to, for people; "" where there is no port."""
        return self.listener.place


class AudioSocketFactory(ServerFactory):
    """Makes a connection for each phone; a phone outside `networks` is closed at once."""

    noisy = False
    _log = Logger()

    def __init__(
        self, connect: Callable[[], AudioSocketConnection], networks: Networks | None = None
    ) -> None:
        self._connect = connect
        self._networks = networks or Networks([])
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
