"""The bridge's side of a call, on asyncio: the server to which the runner dials back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import soxr
from pipecat.frames.protobufs import frames_pb2
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from pipecat_bridge.embedded.espeak import Espeak

protobufs: Any = frames_pb2  # its classes are made at run time
RATE = 16000
FRAME = RATE // 50 * 2  # bytes of 20 ms
CLIENT_READY = {"version": "1.0.0", "about": {"library": "fake-bridge"}}


class FakeCall:
    """One call as the bridge sees it: what the bot sent, in order, and what is sent to it."""

    def __init__(self, at_once: bytes = b"") -> None:
        """`at_once`: audio that is sent even if the bot is not ready."""
        self.at_once = at_once
        self.directions: list[str] = []
        self.frames: list[Any] = []  # every protobuf frame of the bot, in order
        self.input: ServerConnection | None = None
        self.close_codes: list[int | None] = []
        self.changed = asyncio.Event()
        self._speech = bytearray()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The RTVI messages of the bot."""
        return [
            json.loads(f.message.data) for f in self.frames if f.WhichOneof("frame") == "message"
        ]

    def texts(self, kind: str) -> list[str]:
        """The text of every RTVI message of one type."""
        return [m["data"]["text"] for m in self.messages if m["type"] == kind]

    def audio(self, since: int = 0) -> bytes:
        """The samples that the bot has sent, from its frame number `since` on."""
        return b"".join(
            f.audio.audio for f in self.frames[since:] if f.WhichOneof("frame") == "audio"
        )

    async def until(self, condition: Callable[[], Any], timeout: float = 120.0) -> Any:
        """Wait until `condition()` is true, looking at every frame that comes."""
        async with asyncio.timeout(timeout):
            while not (result := condition()):
                self.changed.clear()
                await self.changed.wait()
        return result

    async def send(self, **frame: Any) -> None:
        """Send one protobuf frame."""
        assert self.input is not None
        await self.input.send(protobufs.Frame(**frame).SerializeToString())

    async def send_message(self, kind: str, data: dict[str, Any]) -> None:
        """Send one RTVI message."""
        message = {"label": "rtvi-ai", "type": kind, "id": "1", "data": data}
        await self.send(message=protobufs.MessageFrame(data=json.dumps(message)))

    async def send_audio(self, pcm16: bytes) -> None:
        """Send one frame of caller audio."""
        await self.send(
            audio=protobufs.AudioRawFrame(audio=pcm16, sample_rate=RATE, num_channels=1)
        )

    def say(self, text: str, voice: str = "en-us") -> None:
        """Let the caller say something, at the quality of a telephone."""
        self._speech += telephone_speech(text, voice)

    def has(self, kind: str) -> bool:
        """Whether the bot has sent an RTVI message of a type."""
        return any(message["type"] == kind for message in self.messages)

    async def until_closed(self, sockets: int = 1) -> None:
        """Wait until the bot has closed every socket in good order."""
        await self.until(lambda: self.close_codes == [1000] * sockets)

    async def listen_and_speak(self) -> None:
        """Send the caller's audio in real time, silence where nothing is said, until closed."""
        due = asyncio.get_running_loop().time()
        while not self.close_codes:
            frame = bytes(self._speech[:FRAME]).ljust(FRAME, b"\0")
            del self._speech[:FRAME]
            with suppress(ConnectionClosed):  # the bot may hang up while the caller still talks
                await self.send_audio(frame)
            due += 0.02
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


class FakeBridge:
    """A WebSocket server on a port of its own; `await bridge.call(id)` waits for a dial-back."""

    def __init__(self) -> None:
        self.calls: dict[str, FakeCall] = {}

    async def __aenter__(self) -> FakeBridge:
        self._server = await serve(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def expect(self, call_id: str, at_once: bytes = b"") -> FakeCall:
        """Make ready for a call."""
        return self.calls.setdefault(call_id, FakeCall(at_once))

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path, _, query = connection.request.path.partition("?")
        call = self.calls[path.split("/")[1]]
        call.directions.append(query)
        if "direction=output" not in query:
            call.input = connection
            for start in range(0, len(call.at_once), FRAME):
                await call.send_audio(call.at_once[start : start + FRAME])
            await call.send_message("client-ready", CLIENT_READY)
        async for data in connection:
            call.frames.append(protobufs.Frame.FromString(data))
            call.changed.set()
        call.close_codes.append(connection.close_code)
        call.changed.set()


def telephone_speech(text: str, voice: str = "en-us", rate_wpm: int = 150) -> bytes:
    """Speech as it comes through the bridge: 8 kHz, resampled to 16 kHz, 16-bit mono."""
    pcm16, rate = Espeak().synthesize(text, voice, rate_wpm)
    speech = np.frombuffer(pcm16, dtype="<i2").astype(np.float64) * 0.5
    narrow = np.rint(soxr.resample(speech, rate, 8000))
    wide = soxr.resample(narrow, 8000, RATE)
    return bytes(np.clip(np.rint(wide), -32768, 32767).astype("<i2").tobytes())
