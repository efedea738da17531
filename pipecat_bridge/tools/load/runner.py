"""The runner of a load: answers /run, /stop and /health, and makes a bot for each /run."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final

from pipecat_bridge.tools.load.bots import AGAIN, DYING, HeardByBot, LoadBot
from pipecat_bridge.tools.load.calls import Role, read_id
from pipecat_bridge.tools.load.loop import READ_BYTES, Loop
from pipecat_bridge.tools.load.patterns import Pattern

_BACKLOG: Final = 1024


class Runner:
    """All bots of one process. The parent process calls the public methods, over a pipe."""

    def __init__(
        self, loop: Loop, host: str, port: int, sockets: int = 2, pattern: Pattern | None = None
    ) -> None:
        """`pattern`: how bots send back what they hear; None: at once."""
        self.loop = loop
        self.pattern = pattern
        self.sockets = sockets
        self.recording = False
        self.counts: Counter[str] = Counter()
        self.heard: list[HeardByBot] = []
        self.first_audio: dict[int, float] = {}
        self.stalls: list[tuple[int, float, float]] = []
        self._bots: set[LoadBot] = set()
        self._listener = socket.create_server((host, port), backlog=_BACKLOG)
        self._listener.setblocking(False)
        loop.read(self._listener.fileno(), self._accept)

    def port(self) -> int:
        """The port on which the runner listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def status(self) -> dict[str, Any]:
        """Counts; "bots": bots that run."""
        return {"bots": len(self._bots), **self.counts}

    def record(self) -> None:
        """Count and measure from now on. Bots with a fault begin with it."""
        self.recording = True
        self.counts.clear()
        self.heard.clear()
        self.stalls.clear()
        for bot in self._bots:
            if bot.role in (Role.STALLED, Role.BURSTING):
                self.loop.at(time.monotonic() + AGAIN / 5, bot.misbehave)

    def stop(self) -> dict[str, Any]:
        """Stop measuring. Returns the results."""
        self.recording = False
        return {
            "counts": dict(self.counts),
            "heard": self.heard,
            "first_audio": self.first_audio,
            "stalls": self.stalls,
        }

    # From a bot

    def ready(self, bot: LoadBot) -> None:
        """Count a bot that takes audio."""
        self.counts["ready"] += 1
        if bot.role is Role.DYING:
            self.loop.at(time.monotonic() + DYING, bot.misbehave)

    def gone(self, bot: LoadBot) -> None:
        """Forget a bot whose connections are closed."""
        self._bots.discard(bot)

    # HTTP

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            _Connection(self, sock)

    def answer(self, method: str, target: str, body: bytes) -> int:
        """Handle a request. Returns the HTTP status."""
        if target.startswith(("/health", "/stop")):
            return 200
        if method != "POST" or target != "/run":
            return 404
        asked = json.loads(body)
        role, number = read_id(asked["id"])
        self.counts["runs"] += 1
        self._bots.add(LoadBot(self, number, role, asked["ws_url"]))
        return 200


class _Connection:
    """One persistent HTTP/1.1 connection."""

    def __init__(self, runner: Runner, sock: socket.socket) -> None:
        self._runner = runner
        self._socket = sock
        self._data = b""
        runner.loop.read(sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._runner.loop.forget(self._socket.fileno())
            self._socket.close()
            return
        self._data += data
        while self._one_request():
            pass

    def _one_request(self) -> bool:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(":") for x in lines[1:])}
        size = int(headers.get("content-length", "0"))
        if len(rest) < size:
            return False
        self._data = rest[size:]
        method, target, _ = lines[0].split(" ", 2)
        self._reply(self._runner.answer(method, target, rest[:size]))
        return True

    def _reply(self, status: int) -> None:
        body = b'{"status": "ok"}' if status == 200 else b'{"status": "no such thing"}'
        head = (
            f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            self._socket.send(head.encode() + body)
