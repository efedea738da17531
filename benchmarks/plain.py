"""The daemon as one would first write it with Twisted and Autobahn: what all of it is worth.

Every message passes Autobahn, every write Twisted's queue and a turn of the loop, every event
Twisted's own polling; and the plan of six fixes has not been carried out (`benchmarks.before`).

    python -m benchmarks.plain -n pipecat-bridge --set ...
"""

from __future__ import annotations

import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketAdapterProtocol
from twisted.internet.interfaces import ITransport

from benchmarks import before
from pipecat_bridge.net import transport
from pipecat_bridge.wire.websocket import BINARY


class QueuedTransport(transport.EagerTransport):
    """Writes as Twisted does."""

    def __init__(self, wrapped: ITransport, *rest: Any) -> None:
        known = transport.plain_socket
        transport.plain_socket = lambda _: None
        try:
            super().__init__(wrapped, *rest)
        finally:
            transport.plain_socket = known


def undo() -> None:
    """Take the shortcuts out, and the fixes; before the daemon is wired."""
    before.undo()
    from pipecat_bridge import service
    from pipecat_bridge.asterisk import audiosocket as connection
    from pipecat_bridge.runner.socket import protocol as websocket

    def send(self: Any, payload: bytes) -> None:
        self.sendMessage(payload, self._opcode == BINARY)

    def ping(self: Any, payload: bytes) -> None:
        self.sendPing(payload)

    protocol: Any = websocket.BotSocketProtocol
    protocol.dataReceived = WebSocketAdapterProtocol.dataReceived
    protocol.send, protocol.ping = send, ping
    for module in (connection, websocket):
        vars(module)["EagerTransport"] = QueuedTransport
    vars(service)["poll_in_batches"] = lambda *_: None


if __name__ == "__main__":
    undo()
    sys.argv[0] = "twistd"
    from twisted.scripts.twistd import run

    run()
