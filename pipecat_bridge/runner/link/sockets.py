"""The sockets of one bot: one WebSocket for both directions, or one for each direction."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from pipecat_bridge.net.tally import Tally
from pipecat_bridge.runner.link.interfaces import BotSocket, Direction

_OVER = "call ended"


class SocketPair:
    """Knows the socket of each direction, and closes them."""

    __slots__ = ("_clock", "_closed", "_open", "_sockets", "_timer", "input", "output")

    def __init__(self, clock: IReactorTime) -> None:
        self.input: BotSocket | None = None
        self.output: BotSocket | None = None
        self._clock = clock
        self._sockets: set[BotSocket] = set()  # the open ones
        self._open = Tally()
        self._timer: IDelayedCall | None = None
        self._closed = False

    def add(self, socket: BotSocket, direction: Direction) -> None:
        """Use an open socket for `direction`. A closed pair closes it at once."""
        self._sockets.add(socket)
        self._open.enter()
        if self._closed:
            socket.close(1000, _OVER)
            return
        if direction != "output":
            self.input = socket
        if direction != "input":
            self.output = socket

    def remove(self, socket: BotSocket) -> None:
        """Forget a socket that has closed. A socket that was never added is ignored."""
        if socket not in self._sockets:
            return
        self._sockets.remove(socket)
        self._open.leave()
        if not self._open.count and self._timer is not None and self._timer.active():
            self._timer.cancel()
            self._timer = None

    @property
    def connected(self) -> bool:
        """True after each direction got a socket."""
        return self.input is not None and self.output is not None

    @property
    def count(self) -> int:
        """Number of open sockets."""
        return self._open.count

    def idle(self) -> Deferred[None]:
        """Fires when no socket is open."""
        return self._open.idle()

    def send(self, messages: list[bytes]) -> bool:
        """Send messages to the bot. False if one was dropped: the input socket is not open, or the
        bot does not read."""
        socket = self.input
        return socket is not None and all(socket.send(message) for message in messages)

    def hold(self, held: bool) -> None:
        """Read the output socket no more, or again."""
        if self.output is None or self._closed:
            return
        if held:
            self.output.pause()
        else:
            self.output.resume()

    def end_output(self) -> None:
        """Begin to close the output socket after the input socket closed; the rest is read."""
        if self.output is not None:
            self.output.resume()
            self.output.close(1000, _OVER)

    def close(self, grace: float | None = None) -> None:
        """Close all sockets: at once, or after `grace` seconds if the bot has not closed them."""
        self._closed = True
        for socket in list(self._sockets):
            socket.resume()  # a paused socket would never read the answer to our close
        if grace is None:
            self._close()
        elif self._open.count:
            self._timer = self._clock.callLater(grace, self._close)

    def _close(self) -> None:
        self._timer = None
        for socket in list(self._sockets):
            socket.close(1000, _OVER)
