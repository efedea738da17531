"""Accepts phones on the port that all workers share."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pipecat_bridge.net.descriptors import EXHAUSTED, Descriptors

PAUSE: Final = 0.5
"""Seconds without accepting after descriptors or memory ran out."""

_ACCEPTED_AT_ONCE: Final = 100
_NO_MEMORY: Final = (errno.ENOBUFS, errno.ENOMEM)


@implementer(IReadDescriptor)
class Acceptor:
    """Accepts connections on a duplicate of a listening socket, and closes only the duplicate."""

    _log = Logger(namespace="pipecat_bridge.workers")

    def __init__(
        self,
        reactor: Any,
        descriptor: int,
        descriptors: Descriptors,
        accepted: Callable[[socket.socket, Any], None],
    ) -> None:
        self._reactor = reactor
        self._descriptors = descriptors
        self._socket = socket.socket(fileno=descriptor)
        self._accepted = accepted
        self._pause: IDelayedCall | None = None

    def start(self) -> None:
        """Start accepting."""
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Stop accepting."""
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "phones"

    def doRead(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._descriptors.wanted()
                    self._wait()
                    return
                if error.errno in _NO_MEMORY:
                    self._log.error(
                        "no phone can connect for {pause:g} s: {error}",
                        pause=PAUSE,
                        error=error.strerror,
                    )
                    self._wait()
                    return
                continue  # that phone has closed already
            sock.setblocking(False)
            self._accepted(sock, address)

    def _wait(self) -> None:
        """Pause accepting. Without the pause the reactor would only try again and again."""
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(PAUSE, self.start)

    def connectionLost(self, reason: Failure) -> None:
        self.stop()
