"""Events as lines of JSON in a file, in a thread of its own."""

from __future__ import annotations

import os
import threading
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import msgspec
from twisted.application.service import Service
from twisted.logger import Logger

from pipecat_bridge.events.events import CallEvent, Events, envelope

MOST: Final = 10_000
"""Events that wait for a disk that is slow. What comes then is left out, and counted."""

_REOPEN: Final = b""


def _private(path: str, flags: int) -> int:
    """Open a file that only this user and group may read: it has what callers say."""
    return os.open(path, flags, 0o640)


class EventLines(Service):
    """Appends each event to the file `path`. `dropped`: events that are not in it.

    The file is opened again on SIGHUP, for programs that move it away.
    """

    _log = Logger()

    def __init__(self, reactor: Any, path: Path, events: Events) -> None:
        self.dropped = 0
        self._reactor = reactor
        self._path = path
        self._told: SimpleQueue[bytes | None] = SimpleQueue()
        self._file: Any = None
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="event lines", daemon=True)
        self._unsubscribe = events.subscribe(self._note)

    def startService(self) -> None:
        super().startService()
        self._thread.start()

    def stopService(self) -> None:
        super().stopService()
        self._unsubscribe()
        self._told.put(None)
        self._thread.join(1.0)

    def reopen(self) -> None:
        """Open the file again before the next line."""
        self._told.put(_REOPEN)

    def _note(self, event: CallEvent) -> None:
        if not event.public:
            return
        if self._told.qsize() >= MOST:
            self.dropped += 1
        else:
            self._told.put(msgspec.json.encode(envelope(event)) + b"\n")

    # In the thread

    def _run(self) -> None:
        while (line := self._told.get()) is not None:
            try:
                if line == _REOPEN:
                    self._close()
                else:
                    self._write(line)
            except OSError as error:
                self._close()
                self.dropped += 1
                self._tell(f"{self._path}: {error.strerror}")
        self._close()

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._file = FileIO(self._path, "ab", opener=_private)
        self._file.write(line)
        self._failed = False

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _tell(self, fault: str) -> None:
        """Log that it has failed, once until it succeeds again."""
        if not self._failed:
            self._failed = True
            self._reactor.callFromThread(
                self._log.warn, "events are not written: {fault}", fault=fault
            )
