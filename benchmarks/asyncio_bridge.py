"""A bridge as people write it by hand, for comparison: asyncio streams, websockets, and a soxr
stream for each direction.

It is as good as such a script is without much work: absolute deadlines, TCP_NODELAY, and no copies
that are easy to avoid. It has one WebSocket for each call, and no limit for the audio that waits
for a bot. soxr delays audio and returns blocks of 100 ms and more, so there are five times fewer
messages. At quality QQ soxr does not delay, but the sound has aliases.

    python -m benchmarks.asyncio_bridge PHONE_PORT BOT_PORT RUNNER_URL QUALITY
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import soxr
from websockets.asyncio.server import serve

from pipecat_bridge.wire.frames_pb2 import Frame

FRAME = 0.02
PHONE_RATE, BOT_RATE = 8000, 16000
FRAME_BYTES = 2 * round(PHONE_RATE * FRAME)
HEADER = b"\x10" + FRAME_BYTES.to_bytes(2, "big")
SILENCE = bytes(FRAME_BYTES)
PREBUFFER = 2 * FRAME_BYTES


class Call:
    """One call, with its phone and its bot."""

    def __init__(self, quality: str) -> None:
        self.bot: Any = None
        self.heard = bytearray()
        self._to_bot = soxr.ResampleStream(PHONE_RATE, BOT_RATE, 1, "int16", quality)
        self._to_phone = soxr.ResampleStream(BOT_RATE, PHONE_RATE, 1, "int16", quality)

    async def from_phone(self, pcm: bytes) -> None:
        """Send caller audio to the bot."""
        samples = self._to_bot.resample_chunk(np.frombuffer(pcm, np.int16))
        if self.bot is not None and len(samples):
            frame = Frame()
            frame.audio.audio = samples.tobytes()
            frame.audio.sample_rate = BOT_RATE
            frame.audio.num_channels = 1
            await self.bot.send(frame.SerializeToString())

    def from_bot(self, data: bytes) -> None:
        """Take a frame of the bot, for the caller."""
        frame = Frame.FromString(data)
        if frame.WhichOneof("frame") == "audio":
            samples = np.frombuffer(frame.audio.audio, np.int16)
            self.heard += self._to_phone.resample_chunk(samples).tobytes()

    async def play(self, writer: asyncio.StreamWriter) -> None:
        """Send a frame every 20 ms: bot audio, or silence if there is none."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        playing = False
        while True:
            playing = len(self.heard) >= (FRAME_BYTES if playing else PREBUFFER)
            pcm = bytes(self.heard[:FRAME_BYTES]) if playing else SILENCE
            if playing:
                del self.heard[:FRAME_BYTES]
            writer.write(HEADER + pcm)
            await writer.drain()
            due += FRAME
            await asyncio.sleep(due - loop.time())


class Bridge:
    """Connects phones and bots of all calls."""

    def __init__(self, bot_port: int, runner: str, quality: str) -> None:
        self._bot_port = bot_port
        self._quality = quality
        self._runner = urlsplit(runner)
        self._calls: dict[str, Call] = {}

    async def phone(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one AudioSocket connection."""
        call = Call(self._quality)
        playing = asyncio.create_task(call.play(writer))
        call_id = ""
        try:
            while True:
                header = await reader.readexactly(3)
                payload = await reader.readexactly(int.from_bytes(header[1:], "big"))
                if header[0] == 0x10:
                    await call.from_phone(payload)
                elif header[0] == 0x01:
                    call_id = str(uuid.UUID(bytes=payload))
                    self._calls[call_id] = call
                    await self._run(call_id)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            playing.cancel()
            self._calls.pop(call_id, None)
            if call.bot is not None:
                await call.bot.close()
            writer.close()

    async def _run(self, call_id: str) -> None:
        url = f"ws://127.0.0.1:{self._bot_port}/{call_id}/ws"
        body = json.dumps({"id": call_id, "ws_url": url}).encode()
        host, port = self._runner.hostname, self._runner.port
        reader, writer = await asyncio.open_connection(host, port)
        head = f"POST /run HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def bot(self, socket: Any) -> None:
        """Serve one WebSocket of a bot."""
        call = self._calls.get(socket.request.path.split("/")[1])
        if call is None:
            return
        call.bot = socket
        async for message in socket:
            call.from_bot(message)


async def main(phone_port: int, bot_port: int, runner: str, quality: str) -> None:
    bridge = Bridge(bot_port, runner, quality)
    await serve(bridge.bot, "127.0.0.1", bot_port, compression=None, backlog=1024)
    phones = await asyncio.start_server(bridge.phone, "127.0.0.1", phone_port, backlog=1024)
    await phones.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
