"""The path of one frame through the daemon, in memory: `python -m benchmarks.frame_path`.

A frame passes the daemon's real code, with Autobahn. The two sockets are objects that only keep the
last data. So the figures do not include system calls and Twisted's reactor.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import base64
import gc
import hashlib
import re
import statistics
import sys
import timeit
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

from autobahn.websocket.xormasker import create_xor_masker
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.audio import g711
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.options import CallerAudioOptions, WebSocketOptions
from pipecat_bridge.runner.link.early import Early
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.socket.dialback_server import DialbackServer
from pipecat_bridge.runner.socket.dialler import Dialler
from pipecat_bridge.runner.socket.target import Target
from pipecat_bridge.tools.load import protobuf, websocket
from pipecat_bridge.wire.audiosocket import Kind, encode
from pipecat_bridge.wire.dialect import Dialect
from pipecat_bridge.wire.pipecat import PipecatDialect
from pipecat_bridge.wire.twilio import TwilioDialect
from pipecat_bridge.wire.websocket import mask, server_frame

CALL_ID = "00000000-0000-4000-8000-000000000001"
CALLER_FRAME = encode(0x10, bytes(range(256)) + bytes(64))
BOT_FRAME = protobuf.audio_frame(bytes(range(160)) * 4, 16000)
TWILIO_FRAME = b'{"event": "media", "streamSid": "MZ", "media": {"payload": "%s"}}' % (
    base64.b64encode(bytes(range(160)))
)
_BOT_READY = protobuf.message_frame(
    '{"label":"rtvi-ai","type":"bot-ready","data":{"version":"1.0.0"}}'
)


class Sink(StringTransport):
    """A transport that keeps only the last data that was written."""

    disconnected = False

    def write(self, data: bytes) -> None:
        self.last = data


class Nobody:
    """A listener for bot and phone that does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Path:
    """One call with a ready bot. `to_bot` and `to_caller` each carry one frame.

    `dialled`: the bridge has dialled the bot, and masks its messages. Otherwise the bot has dialled
    back.
    """

    def __init__(self, dialect: Dialect, dialled: bool, bot_frame: bytes) -> None:
        clock = Clock()
        self._clock = clock
        self.playout = Playout()
        link = BotLink(
            CALL_ID,
            clock,
            self.playout,
            Nobody(),
            Nobody(),
            dialect,
            CallerAudioOptions(),
            Early(0.5),
            1.0,
            clock.seconds,
        )
        opcode = 2 if dialect.binary else 1
        if dialled:
            self._socket = _dialled(clock, link)
            self._frame = server_frame(bot_frame, opcode)
            self._socket.dataReceived(server_frame(_BOT_READY) if dialect.binary else self._frame)
        else:
            self._socket = _dialled_back(clock, link)
            self._frame = websocket.masked(bot_frame, opcode)
            self._socket.dataReceived(websocket.masked(_BOT_READY))
        self._phone = AudioSocketConnection(
            lambda *_: Nobody(),
            FrameClock(clock, clock.seconds),
            clock,
            LineOptions(hold_after=1e9),  # no silence for a missing caller
            clock.seconds,
        )
        self._phone.makeConnection(Sink())
        self._phone.dataReceived(encode(Kind.UUID, bytes(16)))
        self._phone.line.join(link.to_bot.send, self.playout)
        self.to_caller()
        clock.advance(0)  # the first audio has a turn of its own

    def to_bot(self) -> None:
        """Carry a frame of the caller to the bot's socket."""
        self._clock.rightNow += 0.02
        self._phone.dataReceived(CALLER_FRAME)

    def to_caller(self) -> None:
        """Carry a frame of the bot to the phone's socket."""
        self._clock.rightNow += 0.02
        self._socket.dataReceived(self._frame)
        self._phone.line.tick()


def _dialled_back(clock: Clock, link: BotLink) -> Any:
    """The bridge's end of a WebSocket that a runner has opened."""
    server = DialbackServer(clock, WebSocketOptions())
    token = server.expect(link)
    protocol: Any = server.buildProtocol(None)  # type: ignore[arg-type]
    protocol.makeConnection(Sink())
    protocol.dataReceived(websocket.request("localhost", f"/{CALL_ID}/ws/{token}"))
    return protocol


def _dialled(clock: Clock, link: BotLink) -> Any:
    """The bridge's end of a WebSocket that the bridge has opened."""
    dialler = Dialler(clock, WebSocketOptions(), lambda *_: Here())
    dialling = Deferred.fromCoroutine(dialler.dial(Target("ws://localhost:80/ws", {}), link))
    protocol = Here.protocol
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", protocol.transport.last)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
    protocol.dataReceived(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
    )
    assert dialling.called
    return protocol


_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Here:
    """An endpoint that connects to a sink."""

    protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect at once."""
        protocol = Here.protocol = factory.buildProtocol(None)
        protocol.makeConnection(Sink())
        return succeed(protocol)


def pipecat() -> Dialect:
    """The dialect of bots that speak protobuf."""
    return PipecatDialect(16000, "0")


def twilio() -> Dialect:
    """The dialect of bots for Twilio."""
    codec = (partial(g711.encode, "ulaw"), partial(g711.decode, "ulaw"))
    return TwilioDialect(CALL_ID, {}, {}, 0, encode=codec[0], decode=codec[1])


PATHS: dict[str, Callable[[], Path]] = {
    "dialback": lambda: Path(pipecat(), False, BOT_FRAME),
    "dial": lambda: Path(pipecat(), True, BOT_FRAME),
    "twilio": lambda: Path(twilio(), True, TWILIO_FRAME),
}


def microseconds(frame: Callable[[], None]) -> float:
    """The best time of one frame. Other work on the machine can only make it longer."""
    return min(timeit.repeat(frame, number=500, repeat=30)) / 500 * 1e6


def peak_bytes(frame: Callable[[], None]) -> int:
    """The median of the peak memory of one frame, in bytes."""
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
    """The average number of memory blocks that are not freed after a frame."""
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(count):
        frame()
    gc.collect()
    return (sys.getallocatedblocks() - before) / count


def measure() -> dict[str, dict[str, float]]:
    """Microseconds, peak bytes and kept blocks, for a frame in each direction and mode."""
    figures = {}
    for mode, make in PATHS.items():
        path = make()
        for name, frame in (("to bot", path.to_bot), ("to caller", path.to_caller)):
            for _ in range(1000):
                frame()
            figures[f"{mode}: {name}"] = {
                "microseconds": round(microseconds(frame), 2),
                "peak_bytes": peak_bytes(frame),
                "kept_blocks": round(kept_blocks(frame), 3),
            }
    return figures


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as a table in Markdown."""
    lines = ["| one frame | us | bytes at the peak | blocks kept |", "|---|---|---|---|"]
    for name, row in figures.items():
        cells = " | ".join(f"{value:g}" for value in row.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, "", masking()])


def masking() -> str:
    """A table in Markdown: the cost of masking, with the bridge's code and with Autobahn's."""
    lines = ["| masking, us | ours | Autobahn's |", "|---|---|---|"]
    for size in (160, 320, 672, 1312, 4000, 65536):
        payload, key = os.urandom(size), os.urandom(4)
        times = [
            min(timeit.repeat(run, number=1000, repeat=20)) * 1000
            for run in (
                partial(mask, payload, key),
                lambda p=payload, k=key: create_xor_masker(k, len(p)).process(p),  # type: ignore[misc]
            )
        ]
        lines.append(f"| {size} bytes | {times[0]:.2f} | {times[1]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
