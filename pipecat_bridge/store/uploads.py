"""Recordings on their way into a bucket, and out of it again.

What is to be done is in a folder, so that it survives a restart: recordings that are to be stored,
and a file that ends in `.gone` for each one that is to be deleted from the bucket. In the place of
a recording that was stored there is a file that ends in `.s3`. Both have its key in them.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipecat_bridge.store.bucket import Bucket, BucketError
from pipecat_bridge.store.convert import TYPES

STORED: Final = ".s3"
"""How a file's name ends that tells where a recording is now."""

GONE: Final = ".gone"

AGAIN: Final = (5.0, 300.0)
"""Seconds until a bucket that cannot be used is tried again, at first and at most."""


IN_A_ROW: Final = 3
"""Jobs that fail one after the other before the bucket is taken to be away."""


class Uploads:
    """Stores what is put into `folder`, the oldest first, in a thread of its own.

    `done`: where the files are left that tell where a recording is. `prefix`: of all keys. `sent`
    is called in the thread with the stem of each recording's name and its key; `told` with a fault
    when the bucket cannot be used any more, and with "" when it can be used again.

    `waiting`: about how many recordings wait to be stored or deleted. `results`: how many were, and
    how many attempts failed.
    """

    def __init__(
        self,
        folder: Path,
        done: Path,
        bucket: Bucket,
        prefix: str,
        sent: Callable[[str, str], None],
        told: Callable[[str], None],
    ) -> None:
        """Raises OSError if the folder cannot be used."""
        folder.mkdir(parents=True, exist_ok=True)
        self.waiting = 0
        self.results: Counter[str] = Counter(stored=0, deleted=0, failed=0)
        self._folder = folder
        self._done = done
        self._bucket = bucket
        self._prefix = prefix
        self._sent = sent
        self._told = told
        self._fault = ""
        self._failures: Counter[str] = Counter()  # by name
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Break off, and wait so many seconds for that. The rest is done after the next start."""
        self._ending.set()
        self._wake.set()
        self._bucket.close()
        self._thread.join(seconds)

    def add(self, path: Path) -> None:
        """Store a recording soon. Moves the file. Raises OSError."""
        path.replace(self._folder / path.name)
        self.look()

    def look(self) -> None:
        """There is something to be done."""
        self.waiting += 1
        self._wake.set()

    # In the thread

    def _run(self) -> None:
        pause = AGAIN[0]
        while not self._ending.is_set():
            self._wake.clear()
            done, fault = self._pass()
            if self._ending.is_set():
                return
            self._tell(fault)
            if not fault:
                if not done:  # else something may have come meanwhile
                    self._wake.wait()
                pause = AGAIN[0]
            else:
                self._wake.wait(pause)
                pause = AGAIN[0] if done else min(2 * pause, AGAIN[1])

    def _pass(self) -> tuple[int, str]:
        """Try all that is to be done. Returns how much was, and the last fault, or "".

        One that fails does not hold up the others. If several do so in a row, the bucket is away.
        """
        done, fault, in_a_row = 0, "", 0
        jobs = self._jobs()
        self.waiting = len(jobs)
        for job in jobs:
            if self._ending.is_set() or in_a_row == IN_A_ROW:
                break
            try:
                self._do(job)
            except (BucketError, OSError) as error:
                in_a_row += 1
                fault = str(error)
                self._failures[job.name] += 1
                self.results["failed"] += 1
            else:
                done, in_a_row = done + 1, 0
                self._failures.pop(job.name, None)
                self.waiting -= 1
        return done, fault

    def _jobs(self) -> list[Path]:
        """What is to be done: what failed least first, then the oldest first."""
        kinds = (*TYPES, GONE)
        found = []
        try:
            for path in self._folder.iterdir():
                if path.suffix in kinds:
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        found.append((self._failures[path.name], path.stat().st_mtime, path))
        except OSError:  # the next pass may be able to read the folder
            return []
        return [path for *_, path in sorted(found)]

    def _do(self, job: Path) -> None:
        if job.suffix == GONE:
            self._bucket.delete(job.read_text())
            job.unlink()
            self.results["deleted"] += 1
            return
        key = f"{self._prefix}{job.name}"
        self._bucket.put(str(job), key)
        stored = self._done / job.with_suffix(STORED).name
        stored.write_text(key)
        try:
            times = job.stat()
            os.utime(stored, (times.st_atime, times.st_mtime))
            job.unlink()
        except FileNotFoundError:  # deleted while it was on its way
            remove_stored(stored, self._folder)
            self.look()
            return
        self.results["stored"] += 1
        self._sent(job.stem, key)

    def _tell(self, fault: str) -> None:
        if bool(fault) != bool(self._fault):
            self._told(fault)
        self._fault = fault


def remove_stored(stored: Path, folder: Path) -> None:
    """Let a recording be deleted from the bucket, by the file that tells where it is. `folder`: of
    what is to be done. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    stored.replace(folder / stored.with_suffix(GONE).name)
