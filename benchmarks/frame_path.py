"""The way of one frame through the daemon, in memory: `python -m benchmarks.frame_path`.

Everything that a frame passes is the daemon's own, Autobahn included; the two sockets are objects
that keep what was written last. So the figures are without system calls and Twisted's reactor.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gc
import statistics
import sys
import timeit
import tracemalloc
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.connection import AudioSocketConnection, LineOptions
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.load import protobuf, websocket
from pipecat_bridge.options import CallerAudioOptions, WebSocketOptions
from pipecat_bridge.runner.link import BotLink
from pipecat_bridge.runner.websocket import BotSocketFactory
from pipecat_bridge.wire.audiosocket import Kind, encode

CALL_ID = "00000000-0000-4000-8000-000000000001"
CALLER_FRAME = encode(0x10, bytes(range(256)) + bytes(64))
BOT_FRAME = websocket.masked(protobuf.audio_frame(bytes(640), 16000))
_BOT_READY = websocket.masked(
    protobuf.message_frame('{"label":"rtvi-ai","type":"bot-ready","data":{"version":"1.0.0"}}')
)


class Sink(StringTransport):
    """A transport that keeps only the last that was written to it."""

    disconnected = False

    def write(self, data: bytes) -> None:
        self.last = data


class Nobody:
    """Listens to a bot, and answers a phone, without a word."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Path:
    """One call that is up: `to_bot` and `to_caller` carry a frame each."""

    def __init__(self) -> None:
        clock = Clock()
        self._clock = clock
        self.playout = Playout()
        link = BotLink(
            CALL_ID, clock, self.playout, Nobody(), CallerAudioOptions(), 1.0, clock.seconds
        )
        factory = BotSocketFactory(clock, WebSocketOptions())
        token = factory.expect(link)
        self._socket: Any = factory.buildProtocol(None)  # type: ignore[arg-type]
        self._socket.makeConnection(Sink())
        self._socket.dataReceived(websocket.request("localhost", f"/{CALL_ID}/ws/{token}"))
        self._socket.dataReceived(_BOT_READY)
        exchange = Nobody()
        self._phone = AudioSocketConnection(
            exchange,  # type: ignore[arg-type]
            FrameClock(clock, clock.seconds),
            clock,
            LineOptions(hold_after=1e9),  # no silence in place of a caller who says nothing
            clock.seconds,
        )
        self._phone.makeConnection(Sink())
        exchange.__dict__["answer"] = lambda *_: Nobody()
        self._phone.dataReceived(encode(Kind.UUID, bytes(16)))
        self._phone.join(link.send_audio, self.playout)

    def to_bot(self) -> None:
        """A frame of the caller's, to the bot's socket."""
        self._clock.rightNow += 0.02
        self._phone.dataReceived(CALLER_FRAME)

    def to_caller(self) -> None:
        """A frame of the bot's, to the phone's socket."""
        self._clock.rightNow += 0.02
        self._socket.dataReceived(BOT_FRAME)
        self._phone.tick()


def microseconds(frame: Callable[[], None]) -> float:
    """Of one frame, at its best: other work on the machine can only add to it."""
    return min(timeit.repeat(frame, number=500, repeat=30)) / 500 * 1e6


def peak_bytes(frame: Callable[[], None]) -> int:
    """What is allocated at once while a frame passes, as a median."""
    tracemalloc.start()
    peaks = []
    for _ in range(200):
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        frame()
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    return round(statistics.median(peaks))


def kept_blocks(frame: Callable[[], None], count: int = 5000) -> float:
    """Blocks of memory that a frame leaves behind, on the average."""
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(count):
        frame()
    gc.collect()
    return (sys.getallocatedblocks() - before) / count


def measure() -> dict[str, dict[str, float]]:
    """Microseconds, bytes at the peak and blocks kept, of a frame each way."""
    path = Path()
    figures = {}
    for name, frame in (("to_bot", path.to_bot), ("to_caller", path.to_caller)):
        for _ in range(1000):
            frame()
        figures[name] = {
            "microseconds": round(microseconds(frame), 2),
            "peak_bytes": peak_bytes(frame),
            "kept_blocks": round(kept_blocks(frame), 3),
        }
    return figures


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures in Markdown."""
    lines = ["| one frame | us | bytes at the peak | blocks kept |", "|---|---|---|---|"]
    for name, row in figures.items():
        cells = " | ".join(f"{value:g}" for value in row.values())
        lines.append(f"| {name.replace('_', ' ')} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
