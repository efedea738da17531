"""The bots of a load. Each one sends back what it hears, at once or as a `Pattern` says."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from pipecat_bridge.tools.load import protobuf, websocket
from pipecat_bridge.tools.load.calls import Role
from pipecat_bridge.tools.load.loop import receive, stamp
from pipecat_bridge.tools.load.marks import Ear
from pipecat_bridge.tools.load.mouth import Mouth, Said

if TYPE_CHECKING:
    from pipecat_bridge.tools.load.runner import Runner

STALL: Final = 5.0
BURST: Final = 10.0
AGAIN: Final = 15.0
"""Seconds from one stall or burst to the next."""

DYING: Final = 1.0
LONGEST_QUEUE: Final = 8 << 20
_BOT_READY: Final = websocket.masked(
    protobuf.message_frame(
        '{"label":"rtvi-ai","type":"bot-ready","id":"load","data":{"version":"1.0.0"}}'
    )
)
_ABORT: Final = struct.pack("ii", 1, 0)


class Times(NamedTuple):
    """When a chunk arrived, and when it was sent back, in seconds of the monotonic clock."""

    arrived: float
    echoed: float


class HeardByBot(NamedTuple):
    """A mark that a bot heard and sent back. `time`, `echoed`: when, in seconds of the monotonic
    clock. `sample`: position of the mark in the bot's stream."""

    call: int
    number: int
    time: float
    sample: int
    echoed: float


class LoadBot:
    """One bot, with one socket for each direction, or one for both."""

    def __init__(self, runner: Runner, number: int, role: Role, url: str) -> None:
        self.number = number
        self.role = role
        self._runner = runner
        self._ear: Ear[Times] | None = None
        self._plain = b"-"  # the last payload without a mark
        self._plain_echo = b""  # the frame that sends `_plain` back
        self._plain_pcm = b""
        self._plain_samples = 0
        self._mouth: Mouth | None = None
        self._closed = False
        directions = ("output", "input") if runner.sockets == 2 else ("",)
        self._sockets = [LoadBotSocket(self, url, direction) for direction in directions]
        self._output = self._sockets[0]
        self._input = self._sockets[-1]

    def received(self, payload: bytes, arrived: float) -> None:
        """Take one message from the bridge."""
        ear = self._ear
        if ear is not None and ear.quiet and payload == self._plain:
            ear.pass_over(self._plain_samples)
            if self._mouth is None:
                self._output.send(self._plain_echo)
            else:
                self._mouth.say(self._plain_pcm, ())
            return
        frame = protobuf.read(payload)
        if isinstance(frame, protobuf.AudioFields):
            self._hear(payload, frame, arrived)
        elif frame is not None and '"client-ready"' in frame:
            self._output.send(_BOT_READY)
            self._runner.ready(self)

    def _hear(self, payload: bytes, audio: protobuf.AudioFields, arrived: float) -> None:
        runner = self._runner
        if self._ear is None:
            self._ear = Ear(audio.rate)
            runner.first_audio[self.number] = arrived
            if runner.pattern is not None:
                random = Random(self.number)
                self._mouth = Mouth(
                    runner.loop, runner.pattern, audio.rate, random, self._output.send, self._said
                )
        times = Times(arrived, time.monotonic())
        echo = b""
        if self._mouth is None:
            echo = websocket.masked(payload)
            self._output.send(echo)
        marks = self._ear.hear(audio.pcm, times)
        if self._mouth is not None:
            said = [
                Said(mark.number, mark.tag.arrived + mark.offset, mark.sample) for mark in marks
            ]
            self._mouth.say(audio.pcm, said)
        else:
            for number, offset, (came, echoed), sample in marks:
                self._said(Said(number, came + offset, sample), echoed + offset)
        if not marks and self._ear.quiet:
            self._plain, self._plain_pcm, self._plain_echo = payload, audio.pcm, echo
            self._plain_samples = len(audio.pcm) // 2

    def _said(self, mark: Said, at: float) -> None:
        if self._runner.recording:
            self._runner.heard.append(
                HeardByBot(self.number, mark.number, mark.heard, mark.sample, at)
            )

    # Faults, by role

    def misbehave(self) -> float | None:
        """Do once what the role says. Returns the time for the next time, or None."""
        if self._closed:
            return None
        now = time.monotonic()
        if self.role is Role.DYING:
            self.close(abort=True)
            return None
        if self.role is Role.STALLED:
            self._input.pause()
            self._runner.stalls.append((self.number, now, now + STALL))
            self._runner.loop.at(now + STALL, self._input.resume)
        elif self.role is Role.BURSTING:
            self._output.send(websocket.masked(self._plain) * round(BURST / 0.02))
        return now + AGAIN

    def close(self, abort: bool = False) -> None:
        """Close the connections; with a TCP reset if `abort`."""
        if self._closed:
            return
        self._closed = True
        for one in self._sockets:
            one.close(abort)
        self._runner.gone(self)


