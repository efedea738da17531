"""What a worker and its supervisor tell each other, over a pair of Unix sockets (AMP)."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

CONTROL_FD = 3
BOTS_FD = 4
"""What a worker inherits: its end of the pair, and the socket that listens for its bots, if any."""

Arguments = list[tuple[bytes, amp.Argument]]


class TakePhone(amp.Command):
    """To a worker: a phone's connection, and the bytes that were read from it.

    `phone` is the supervisor's number for it; `elsewhere` counts the calls of the other workers.
    `answered` says whether it is in a call now, whose end the worker will tell.
    """

    arguments: ClassVar[Arguments] = [
        (b"descriptor", amp.Descriptor()),
        (b"phone", amp.Integer()),
        (b"data", amp.String()),
        (b"elsewhere", amp.Integer()),
    ]
    response: ClassVar[Arguments] = [(b"answered", amp.Boolean())]


class ServeApi(amp.Command):
    """To a worker: a connection on which its API is asked for something."""

    arguments: ClassVar[Arguments] = [(b"descriptor", amp.Descriptor())]


class CallsElsewhere(amp.Command):
    """To a worker: how many calls the others have."""

    arguments: ClassVar[Arguments] = [(b"calls", amp.Integer())]
    requiresAnswer = False


class RunnerIs(amp.Command):
    """To a worker: where the embedded runner listens; empty while it does not."""

    arguments: ClassVar[Arguments] = [(b"url", amp.Unicode())]
    requiresAnswer = False


class Drain(amp.Command):
    """To a worker: take no new calls."""

    requiresAnswer = False


class EndCalls(amp.Command):
    """To a worker: end all calls now."""

    requiresAnswer = False


class End(amp.Command):
    """To a worker: end all calls, and then yourself."""

    requiresAnswer = False


class Ready(amp.Command):
    """To the supervisor: this worker takes calls."""

    requiresAnswer = False


class CallEnded(amp.Command):
    """To the supervisor: the call of this phone is over."""

    arguments: ClassVar[Arguments] = [(b"phone", amp.Integer())]
    requiresAnswer = False


class Control(amp.AMP):
    """One end of the pair; unlike AMP's it does not log that it is connected."""

    def __init__(self) -> None:
        super().__init__()

    def makeConnection(self, transport: Any) -> None:
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        amp.BinaryBoxProtocol.connectionLost(self, reason)
