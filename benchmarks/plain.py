"""The daemon as a first version with Twisted and Autobahn would be. It shows the gain of all
optimisations.

Every message passes Autobahn. Every write passes Twisted's queue, and waits for the next turn of
the loop. Twisted's own polling finds every event. The six fixes of the performance plan are undone
as well (`benchmarks.before`).

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
    """Writes through Twisted's queue."""

    def __init__(self, wrapped: ITransport, *rest: Any) -> None:
        known = transport.plain_socket
        transport.plain_socket = lambda _: None
        try:
            super().__init__(wrapped, *rest)
        finally:
            transport.plain_socket = known


def undo() -> None:
    """Undo the shortcuts and the fixes. Must be called before the daemon is built."""
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
