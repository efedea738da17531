"""A pipe for lines, to a reader that may stand still. Writing never waits."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Any, Final

from twisted.internet.interfaces import IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

ROOM: Final = 1 << 20
"""Bytes of lines that wait. When more wait, the oldest lines are dropped."""


@implementer(IWriteDescriptor)
class LinePipe:
    """Writes lines to the pipe `descriptor` when its reader takes them.

    `lost`: makes a line that says how many lines were dropped. It is written when the reader has
    taken all other lines.
    """

    def __init__(self, descriptor: int, lost: Callable[[int], bytes], room: int = ROOM) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._lost = lost
        self._room = room
        self._begun = b""  # the rest of a line that is partly written
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._reactor: Any = None
        self._thread = get_ident()

    def attach(self, reactor: Any) -> None:
        """Let `reactor` tell when the reader takes more."""
        self._reactor = reactor

    def write(self, line: bytes) -> None:
        """Write `line`, now or later."""
        if get_ident() != self._thread:
            self._reactor.callFromThread(self.write, line)
            return
        self._lines.append(line + b"\n")
        self._size += len(line) + 1
        while self._size > self._room:
            self._size -= len(self._lines.popleft())
            self._dropped += 1
        self._write()

    def end(self, seconds: float) -> None:
        """Write the lines that wait, for so many seconds at most."""
        deadline = monotonic() + seconds
        taken = select.poll()
        taken.register(self._descriptor, select.POLLOUT)
        while self._write_some() and (rest := deadline - monotonic()) > 0:
            taken.poll(rest * 1000)

    def _write(self) -> None:
        waits = self._write_some()
        if self._reactor is not None:
            (self._reactor.addWriter if waits else self._reactor.removeWriter)(self)

    def _write_some(self) -> bool:
        """Write what the reader takes. Returns True if lines still wait."""
        while self._next():
            try:
                written = os.write(self._descriptor, self._begun)
            except BlockingIOError:
                return True
            except OSError:  # nobody reads any more
                self._forget()
                return False
            self._begun = self._begun[written:]
        return False

    def _next(self) -> bool:
        """Take the next line if none is begun. Returns False if there is none."""
        if not self._begun and self._lines:
            self._begun = self._lines.popleft()
            self._size -= len(self._begun)
        elif not self._begun and self._dropped:
            self._begun = self._lost(self._dropped) + b"\n"
            self._dropped = 0
        return bool(self._begun)

    def _forget(self) -> None:
        self._begun = b""
        self._lines.clear()
        self._size = self._dropped = 0

    # From the reactor

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "log"

    def doWrite(self) -> None:
        self._write()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops, or the reader is gone. `end` writes what waits, or forgets it."""
