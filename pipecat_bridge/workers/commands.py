"""Commands between a worker and its supervisor, in AMP over a pair of Unix sockets."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

CONTROL_FD = 3
"""File descriptor in a worker: its end of the pair of sockets."""

BOTS_FD = 4
"""File descriptor in a worker: the socket that listens for its bots, if there is one."""

Arguments = list[tuple[bytes, amp.Argument]]


class TakePhone(amp.Command):
    """To a worker: take the connection of a phone, and `data`, the bytes that were read from it.

    `phone`: the supervisor's number of the phone. `elsewhere`: number of calls of the other
    workers. `answered`: the phone is in a call now, and the worker will send `CallEnded`.
    """

    arguments: ClassVar[Arguments] = [
        (b"descriptor", amp.Descriptor()),
        (b"phone", amp.Integer()),
        (b"data", amp.String()),
        (b"elsewhere", amp.Integer()),
    ]
    response: ClassVar[Arguments] = [(b"answered", amp.Boolean())]


class ServeApi(amp.Command):
    """To a worker: take a connection with a request to its API."""

    arguments: ClassVar[Arguments] = [(b"descriptor", amp.Descriptor())]


class CallsElsewhere(amp.Command):
    """To a worker: the number of calls of the other workers."""

    arguments: ClassVar[Arguments] = [(b"calls", amp.Integer())]
    requiresAnswer = False


class Ping(amp.Command):
    """To a worker: answer, so that the supervisor knows that the worker does not stand still."""


class RunnerIs(amp.Command):
    """To a worker: the URL of the embedded runner; "" while it does not listen."""

    arguments: ClassVar[Arguments] = [(b"url", amp.Unicode())]
    requiresAnswer = False


class Drain(amp.Command):
    """To a worker: take no new calls."""

    requiresAnswer = False


class Reopen(amp.Command):
    """To a worker: open files again that another program may have moved away."""

    requiresAnswer = False


class EndCalls(amp.Command):
    """To a worker: end all calls now."""

    requiresAnswer = False


class End(amp.Command):
    """To a worker: end all calls, then end the process."""

    requiresAnswer = False


class Ready(amp.Command):
    """To the supervisor: this worker takes calls."""

    requiresAnswer = False


class CallEnded(amp.Command):
    """To the supervisor: the call of the phone with this number is over."""

    arguments: ClassVar[Arguments] = [(b"phone", amp.Integer())]
    requiresAnswer = False


class Control(amp.AMP):
    """One end of the pair. It does not log its connection, as AMP's own class does."""

    def __init__(self) -> None:
        super().__init__()

    def makeConnection(self, transport: Any) -> None:
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        amp.BinaryBoxProtocol.connectionLost(self, reason)
