"""What stands for the reactor and for a bucket, in tests of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipecat_bridge.store.bucket import Bucket, BucketError
from pipecat_bridge.store.s3 import Access

WITHIN = 30.0


class Loop:
    """What threads tell the loop is done at once, and noted."""

    def __init__(self) -> None:
        self.changed = threading.Condition()

    def callFromThread(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        with self.changed:
            call(*arguments, **named)
            self.changed.notify_all()

    def tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        with self.changed:
            if not self.changed.wait_for(condition, WITHIN):
                raise AssertionError("it has not come")


class BucketInMemory(Bucket):
    """A bucket that can be away. `meanwhile` is called while a file is on its way, and `told` when
    one was deleted."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__(Access("calls"))
        self.told = told
        self.files: dict[str, bytes] = {}
        self.deleted: list[str] = []
        self.away = ""
        self.bad = ""
        self.meanwhile: Callable[[Path], None] = lambda path: None

    def put(self, path: str, key: str) -> None:
        self._here()
        if self.bad and self.bad in key:
            raise BucketError("refused")
        self.files[key] = Path(path).read_bytes()
        self.meanwhile(Path(path))

    def delete(self, key: str) -> None:
        self._here()
        self.files.pop(key, None)
        self.deleted.append(key)
        self.told()

    def _here(self) -> None:
        if self.away:
            raise BucketError(self.away)
