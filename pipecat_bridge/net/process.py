"""Prepares a process of the daemon before its reactor runs."""

from __future__ import annotations

import gc
from typing import Any

from twisted.logger import Logger

from pipecat_bridge import native
from pipecat_bridge.net.descriptors import raise_limit
from pipecat_bridge.net.reactor import keep_time, poll_in_batches

COLLECTOR = (20_000, 20, 20)
"""Thresholds of Python's garbage collector. They were found by measurement."""


def set_up(reactor: Any, poll_interval: float) -> None:
    """Raise the limit of file descriptors, and set the reactor's clock, the reactor's polling, and
    the garbage collector."""
    raise_limit()
    keep_time(reactor)
    poll_in_batches(reactor, poll_interval)
    reactor.callWhenRunning(tune_collector)


def tune_collector() -> None:
    """Prevent pauses of the audio by Python's garbage collector.

    Calls are freed by reference counting, so the collector has little to find. With Python's
    defaults it paused for up to 73 ms at 46 new calls a second, and 47 frames were late
    (docs/lab-notes.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR)


def warn_if_not_compiled(log: Logger) -> None:
    """Say once at the start that calls cost more than they need to."""
    if not native.COMPILED:
        log.warn(
            "the compiled loops are missing, so a call costs a third more: install a C compiler and"
            " Python's headers, and then pipecat-bridge again with pip install --force-reinstall"
            " --no-deps --no-cache-dir ({why})",
            why=native.MISSING,
        )
