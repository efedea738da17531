"""The daemon without the six fixes of the performance plan: row 10 of the comparison.

`SETTINGS` has the options that turn fixes off. This module replaces the rest: by a resampler that
starts again with every chunk, and by a pool that keeps no connection. The garbage collector has
Python's defaults.

    python -m benchmarks.before -n pipecat-bridge --set ...
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import soxr
from twisted.web.client import HTTPConnectionPool

from pipecat_bridge.audio import resample
from pipecat_bridge.net import http as client

SETTINGS = (
    "websocket.read_buffer=1024",
    "websocket.write_buffer=1024",
    "websocket.unsent_limit=4194304",
    "caller_audio.queue_frames=2000",
    "caller_audio.push_timeout=2.0",
    "caller_audio.in_flight=3600",
    "caller_audio.catch_up=3600",
)


class PerChunk:
    """Converts each chunk with soxr's one-shot function, without any state between chunks."""

    delay = 0.0

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in, self.rate_out = rate_in, rate_out

    def process(self, pcm: bytes) -> bytes:
        """Convert one chunk."""
        samples = soxr.resample(np.frombuffer(pcm, np.int16), self.rate_in, self.rate_out)
        return bytes(samples.tobytes())

    def reset(self) -> None:
        """Does nothing: there is no state."""


def without_pool(reactor: Any, *_: Any, **__: Any) -> HTTPConnectionPool:
    """A pool with a new connection for every request."""
    return HTTPConnectionPool(reactor, persistent=False)


def undo() -> None:
    """Undo the fixes that no option turns off. Must be called before the daemon is imported."""
    kinds: dict[str, Any] = resample._KINDS
    kinds["fir"] = PerChunk
    client.connection_pool = without_pool
    for name in ("freeze", "set_threshold"):
        setattr(gc, name, lambda *_: None)


if __name__ == "__main__":
    undo()
    sys.argv[0] = "twistd"
    from twisted.scripts.twistd import run

    run()
