"""The same stream to Autobahn alone, and to the shortcut past it: the answers must be the same."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.task import Clock

from pipecat_bridge.options import WebSocketOptions
from tests.doubles.echo import Way, client, server
from tests.fuzz.harness import FindingError, LenientTransport, pieces, settle
from tests.hostile import plain

OPTIONS: Final = WebSocketOptions(max_frame=3000, max_message=5000)
_URL: Final = "ws://127.0.0.1:8001/x/ws"

SEEDS: Final = (
    b"\0\1" + plain.frame(b"hello") + plain.frame(b"x" * 300) + plain.frame(b"", plain.PING),
    b"\1\5" + plain.frame("\u00e9".encode(), plain.TEXT) + plain.frame(b"\xff", plain.TEXT),
    b"\2\6" + plain.frame(b"ab", first=0) + plain.frame(b"", plain.PONG) + plain.frame(b"c", 0),
    b"\0\0" + plain.frame(b"\3\xe8bye", plain.CLOSE) + plain.frame(b"late"),
    b"\4\3" + plain.frame(b"ab", masks=False) + plain.frame(b"cd", plain.TEXT, masks=False),
    b"\0\2" + plain.frame(bytes(3001)),
    b"\1\2" + plain.frame(b"x" * 2900, plain.TEXT, 0) + plain.frame(b"x" * 2900, 0),
    b"\1\2"
    + plain.frame(b"\xff" * 2900, plain.TEXT, 0)[:600],  # the rest comes with the next frame
)


class _End:
    """One end of a connection in memory, after the opening handshake."""

    def __init__(self, way: Way, role: int) -> None:
        self.clock = Clock()
        factory = (
            client(way, self.clock, OPTIONS, _URL) if role else server(way, self.clock, OPTIONS)
        )
        # Autobahn's timers would run on the global reactor.
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        self.transport = LenientTransport()
        self.protocol: Any = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        sent = self.transport.value()
        self.protocol.dataReceived(plain.answer(sent) if role else plain.request(_URL))
        settle(self.clock)
        self.transport.clear()

    def feed(self, data: bytes) -> None:
        """Take data, and all that follows from it."""
        if not self.transport.disconnecting:
            self.protocol.dataReceived(data)
            settle(self.clock)

    def said(self) -> tuple[list[tuple[int, bytes]], bool]:
        """The frames that were sent, a close without its words, and whether it is closed."""
        frames, rest = plain.frames(self.transport.value())
        if rest:
            raise FindingError(f"half a frame was sent: {rest!r}")
        said = [(code, body[:2] if code == plain.CLOSE else body) for code, body in frames]
        return said, bool(self.transport.disconnecting)


def one_input(data: bytes) -> None:
    """The first byte: which messages take the shortcut, and the role. The second: the cuts."""
    first, seed, stream = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
    way: Way = ("binary", "text", "off")[(first[0] & 3) % 3]
    role = first[0] >> 2 & 1
    ours, alone = _End(way, role), _End("autobahn", role)
    for piece in pieces(stream, seed[0]):
        ours.feed(piece)
        alone.feed(piece)
    # Autobahn finds a byte that is not UTF-8 in half a frame, the shortcut in the whole one.
    for end in (ours, alone):
        end.feed(bytes(OPTIONS.max_frame + 14))
    if ours.said() != alone.said():
        raise FindingError(f"{way}: {ours.said()}, Autobahn alone: {alone.said()}")
