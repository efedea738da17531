"""An innocent call, and what its phone and its bot notice, in a process of its own.

The phone sends a frame every 20 ms of an absolute clock, the bot a message of 40 ms. Both streams
have numbered marks (`pipecat_bridge.tools.load.marks`), so audio that is missing is missed. The
kernel stamps what arrives; of several frames that are read at once it stamps the last, so a reader
that is late must be known (`control.py`).
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final, NamedTuple
from uuid import UUID

from pipecat_bridge.audio import g711
from pipecat_bridge.tools.load import protobuf, websocket
from pipecat_bridge.tools.load.loop import Loop, receive, stamp
from pipecat_bridge.tools.load.marks import EVERY, NUMBERS, Ear, Speaker
from tests.hostile import plain
from tests.hostile.control import Control

FRAME: Final = 0.02
CHUNK: Final = 0.04
ON_ITS_WAY: Final = 2.0
"""Seconds of audio."""

PIPECAT_RATE: Final = 16000
PHONE_RATE: Final = 8000
_HEADER: Final = 3


class Felt(NamedTuple):
    """What the call has noticed. `gap`: the longest gap between frames to the phone, in ms, without
    what the machine itself is to blame for. `raw_gap`: with it. `to_bot`, `to_phone`: frames of
    20 ms that were lost. `over`: why the call has ended; "" if it goes on."""

    gap: float
    raw_gap: float
    to_bot: float
    to_phone: float
    over: str


class Stream:
    """The marks of one stream. `heard`: number and sample of each that was heard."""

    def __init__(self, rate: int, chunk: float) -> None:
        self._speaker = Speaker(rate, chunk)
        self._ear: Ear[None] | None = None
        self._chunk = chunk
        self._sent = 0
        self.heard: list[tuple[int, int]] = []
        self._rate = rate

    def say(self) -> bytes:
        """The next chunk."""
        self._sent += 1
        return self._speaker.chunk(self._sent - 1)

    def hear(self, pcm: bytes, rate: int) -> None:
        """Take what arrived of the stream."""
        if self._ear is None:
            self._ear, self._rate = Ear(rate), rate
        self.heard += [(mark.number, mark.sample) for mark in self._ear.hear(pcm, None)]

    def lost(self) -> float:
        """Seconds of audio that were sent and not heard, from the first mark heard on. What was
        sent last may still be on its way, or wait to be played."""
        if not self.heard:
            return self._sent * self._chunk
        between = EVERY * self._chunk
        lost = 0.0
        for (number, sample), (after, its_sample) in pairwise(self.heard):
            marks = (after - number) % NUMBERS
            lost += max(0.0, marks * between - (its_sample - sample) / self._rate)
        behind = ((self._sent - 1) // EVERY - self.heard[-1][0]) % NUMBERS
        return lost + max(0.0, behind * between - ON_ITS_WAY)


class Innocent:
    """The call. The parent process calls the public methods, over a pipe."""

    def __init__(self, loop: Loop, daemon: int, phone_port: int) -> None:
        self._loop = loop
        self._port = phone_port
        self._control = Control(loop, daemon)
        self._phone: InnocentPhone | None = None
        self._bot: InnocentBot | None = None

    def call(self, call_id: str, bot_rate: int) -> None:
        """Let the phone call. The bot will send `bot_rate` samples per second."""
        self._to_bot, self._to_phone = Stream(PHONE_RATE, FRAME), Stream(bot_rate, CHUNK)
        self._phone = InnocentPhone(self._loop, self._port, call_id, self._to_bot, self._to_phone)

    def dial(self, url: str) -> None:
        """Let the bot dial `url`, in Pipecat's dialect."""
        self._bot = PipecatBot(self._loop, self._to_phone, self._to_bot, url)

    def listen(self) -> int:
        """Let the bot wait to be dialled, in Twilio's dialect. Returns its port."""
        listener = socket.create_server(("127.0.0.1", 0))

        def accept() -> None:
            self._bot = TwilioBot(self._loop, listener.accept()[0], self._to_phone, self._to_bot)
            self._loop.forget(listener.fileno())
            listener.close()

        self._loop.read(listener.fileno(), accept)
        port: int = listener.getsockname()[1]
        return port

    def talks(self) -> bool:
        """Phone and bot hear each other."""
        return bool(self._to_bot.heard and self._to_phone.heard)

    def begin(self) -> None:
        """Forget the gaps until now."""
        assert self._phone is not None
        self._phone.arrivals = self._phone.arrivals[-1:]

    def felt(self, shortened: float) -> Felt:
        """What the call has noticed since `begin`. `shortened`: seconds of the bot's audio that the
        bridge left out to catch up, which is not lost."""
        assert self._phone is not None
        assert self._bot is not None
        arrivals = [*self._phone.arrivals, time.monotonic()]
        gaps = [(b - a, b - a - self._control.excused(a, b)) for a, b in pairwise(arrivals)]
        return Felt(
            round(1000 * max(gap for _, gap in gaps), 1),
            round(1000 * max(gap for gap, _ in gaps), 1),
            round(self._to_bot.lost() / FRAME, 1),
            round(max(0.0, self._to_phone.lost() - shortened) / FRAME, 1),
            self._phone.over or self._bot.over,
        )

    def hang_up(self) -> None:
        """End the call."""
        for each in (self._phone, self._bot):
            if each is not None:
                each.close("hung up")
        self._phone = self._bot = None


