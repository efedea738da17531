"""Runs one side of a load in a separate process, and calls it over a pipe."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, TypeVar

from pipecat_bridge.net.descriptors import raise_limit
from pipecat_bridge.tools.load.loop import Loop

ANSWER_SECONDS: Final = 60.0
_END = "end"

Side = TypeVar("Side")


class LoadProcessError(Exception):
    """A process of the load failed."""


class LoadProcess(Generic[Side]):
    """Runs `make(loop, *arguments)` in a process on processor `cpu`; `ask` calls its methods."""

    def __init__(self, make: Callable[..., Side], *arguments: Any, cpu: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = make.__name__
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_main, args=(theirs, make, arguments, cpu), daemon=True
        )
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the other process, and return its result. Raises LoadProcessError."""
        try:
            self._pipe.send((method, arguments))
            if not self._pipe.poll(ANSWER_SECONDS):
                raise LoadProcessError(f"{self._name} does not answer")
            answer = self._pipe.recv()
        except (EOFError, OSError):
            raise LoadProcessError(f"{self._name} has ended") from None
        if isinstance(answer, Exception):
            raise LoadProcessError(f"{self._name}: {answer}")
        return answer

    def end(self) -> None:
        """End the process."""
        with suppress(OSError):
            self._pipe.send((_END, ()))
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _main(
    pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...], cpu: int | None
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    raise_limit()
    # A pause of the collector here would count as delay of the bridge. Little memory is in cycles.
    gc.disable()
    try:
        loop = Loop()
        side = make(loop, *arguments)
    except OSError as error:
        pipe.send(LoadProcessError(str(error)))
        sys.exit(1)
    busy = _Busy()

    def obey() -> None:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            method, arguments = _END, ()
        if method == _END:
            loop.stop()
            return
        answer = getattr(side, method)(*arguments)
        if method in ("record", "stop"):
            share = busy.share()
            answer = answer if answer is None else {**answer, "busy": share}
        pipe.send(answer)

    loop.read(pipe.fileno(), obey)
    loop.run()


class _Busy:
    """Measures the share of one processor that this process uses."""

    def __init__(self) -> None:
        self._last = time.monotonic(), time.process_time()

    def share(self) -> float:
        """The share from the last call until now, 0 to 1."""
        (wall, used), self._last = self._last, (time.monotonic(), time.process_time())
        return (self._last[1] - used) / max(self._last[0] - wall, 1e-9)
