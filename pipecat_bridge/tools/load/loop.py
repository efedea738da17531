"""A small event loop of epoll and deadlines, so that the load generator itself costs little."""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

READ_BYTES: Final = 1 << 13

TOGETHER: Final = 0.002
"""Seconds that sockets may wait to be read together. Arrivals are stamped by the kernel, so that
this is in no figure, but bots send back so much later."""

EARLY: Final = 0.001
"""Seconds by which a job may begin early: to sleep before each of 15,000 in a second costs more
than they do."""

_SO_TIMESTAMPNS: Final = 35  # Linux, socket(7); Python has no name for it.
_STAMP = struct.Struct("qq")

Job = Callable[[], float | None]


class Loop:
    """Calls readers when sockets are readable, and jobs when they are due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._jobs: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._running = True
        self.lateness: list[float] | None = None
        """How late each job began, in seconds; None while this is not recorded."""
        self.unread_for = 0.0
        """Seconds since the last look at the sockets, without those in which data would have ended
        the wait. The kernel joins what comes meanwhile on a socket and keeps only the last time.
        """

    def read(self, fd: int, reader: Callable[[], None]) -> None:
        """Call `reader` whenever `fd` is readable."""
        self._readers[fd] = reader
        self._epoll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop reading `fd`. Must be called before `fd` is closed."""
        if self._readers.pop(fd, None) is not None:
            with suppress(OSError):
                self._epoll.unregister(fd)

    def at(self, due: float, job: Job) -> None:
        """Call `job` at the time `due` of the monotonic clock, and again at the time it returns."""
        heapq.heappush(self._jobs, (due, next(self._order), job))

    def stop(self) -> None:
        """Return from `run`."""
        self._running = False

    def run(self) -> None:
        """Run until `stop` is called."""
        epoll, readers, jobs = self._epoll, self._readers, self._jobs
        now = time.monotonic
        waiting = [epoll.fileno()]
        poll_at = 0.0
        looked = now()
        while self._running:
            begun = now()
            left = jobs[0][0] - begun if jobs else None
            rest = poll_at - begun
            if rest > 0 and left is not None and left < rest:
                if left > 0:
                    time.sleep(left)
            else:
                if rest > 0:
                    time.sleep(rest)
                # epoll.poll waits for whole milliseconds only.
                elif left is None or left > 0:
                    select.select(waiting, (), (), left)
                    looked += now() - begun
                events = epoll.poll(0)
                self.unread_for, looked = now() - looked, now()
                poll_at = now() + TOGETHER if events else 0.0
                for fd, _ in events:
                    reader = readers.get(fd)
                    if reader is not None:
                        reader()
            self._run_jobs(now())

    def _run_jobs(self, now: float) -> None:
        jobs = self._jobs
        while jobs and jobs[0][0] <= now + EARLY:
            due, _, job = heapq.heappop(jobs)
            if self.lateness is not None:
                self.lateness.append(max(0.0, now - due))
            again = job()
            if again is not None:
                self.at(again, job)
            now = time.monotonic()


def stamp(sock: socket.socket) -> None:
    """Let the kernel record when data arrives, so that a busy reader adds no delay."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def receive(sock: socket.socket) -> tuple[bytes, float]:
    """The data to read, and the monotonic time at which the last of it arrived.

    The data is b"" if the peer has closed. Raises OSError as `recv` does.
    """
    data, notes, _, _ = sock.recvmsg(READ_BYTES, 64)
    now = time.monotonic()
    if notes:
        seconds, nanoseconds = _STAMP.unpack(notes[0][2])
        waited = time.time() - seconds - nanoseconds * 1e-9
        if 0 < waited < 1:
            now -= waited
    return data, now
