"""A limit of connections whose peers have not yet said what they want.

Whoever reaches a port can open connections and say nothing. Each takes a file descriptor, and the
phones need those. An honest peer says at once what it wants. So over the limit the connection that
has waited longest is closed: honest peers get in, however many others wait.

A peer that has said what it wants is served, and a hostile one can be served for long. So those
that are served do not take the room of those that wait: these have half of the places for sure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, Literal, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pipecat_bridge.net.descriptors import limit

Kind = Literal["api", "bot", "phone", "proxy"]

KINDS: Final[dict[Kind, str]] = {
    "api": "connections to the API",
    "bot": "bots without an opening handshake",
    "phone": "phones without a UUID",
    "proxy": "connections without a PROXY header",
}
"""What waits, as the log calls it."""

PART: Final = 8
"""One eighth of the file descriptors may be used by one kind of such connections."""

LEAST: Final = 50
"""Twisted's ports let so many connections wait in the kernel. All of them may be accepted in one
turn of the loop, before the first of them is read."""

MOST: Final = 256
"""Upper limit, because a connection also takes memory and time."""

TOLD_EVERY: Final = 1.0
"""Least seconds between two lines in the log."""

C = TypeVar("C")


def share() -> int:
    """How many connections of one kind may wait in this process."""
    return min(max(limit() // PART, LEAST), MOST)


class ConnectionLimit(Generic[C]):
    """Keeps at most `most` connections of one kind, the default being `share()`.

    `close` closes a connection at once. `dropped` counts the connections that were closed so.
    """

    _log = Logger(namespace="pipecat_bridge")

    def __init__(
        self,
        clock: IReactorTime,
        kind: Kind,
        close: Callable[[C], None],
        most: Callable[[], int] = share,
    ) -> None:
        self.kind = kind
        self.dropped = 0
        self._clock = clock
        self._close = close
        self._most = most
        self._waiting: dict[C, None] = {}  # the one that has waited longest comes first
        self._served: dict[C, None] = {}  # the one that is served longest comes first
        self._told = 0  # of `dropped`
        self._told_at: float | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._served)

    @property
    def waiting(self) -> list[C]:
        """The connections that wait for their peer."""
        return list(self._waiting)

    def wait(self, connection: C) -> None:
        """This connection waits for its peer from now on.

        Over the limit, another one is closed: the one that has waited longest; the one that is
        served longest if those that wait have no more than half of the places.
        """
        self.leave(connection)
        self._waiting[connection] = None
        most = self._most()
        if len(self) > most:
            crowded = not self._served or len(self._waiting) > most // 2
            self._drop(next(iter(self._waiting if crowded else self._served)))

    def serve(self, connection: C) -> None:
        """The peer has said what it wants. The connection still counts."""
        self.leave(connection)
        self._served[connection] = None

    def leave(self, connection: C) -> None:
        """This connection does not count any more."""
        self._waiting.pop(connection, None)
        self._served.pop(connection, None)

    def _drop(self, connection: C) -> None:
        self.leave(connection)
        self.dropped += 1
        self._tell()
        self._close(connection)

    def _tell(self) -> None:
        now = self._clock.seconds()
        if self._told_at is not None and now < self._told_at + TOLD_EVERY:
            return
        self._log.warn(
            "- {count} {what} closed: more than {most} at the same time",
            count=self.dropped - self._told,
            what=KINDS[self.kind],
            most=self._most(),
        )
        self._told, self._told_at = self.dropped, now