class Connection:
    """A socket with a reader and a writer. `over`: why it is closed."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.over = ""
        self._loop = loop
        self._socket = sock
        self._rest = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        stamp(sock)
        loop.read(sock.fileno(), self._readable)

    def send(self, data: bytes) -> None:
        """Send all of `data`, or close: an honest bridge reads."""
        if self.over:
            return
        try:
            if self._socket.send(data) < len(data):
                self.close("the bridge does not read")
        except BlockingIOError:
            self.close("the bridge does not read")
        except OSError as error:
            self.close(str(error))

    def close(self, why: str) -> None:
        """Close, once."""
        if self.over:
            return
        self.over = f"{type(self).__name__}: {why}"
        self._loop.forget(self._socket.fileno())
        self._socket.close()

    def every(self, seconds: float, job: Callable[[], None]) -> None:
        """Call `job` on an absolute clock, until the connection is closed."""
        begun, count = time.monotonic(), 0

        def turn() -> float | None:
            nonlocal count
            if self.over:
                return None
            job()
            count += 1
            return begun + count * seconds

        self._loop.at(begun, turn)

    def _readable(self) -> None:
        try:
            data, at = receive(self._socket)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        if data:
            self._rest = self.take(self._rest + data, at)
        else:
            self.close("closed by the bridge")

    def take(self, data: bytes, at: float) -> bytes:
        """Take data that arrived at `at`; return what is incomplete."""
        raise NotImplementedError


class InnocentPhone(Connection):
    """The phone. `arrivals`: the times at which frames arrived."""

    def __init__(self, loop: Loop, port: int, call_id: str, out: Stream, ear: Stream) -> None:
        super().__init__(loop, socket.create_connection(("127.0.0.1", port)))
        self.arrivals: list[float] = []
        self._out, self._ear = out, ear
        self.send(plain.phone(plain.UUID, UUID(call_id).bytes))
        self.every(FRAME, self._speak)

    def _speak(self) -> None:
        self.send(plain.phone(plain.AUDIO, self._out.say()))

    def take(self, data: bytes, at: float) -> bytes:
        start = 0
        while len(data) - start >= _HEADER:
            stop = start + _HEADER + int.from_bytes(data[start + 1 : start + _HEADER], "big")
            if stop > len(data):
                break
            kind, pcm = data[start], data[start + _HEADER : stop]
            if kind == plain.AUDIO:
                self.arrivals.append(at)
                self._ear.hear(pcm, PHONE_RATE)
            else:
                self.close(f"the bridge has sent kind 0x{kind:02x}")
            start = stop
        return data[start:]


class InnocentBot(Connection):
    """A bot that talks as soon as it is ready."""

    def __init__(self, loop: Loop, sock: socket.socket, out: Stream, ear: Stream) -> None:
        super().__init__(loop, sock)
        self._out, self._ear = out, ear
        self._greeted = False

    def take(self, data: bytes, at: float) -> bytes:
        if not self._greeted:
            head, end, data_after = data.partition(b"\r\n\r\n")
            if not end:
                return data
            self._greeted = True
            self.greet(head)
            data = data_after
        frames, rest = plain.frames(data)
        for opcode, payload in frames:
            if opcode == plain.PING:
                self.send(self.frame(payload, plain.PONG))
            elif opcode == plain.CLOSE:
                self.close(f"closed by the bridge: {payload!r}")
            else:
                self.message(payload)
        return rest

    def greet(self, head: bytes) -> None:
        """Take the other side of the opening handshake."""
        raise NotImplementedError

    def frame(self, payload: bytes, opcode: int) -> bytes:
        """A WebSocket frame."""
        raise NotImplementedError

    def message(self, payload: bytes) -> None:
        """Take a message."""
        raise NotImplementedError


class PipecatBot(InnocentBot):
    """Dials the bridge, and speaks Pipecat's frames."""

    def __init__(self, loop: Loop, out: Stream, ear: Stream, url: str) -> None:
        super().__init__(loop, plain.dial(url), out, ear)
        self.send(plain.request(url))

    def greet(self, head: bytes) -> None:
        if b" 101 " not in head:
            self.close(f"refused: {head!r}")

    def frame(self, payload: bytes, opcode: int = plain.BINARY) -> bytes:
        return websocket.masked(payload, opcode)

    def message(self, payload: bytes) -> None:
        found = protobuf.read(payload)
        if isinstance(found, protobuf.AudioFields):
            self._ear.hear(found.pcm, found.rate)
        elif found is not None and '"client-ready"' in found:
            self.send(self.frame(plain.READY))
            self.every(CHUNK, self._speak)

    def _speak(self) -> None:
        self.send(self.frame(protobuf.audio_frame(self._out.say(), PIPECAT_RATE)))


class TwilioBot(InnocentBot):
    """Was dialled, and speaks Twilio Media Streams."""

    def greet(self, head: bytes) -> None:
        self.send(plain.answer(head))

    def frame(self, payload: bytes, opcode: int = plain.TEXT) -> bytes:
        return plain.frame(payload, opcode, masks=False)

    def message(self, payload: bytes) -> None:
        said = json.loads(payload)
        if said["event"] == "media":
            octets = base64.b64decode(said["media"]["payload"])
            self._ear.hear(g711.decode("ulaw", octets), PHONE_RATE)
        elif said["event"] == "start":
            self.every(CHUNK, self._speak)

    def _speak(self) -> None:
        octets = base64.b64encode(g711.encode("ulaw", self._out.say())).decode()
        media = {"event": "media", "media": {"payload": octets}}
        self.send(self.frame(json.dumps(media).encode()))
