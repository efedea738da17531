"""A bucket of an S3-compatible store, which a process of its own asks."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any, Final

import msgspec

from pipecat_bridge.store.s3 import Access, Answer, Job

COMMAND: Final = (sys.executable, "-m", "pipecat_bridge.store.s3")


class BucketError(Exception):
    """The bucket cannot be used now. The text says why."""


class Bucket:
    """All methods but `close` block, and are for threads; one of them runs at a time."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def put(self, path: str, key: str) -> None:
        """Store a file. Does nothing if there is no such file. Raises BucketError."""
        self._ask(Job("put", key, path=path))

    def delete(self, key: str) -> None:
        """Delete a file, if it is there. Raises BucketError."""
        self._ask(Job("delete", key))

    def url(self, key: str, seconds: int) -> str:
        """A URL for GET that is good for so many seconds. Raises BucketError."""
        return self._ask(Job("url", key, seconds=seconds))

    def close(self) -> None:
        """End the process. What it does at the moment fails with BucketError."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()

    def _ask(self, job: Job) -> str:
        with self._lock:
            process = self._running()
            try:
                _pipe(process.stdin).write(msgspec.json.encode(job) + b"\n")
                _pipe(process.stdin).flush()
                answer = msgspec.json.decode(_pipe(process.stdout).readline(), type=Answer)
            except (OSError, msgspec.DecodeError):
                self._end(process)
                raise BucketError("the process that asks the bucket has ended") from None
        if answer.fault:
            raise BucketError(answer.fault)
        return answer.value

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise BucketError("this daemon is ending")
        if self._process is None:
            self._process = process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl+C ends the daemon, and that ends this
            )
            _pipe(process.stdin).write(msgspec.json.encode(self._access) + b"\n")
        return self._process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not written yet cannot be any more
                _pipe(pipe).close()
        process.wait()


def _pipe(pipe: IO[bytes] | None) -> Any:
    assert pipe is not None  # asked for with PIPE
    return pipe
