"""The bridges that are compared, each as a process on one processor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.before import SETTINGS
from pipecat_bridge.tools.load.bridge import Started, daemon, free_ports

Start = Callable[[str, Path, int | None], Started]
"""Starts a bridge, for the URL of a runner, a file for the log, and a processor."""


def today(runner: str, log: Path, cpu: int | None) -> Started:
    """Start the daemon as it is."""
    return daemon(runner, log, cpu)


def before(runner: str, log: Path, cpu: int | None) -> Started:
    """Start the daemon without the fixes of the performance plan."""
    return daemon(runner, log, cpu, SETTINGS, [sys.executable, "-m", "benchmarks.before"])


def plain(runner: str, log: Path, cpu: int | None) -> Started:
    """Start the daemon without these fixes, and without its shortcuts past Twisted and Autobahn."""
    return daemon(runner, log, cpu, SETTINGS, [sys.executable, "-m", "benchmarks.plain"])


def by_hand(runner: str, log: Path, cpu: int | None, quality: str = "HQ") -> Started:
    """Start the script in asyncio."""
    phone, bot = free_ports(2)
    words = [str(phone), str(bot), runner, quality]
    command = [sys.executable, "-m", "benchmarks.asyncio_bridge", *words]
    return Started(command, phone, "", log, cpu)


BRIDGES: dict[str, Start] = {
    "today": today,
    "before": before,
    "plain": plain,
    "asyncio": by_hand,
    "asyncio-qq": partial(by_hand, quality="QQ"),
}
