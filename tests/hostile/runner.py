"""The runner of all calls, in a thread: says where the bot of a call is, or shall dial."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_LONGEST = 10.0
"""Seconds to wait for the bridge to ask for a bot."""


class Runner(ThreadingHTTPServer):
    """Answers the bridge's /run and /start. Bots ask it as well: `/url?id=` is the URL that a bot
    dials, and `/bot?id=&url=` says where a bot waits to be dialled."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self._changed = threading.Condition()
        self._asked: dict[str, str] = {}
        self._bots: dict[str, str] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the bridge has closed."""

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def dial_url(self, call_id: str) -> str:
        """The URL that the bot of a call dials; "" if the bridge has not asked for it in time."""
        with self._changed:
            self._changed.wait_for(lambda: call_id in self._asked, _LONGEST)
            return self._asked.pop(call_id, "")

    def add_bot(self, call_id: str, url: str) -> None:
        """Say where the bot of a call waits."""
        self._bots[call_id] = url

    def answer(self, target: str, body: bytes) -> Any:
        """The answer to a request, as JSON."""
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/run":
            asked = json.loads(body)
            with self._changed:
                self._asked[asked["id"]] = asked["ws_url"]
                self._changed.notify_all()
        elif parts.path == "/start":
            return {"ws_url": self._bots.pop(json.loads(body)["body"]["id"])}
        elif parts.path == "/url":
            return self.dial_url(query["id"])
        elif parts.path == "/bot":
            self.add_bot(query["id"], query["url"])
        return {"status": "ok"}


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Runner

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, answer = 200, self.server.answer(self.path, body)
        except KeyError:
            status, answer = 404, {"status": "no such call"}
        written = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(written)))
        self.end_headers()
        self.wfile.write(written)

    do_GET = do_POST

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""
