"""A bot on the WebSocket wire, as particular as a real one, and as ill-behaved as told."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from tests.doubles import protobuf
from tests.doubles.bot_socket import BotAudio, BotSocket, Direction, WebSocketBot
from tests.doubles.garbage import GARBAGE

__all__ = ["BotAudio", "BotDouble", "Direction", "riff_header"]

START_FRAME = 0.3  # seconds until audio was safe with Pipecat 1.14; at 20 ms it was not


class BotDouble(WebSocketBot):
    """A bot with one WebSocket for both ways, or one for each; it dials, or is dialled.

    `ready_after`: seconds from RTVI `client-ready` to its `bot-ready`; None: it knows no RTVI.
    `dies_before`: audio that comes before it has sent `bot-ready`, or within that many seconds of
    the connection, ends its session as it does in Pipecat; None: it takes audio at any time. A bot
    without RTVI has nothing to send, so for it "bot-ready" means 0.3 s. `on_ready` is called with
    the bot after its `bot-ready`. Further options are those of WebSocketBot.

    What it received is in `audio`, `messages` (RTVI), `texts`, `others`; what it had to complain
    about in `faults`; how its sockets ended in `closes`.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        ready_after: float | None = 0.0,
        dies_before: Literal["bot-ready"] | float | None = "bot-ready",
        expected_rate: int = 16000,
        wav_header: bool = False,
        on_ready: Callable[[BotDouble], object] | None = None,
        **socket_options: Any,
    ) -> None:
        super().__init__(reactor, **socket_options)
        self.on_ready = on_ready
        self.ready_after = ready_after
        if dies_before == "bot-ready" and ready_after is None:
            dies_before = START_FRAME
        self.dies_before = dies_before
        self.expected_rate = expected_rate
        self.wav_header = wav_header
        self.messages: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.others: list[protobuf.Decoded] = []
        self.ready_sent = False
        self._ready_id: str | None = None
        self._dead = False
        self._dialled: list[BotSocket] = []
        self._connecting: Deferred[Any] | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What it was told of the call in band, by the RTVI client-message `call-metadata`."""
        data = (each["data"] for each in self.messages if each.get("type") == "client-message")
        told = (each["d"] for each in data if each["t"] == "call-metadata")
        return next(told, {})

    @property
    def call_id(self) -> str:
        """The id of the call as it was told in band, else empty."""
        return str(self.told.get("id", ""))

    async def dial(self, ws_url: str, direction: Direction | Literal["both"] = None) -> None:
        """Connect one socket, or with "both" one for each direction; DialError if not taken."""
        ways: tuple[Direction, ...] = ("input", "output") if direction == "both" else (direction,)
        for way in ways:
            protocol = self.socket(ws_url, way)
            factory = protocol.factory
            endpoint = TCP4ClientEndpoint(self.clock, factory.host, factory.port)
            self._connecting = connectProtocol(endpoint, protocol)
            await self._connecting
            await protocol.opened

    def socket(self, ws_url: str, direction: Direction = None) -> BotSocket:
        """A socket that is still to be connected, for links in memory."""
        if direction is not None:
            ws_url += ("&" if "?" in ws_url else "?") + f"direction={direction}"
        factory = WebSocketClientFactory(ws_url, reactor=self.clock)
        # Autobahn's timers would run on the global reactor; the double needs none of them.
        factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0
        )
        protocol = BotSocket(self, direction)
        protocol.factory = factory
        self._dialled.append(protocol)
        return protocol

    def send_audio(self, pcm: bytes, rate: int, channels: int = 1) -> None:
        """Send one audio frame of any size; with two channels `pcm` is interleaved already."""
        header = riff_header(len(pcm), rate, channels) if self.wav_header else b""
        self.send(protobuf.encode_audio(header + pcm, rate, channels))

    def rtvi(self, kind: str, data: Any = None) -> None:
        """Send an RTVI message."""
        self.send(protobuf.encode_rtvi(kind, data))

    def burst(
        self, pcm: bytes, rate: int, chunk_ms: int = 40, *, stereo: bool = False, odd: bool = False
    ) -> None:
        """Send mono `pcm` all at once. `stereo`: twice side by side; `odd`: odd byte counts."""
        for chunk in _chunks(pcm, rate, chunk_ms, stereo, odd):
            self.send_audio(chunk, rate, 2 if stereo else 1)

    def say(
        self,
        pcm: bytes,
        rate: int,
        *,
        pace: float = 1.0,
        chunk_ms: int = 40,
        stereo: bool = False,
        odd: bool = False,
    ) -> Deferred[None]:
        """As `burst`, but `pace` times as fast as real time; fires after the last chunk."""
        chunks = _chunks(pcm, rate, chunk_ms, stereo, odd)
        done: Deferred[None] = Deferred()
        start, sent = self.clock.seconds(), 0

        def next_chunk() -> None:
            nonlocal sent
            chunk = next(chunks, None)
            if chunk is None or not self.sockets:
                done.callback(None)
                return
            self.send_audio(chunk, rate, 2 if stereo else 1)
            sent += 1
            due = start + sent * chunk_ms / 1000 / pace
            self.later(max(0.0, due - self.clock.seconds()), next_chunk)

        next_chunk()
        return done

    def long_silence(self, rate: int = 16000) -> None:
        """The 2 s of silence in one frame with which Pipecat ends its output (64 kB at 16 kHz)."""
        self.send_audio(bytes(rate * 4), rate)

    def interrupt(self, how: Literal["frame", "rtvi", "flush_media"] = "frame") -> None:
        """Barge-in, by one of the three signals."""
        if how == "frame":
            self.send(protobuf.encode("interruption", id=1, name="InterruptionFrame#1"))
        elif how == "rtvi":
            self.rtvi("bot-interrupted")
        else:
            self.send(protobuf.encode("text", id=1, name="TextFrame#1", text="FLUSH_MEDIA"))

    def garbage(self, name: str | None = None) -> None:
        """Send one kind of `GARBAGE`, or all of it."""
        for payload, binary in [GARBAGE[name]] if name else GARBAGE.values():
            self.send(payload, binary)

    def die(self) -> None:
        """The process is gone: connections end with RST, in the midst of dialling too."""
        if self._connecting is not None:
            self._connecting.cancel()
        for one in self._dialled:
            if one.transport is not None and not one.gone.called:
                one.die()
        super().die()

    def socket_opened(self, opened: Any) -> None:
        """Called by the socket."""
        super().socket_opened(opened)
        if self._ready_id is not None:
            self._send_ready()

    def received(self, source: Any, payload: bytes, binary: bool) -> None:
        """Called by the socket for every message."""
        if self._dead:
            return
        try:
            if not binary:
                raise ValueError("a text message, where Pipecat expects binary ones")
            if source.direction == "output":
                raise ValueError("a message on the output socket, which the bridge only reads")
            which, value = protobuf.decode(payload)
            if which == "audio":
                self._got_audio(source, value)
            elif which == "message":
                self._got_message(value.data)
            elif which == "text":
                self.texts.append(value.text)
            else:
                self.others.append(protobuf.Decoded(which, value))
        except ValueError as error:
            self.faults.append(str(error))
        self.changed()

    def _got_audio(self, source: Any, frame: Any) -> None:
        if early := self._too_early(source):
            self.faults.append(early)
            self._dead = True
            self.close(1011, "StartFrame not received yet")
            return
        now = self.clock.seconds()
        self.audio.append(BotAudio(now, frame.sample_rate, frame.num_channels, frame.audio))
        if self.echo:
            self.send_audio(frame.audio, frame.sample_rate)
        if frame.sample_rate != self.expected_rate or frame.num_channels != 1:
            raise ValueError(
                f"audio at {frame.sample_rate} Hz in {frame.num_channels} channels, "
                f"expected {self.expected_rate} Hz in one"
            )
        if not frame.audio or len(frame.audio) % 2:
            raise ValueError(f"audio of {len(frame.audio)} bytes, expected whole samples")

    def _too_early(self, source: Any) -> str | None:
        if self.dies_before == "bot-ready":
            return None if self.ready_sent else "audio came before bot-ready was sent"
        age = self.clock.seconds() - source.opened_at
        if self.dies_before is None or age >= self.dies_before:
            return None
        return f"audio came {age * 1000:.0f} ms after the connection, before StartFrame"

    def _got_message(self, data: str) -> None:
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError(f"a message that is not an object: {data[:80]}")
        self.messages.append(message)
        if message.get("type") == "disconnect-bot":
            self.asked_to_end()
        if message.get("type") == "client-ready" and self.ready_after is not None:
            self._ready_id = str(message.get("id"))
            self.later(self.ready_after, self._send_ready)

    def _send_ready(self) -> None:
        if self._dead or self._ready_id is None or not {"output", None} & self.sockets.keys():
            return
        about = {"version": "1.0.0", "about": {"library": "double"}}
        ready_id, self._ready_id = self._ready_id, None
        self.ready_sent = True
        self.send(protobuf.encode_rtvi("bot-ready", about, ready_id))
        if self.on_ready is not None:
            self.on_ready(self)
        self.changed()


def riff_header(size: int, rate: int, channels: int = 1) -> bytes:
    """The 44 bytes of a WAV file's header for `size` bytes of 16-bit samples."""
    block = channels * 2
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * block, block, 16)
    start = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
    return start + layout + b"data" + struct.pack("<I", size)


def _chunks(pcm: bytes, rate: int, chunk_ms: int, stereo: bool, odd: bool) -> Iterator[bytes]:
    if stereo:
        pcm = np.frombuffer(pcm, "<i2").repeat(2).tobytes()
    size = rate * chunk_ms // 1000 * (4 if stereo else 2) + (1 if odd else 0)
    return (pcm[start : start + size] for start in range(0, len(pcm), size))
