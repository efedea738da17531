"""What the daemon asks of the reactor it runs on: monotonic timers, and sockets read in batches."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any, Final, Literal

from twisted.internet.base import ReactorBase
from twisted.python import log

AT_ONCE: Final = 32
"""Events that are handled between two looks at the timers: about a millisecond's work. A pile of
frames to be read must not make those late that are due to the callers."""

SHORTEST: Final = 0.0005
PER_SOCKET: Final = 1e-5
"""Seconds. Busy sockets wait `PER_SOCKET` for each open socket, but at least `SHORTEST` and at most
the interval that was asked for. With 100 calls that is 2 ms and some fifteen frames: the frames
that come between two ticks of the clock are read at the second one. What a batch saves is the
sleep, the poll, and caches that are warm (docs/lab-notes.md)."""

SOON: Final = 0.25
"""Part of the interval by which a poll waits longer for a timer: to be woken once, for both."""

_PRIVATE: Final = ("_poller", "_selectables", "_doReadOrWrite", "_disconnectSelectable")
"""What `BatchedPolling` has to know of the reactor; a Twisted without it polls in its own way."""

_READABLE: Final = 0x1  # EPOLLIN, epoll_ctl(2)
_FOREVER: Final = -1.0


def keep_time(reactor: Any) -> None:
    """Take the timers of a Twisted reactor off the wall clock, which a time server may step.

    By default they hang on `time.time`: when that is set back by an hour, nothing happens in any
    call for an hour. Timers that are set already, and clocks that are no reactor's, are left alone.
    """
    if isinstance(reactor, ReactorBase) and not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic


def poll_in_batches(reactor: Any, interval: float) -> None:
    """Let Twisted's epoll reactor poll by `BatchedPolling`, in batches of up to `interval` seconds.

    With an interval of 0, and any other reactor, polling stays Twisted's own.
    """
    if interval > 0 and hasattr(select, "epoll"):
        from twisted.internet.epollreactor import EPollReactor  # there on Linux only

        if type(reactor) is EPollReactor and all(hasattr(reactor, name) for name in _PRIVATE):
            reactor.doIteration = BatchedPolling(reactor, interval)  # type: ignore[method-assign]


def polling_of(reactor: Any) -> Literal["batched", "twisted"]:
    """How a reactor polls its sockets."""
    return (
        "batched"
        if isinstance(getattr(reactor, "doIteration", None), BatchedPolling)
        else "twisted"
    )


class BatchedPolling:
    """Polls once in an interval, and after timers, while there is much to do; reads cheaply.

    Frames come one at a time, some microseconds apart, and to sleep and be woken for each costs
    about as much as the frame itself. So once the sockets are busy, what comes within an interval
    is read together, as network cards do it for their interrupts. The interval grows with the
    number of sockets up to `longest` seconds. Where the last poll found one event, and the one
    before was longer ago than that, nothing waits. Timers are never late for it, nor by more than
    `AT_ONCE` events.

    A socket that is only readable is read directly, which takes 0.1 us in place of 1.9: most of
    that is a context for `twisted.python.log` of old, which Twisted makes for each event
    (docs/lab-notes.md). All else is left to Twisted.
    """

    def __init__(
        self,
        reactor: Any,
        longest: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reactor = reactor
        self._poll = reactor._poller.poll
        self._selectables: dict[int, Any] = reactor._selectables
        self._longest = longest
        self._now = now
        self._sleep = sleep
        self._busy = False
        self._polled_at = now() - longest

    def __call__(self, timeout: float | None) -> None:
        """One iteration: sleep for `timeout` seconds at most, None being for ever."""
        left = _FOREVER if timeout is None else timeout
        if self._busy:
            interval = self._interval
            wait = self._polled_at + interval - self._now()
            if wait > 0:
                if 0 <= left < wait + interval * SOON:
                    if left:
                        self._sleep(left)
                    self._busy = False  # awake already: the sockets are next, after the timers
                    return
                self._sleep(wait)
                left = max(left - wait, 0) if left > 0 else left
        self._handle(self._take(left))

    @property
    def _interval(self) -> float:
        return min(max(SHORTEST, PER_SOCKET * len(self._selectables)), self._longest)

    def _take(self, left: float) -> list[tuple[int, int]]:
        events: list[tuple[int, int]] = self._poll(left, AT_ONCE)
        now = self._now()
        if len(events) == AT_ONCE:
            self._busy = False  # there may be more: the next poll is right after the timers
        else:
            self._busy = len(events) > 1 or now - self._polled_at < self._interval
        self._polled_at = now
        return events

    def _handle(self, events: list[tuple[int, int]]) -> None:
        reactor, find = self._reactor, self._selectables.get
        for descriptor, event in events:
            selectable = find(descriptor)
            if selectable is None:
                continue  # gone since, by what another has read
            if event != _READABLE:
                handle = reactor._doReadOrWrite
                log.callWithLogger(selectable, handle, selectable, descriptor, event)
                continue
            try:
                why = selectable.doRead()
            except BaseException as error:  # noqa: BLE001 - as Twisted: it costs that connection only
                why = error
                log.err()
            if why:
                reactor._disconnectSelectable(selectable, why, True)