class LoadBotSocket:
    """One WebSocket to the bridge."""

    def __init__(self, bot: LoadBot, url: str, direction: str) -> None:
        parts = urlsplit(url)
        target = parts.path + (f"?direction={direction}" if direction else "")
        self._bot = bot
        self._loop = bot._runner.loop
        self._waiting = bytearray(websocket.request(parts.netloc, target))
        self._greeting = b""
        self._decoder: websocket.FrameDecoder | None = None
        self._paused = False
        self._flushing = False
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamp(self._socket)
        self._socket.connect_ex((parts.hostname or "", parts.port or 80))
        self._loop.read(self._socket.fileno(), self._readable)
        self._flush()

    def send(self, frame: bytes) -> None:
        """Send as much of a frame as the kernel takes now, and the rest later."""
        if not self._waiting:
            try:
                sent = self._socket.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._bot.close()
                return
            if sent == len(frame):
                return
            frame = frame[sent:]
        if len(self._waiting) < LONGEST_QUEUE:
            self._waiting += frame
        self._later()

    def pause(self) -> None:
        """Stop reading, until `resume`."""
        self._loop.forget(self._socket.fileno())

    def resume(self) -> None:
        """Start reading again."""
        if self._socket.fileno() >= 0:
            self._loop.read(self._socket.fileno(), self._readable)

    def close(self, abort: bool) -> None:
        """Close the connection."""
        if self._socket.fileno() < 0:
            return
        self._loop.forget(self._socket.fileno())
        if abort:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self._socket.close()

    def _later(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.at(time.monotonic() + 0.005, self._flush_again)

    def _flush_again(self) -> None:
        self._flushing = False
        self._flush()

    def _flush(self) -> None:
        if not self._waiting or self._socket.fileno() < 0:
            return
        try:
            sent = self._socket.send(self._waiting)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._bot.close()
            return
        del self._waiting[:sent]
        if self._waiting:
            self._later()

    def _readable(self) -> None:
        try:
            data, arrived = receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            data, arrived = b"", 0.0
        if not data:
            self._bot.close()
            return
        if self._decoder is None:
            data = self._greet(data)
            if self._decoder is None:
                return
        for opcode, payload in self._decoder.feed(data):
            self._take(opcode, payload, arrived)

    def _greet(self, data: bytes) -> bytes:
        """Take the answer to the handshake. Returns the bytes after it."""
        self._greeting += data
        head, end, rest = self._greeting.partition(b"\r\n\r\n")
        if not end:
            return b""
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self._bot._runner.counts["refused"] += 1
            self._bot.close()
            return b""
        self._decoder = websocket.FrameDecoder()
        return rest

    def _take(self, opcode: int, payload: bytes, arrived: float) -> None:
        if opcode == websocket.BINARY:
            self._bot.received(payload, arrived)
        elif opcode == websocket.PING:
            self.send(websocket.masked(payload, websocket.PONG))
        elif opcode == websocket.CLOSE:
            self.send(websocket.masked(payload, websocket.CLOSE))
