"""Work on what a socket has sent in slices, so that a flood on one socket holds up no other.

A read of 64 KiB may be 16,000 tiny messages, and half a second of work. In each turn of the loop a
socket gets one slice of it. The clock of the phones and the other sockets have theirs in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

MOST: Final = 32
"""Messages of a slice: about a millisecond's work. An honest peer sends one to three at a time."""


def _nothing() -> None:
    """Does nothing: the connection is over."""


class Slices:
    """Sees to it that one socket works on a slice in each turn.

    The owner works on a slice whenever data comes, and calls `later` if there is more. Then nothing
    is read from `transport` until `again`, which works on the next slice, has not called it.
    """

    __slots__ = ("_again", "_clock", "_next", "_reading", "_transport")

    def __init__(self, clock: IReactorTime, transport: Any, again: Callable[[], None]) -> None:
        self._clock = clock
        self._transport = transport
        self._again = again
        self._next: IDelayedCall | None = None
        self._reading = True

    def later(self) -> None:
        """Work on the next slice in the next turn."""
        if self._next is None:
            self._transport.pauseProducing()
            self._next = self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._next = None
        self._again()
        self._resume()

    def _resume(self) -> None:
        if self._next is None and self._reading:
            self._transport.resumeProducing()

    def read(self, wanted: bool) -> None:
        """Read, or do not, as soon as nothing is left of what has come."""
        self._reading = wanted
        if wanted:
            self._resume()
        else:
            self._transport.pauseProducing()

    def close(self) -> None:
        """Forget what is left: the connection is over."""
        self._reading = False
        self._again = _nothing  # it refers to the owner, which refers to this
        if self._next is not None:
            self._next.cancel()
            self._next = None
