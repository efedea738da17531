"""A dial-back runner in a process of its own; its bots send back what they hear, cheaply.

`python -m tests.asterisk.echo_runner` prints its URL. An audio frame goes back as the bytes that
came, unparsed, so that fifty bots take little of the machine that is being measured. With the
argument 40, what is heard goes back in chunks of 40 ms, as Pipecat sends.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.doubles import protobuf

ECHO_AFTER = 0.2
"""Seconds from bot-ready on in which nothing is sent back.

What the caller said until the bot was there comes to it at once, and an echo of that would keep the
call late by as much for ever.
"""

_AUDIO_TAG = 0x12  # field 2 of pipecat.Frame, length-delimited
_BINARY, _CLOSE, _PING, _PONG = 0x2, 0x8, 0x9, 0xA
_NO_MASK = bytes(4)


class EchoBot(Protocol):
    """The client side of one WebSocket, just as much of it as the bridge needs."""

    transport: ITCPTransport

    def __init__(self, url: str, chunk: float) -> None:
        self._chunk = chunk
        self._pcm = b""
        self._url = urlsplit(url)
        self._data = b""
        self._open = False
        self._echo = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {self._url.path} HTTP/1.1",
            f"Host: {self._url.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if not self._open:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                self.transport.loseConnection()
                return
            self._open, self._data = True, rest
        while self._frame():
            pass

    def _frame(self) -> bool:
        """Take one whole frame out of the data; False when there is none."""
        data = self._data
        if len(data) < 2:
            return False
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return False
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return False
        self._data = data[start + size :]
        self._take(data[0] & 0x0F, data[start : start + size])
        return True

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _BINARY and payload and payload[0] == _AUDIO_TAG:
            if self._echo and self._chunk:
                self._send_chunks(payload)
            elif self._echo:
                self._send(_BINARY, payload)
        elif opcode == _BINARY and b"client-ready" in payload:
            self._send(_BINARY, protobuf.encode_rtvi("bot-ready", {"version": "1.0.0"}, "1"))
            reactor.callLater(ECHO_AFTER, self._listen)
        elif opcode == _PING:
            self._send(_PONG, payload)
        elif opcode == _CLOSE:
            self._send(_CLOSE, payload[:2])
            self.transport.loseConnection()

    def _send_chunks(self, payload: bytes) -> None:
        _, audio = protobuf.decode(payload)
        self._pcm += audio.audio
        size = round(self._chunk * audio.sample_rate) * 2
        while len(self._pcm) >= size:
            self._send(_BINARY, protobuf.encode_audio(self._pcm[:size], audio.sample_rate))
            self._pcm = self._pcm[size:]

    def _listen(self) -> None:
        self._echo = True

    def _send(self, opcode: int, payload: bytes) -> None:
        """A client must mask; with a key of zeros the bytes stay as they are."""
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.transport.write(bytes((0x80 | opcode,)) + length + _NO_MASK + payload)


class EchoRunner(Resource):
    """`/run`, `/stop` and `/health`."""

    isLeaf = True

    def __init__(self, chunk: float) -> None:
        super().__init__()
        self._chunk = chunk

    def render(self, request: Request) -> bytes:
        if request.path == b"/run":
            url = json.load(request.content)["ws_url"]
            address = urlsplit(url)
            endpoint = TCP4ClientEndpoint(reactor, address.hostname, address.port)
            connectProtocol(endpoint, EchoBot(url, self._chunk))
        request.setHeader("content-type", "application/json")
        return b'{"status": "ok"}'


async def main() -> None:
    """Listen on a free port and say where."""
    chunk = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.0
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        Site(EchoRunner(chunk))
    )
    print(f"http://127.0.0.1:{port.getHost().port}", flush=True)


if __name__ == "__main__":
    Deferred.fromCoroutine(main())
    reactor.run()
