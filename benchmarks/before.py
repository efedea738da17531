"""The daemon as if the plan of six fixes had not been carried out: row 10 of the comparison.

What options can say, `SETTINGS` says; the rest is replaced here: a resampler that begins anew with
every chunk, and a pool that keeps no connection. The collector is left as Python starts it.

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
    "caller_audio.in_flight=1000000.0",
    "caller_audio.catch_up=1000000.0",
)


class PerChunk:
    """soxr's one-shot conversion of each chunk, with nothing kept between them."""

    delay = 0.0

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in, self.rate_out = rate_in, rate_out

    def process(self, pcm: bytes) -> bytes:
        """Convert one chunk."""
        samples = soxr.resample(np.frombuffer(pcm, np.int16), self.rate_in, self.rate_out)
        return bytes(samples.tobytes())

    def reset(self) -> None:
        """There is nothing to forget."""


def without_pool(reactor: Any, *_: Any, **__: Any) -> HTTPConnectionPool:
    """A new connection for every request."""
    return HTTPConnectionPool(reactor, persistent=False)


def undo() -> None:
    """Take the fixes back that no option turns off; to be called before the daemon is imported."""
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
