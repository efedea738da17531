"""What counts as a finding: an exception that the code does not declare, a fault of the bridge in
its log, and an input that takes too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

LONGEST_INPUT: Final = 1 << 16

MOST_CPU: Final = 0.05
"""Seconds of processor time that an input may take."""

INSTRUMENTED: Final = 4.0
"""How many times as long it takes while its coverage is measured, at the most."""

_MOST_PIECES: Final = 50
"""Pieces that an input is cut into; each takes time of its own."""

_TRIES: Final = 3
"""An input is slow if it is so each time: the first time has cold caches, and a collection of
garbage belongs to no input."""


class FindingError(Exception):
    """An input that shows a fault."""


def check(target: Callable[[bytes], None], data: bytes, slower: float = 1.0) -> None:
    """Give `data` to `target`. Raises FindingError, and what the target raises."""
    with no_faults():
        for tried in range(1, _TRIES + 1):
            begun = time.process_time()
            target(data)
            took = time.process_time() - begun
            if took <= MOST_CPU * slower:
                return
            if tried == _TRIES:
                text = f"{took * 1000:.0f} ms of processor time for {len(data)} bytes"
                raise FindingError(text)


@contextmanager
def faults() -> Iterator[list[str]]:
    """The failures that are logged meanwhile, as text."""
    seen: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] is LogLevel.critical or "log_failure" in event:
            failure = event.get("log_failure")
            trace = failure.getTraceback() if failure is not None else ""
            seen.append(f"{formatEvent(event)}\n{trace}")

    globalLogPublisher.addObserver(observe)
    try:
        yield seen
    finally:
        globalLogPublisher.removeObserver(observe)


@contextmanager
def no_faults() -> Iterator[None]:
    """Raises FindingError if a failure is logged."""
    with faults() as seen:
        yield
    if seen:
        raise FindingError(f"a fault was logged: {seen[0]}")


class LenientTransport(StringTransport):
    """Takes what a real one takes as well while it is closed."""

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        if not self.disconnecting:
            super().pauseProducing()

    def resumeProducing(self) -> None:
        if not self.disconnecting:
            super().resumeProducing()


def pieces(data: bytes, seed: int) -> Iterator[bytes]:
    """`data` whole, or its beginning in pieces of `seed` bytes and the rest whole."""
    at = min(seed * _MOST_PIECES, len(data))
    for start in range(0, at, seed or 1):
        yield data[start : min(start + seed, at)]
    if at < len(data):
        yield data[at:]


def settle(clock: Clock, most: int = 1 << 17) -> None:
    """Let what is due now happen."""
    for _ in range(most):
        calls = clock.getDelayedCalls()
        if not calls or min(call.getTime() for call in calls) > clock.seconds():
            return
        clock.advance(0)
    raise FindingError("it does not come to rest")
