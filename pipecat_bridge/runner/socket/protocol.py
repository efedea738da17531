"""A bot's WebSocket for both roles, client and server: connects Autobahn with the link."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketAdapterProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITransport

from pipecat_bridge.net.slices import MOST, Slices
from pipecat_bridge.net.transport import EagerTransport, set_buffers
from pipecat_bridge.options import WebSocketOptions
from pipecat_bridge.runner.link.interfaces import Direction, SocketClose
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.wire.websocket import BINARY, PING, TEXT, PlainFrames, pong

CLEAN: Final = (None, 1000, 1001, 1005)
"""Close codes of an end in good order (RFC 6455, section 7.4.1). 1001 is one of them because
Pipecat's WebSocket server closes with it at the end of every bot."""

BUSY_CODES: Final = (1012, 1013)
"""Close codes of a server that restarts (1012), or that serves another client now (1013); see
IANA's registry of WebSocket close codes."""

MAX_HANDSHAKE: Final = 1 << 14
"""Most bytes of the peer's part of the opening handshake. Autobahn has no limit, and reads them
when the last one has come: with many headers or parameters that takes half a second a megabyte."""

BITE: Final = 1024
BITES: Final = 2
"""Bytes that Autobahn gets at once, and how often in a turn, while it stands within a message, and
after a fault of the peer. They may be hundreds of tiny frames, of 4 to 20 us each."""

MOST_WAITING: Final = 1 << 18
"""Bytes that wait for a bot that does not read. Then keys, texts and marks are dropped as well."""

LAST_READ: Final = 0.1
"""Seconds to read what has come, when the time for an answer to our close is over."""

MOST_FRAGMENTS: Final = 4096
"""Frames of one message. Autobahn limits its bytes, and an empty frame has none."""


def _ignore(payload: bytes) -> None:
    """Drop a message: there is no link."""


class BotSocketProtocol(WebSocketAdapterProtocol, WebSocketProtocol):  # type: ignore[misc]  # as theirs
    """Carries the messages of a link. Subclasses add the opening handshake of their role.

    `peer_masks`: the peer masks its frames, as a client does. `handshake`: what the peer sends of
    the opening handshake. `frame` makes a final WebSocket frame
    from payload and opcode, masked if this role must mask.
    """

    peer_masks: bool
    handshake: str
    frame: Callable[[bytes, int], bytes]
    failHandshake: Callable[[str], None]
    outlet: EagerTransport
    _link: BotLink | None = None
    _direction: Direction = "both"
    _keepalive: IDelayedCall | None = None
    _pinged_at: float | None = None  # time of the first ping after the peer's last message
    _pong: bytes | None = None  # payload of the newest ping, while the peer does not read
    _heard = False
    _out_of_time = False  # the peer has had its time to answer our close
    _paused = False
    _opcode = BINARY
    _received: Callable[[bytes], None] = staticmethod(_ignore)  # of the link, while there is one
    _frames: PlainFrames | None = None  # set while Autobahn may be between two frames
    _unread = b""  # otherwise, of what has come
    _greeted = 0  # bytes of the opening handshake

    @property
    def settings(self) -> WebSocketOptions:
        """The options of the socket."""
        settings: WebSocketOptions = self.factory.options
        return settings

    @property
    def clock(self) -> IReactorTime:
        """The clock of all timers."""
        clock: IReactorTime = self.factory.reactor
        return clock

    def makeConnection(self, transport: ITransport) -> None:
        options = self.settings
        set_buffers(transport, options.read_buffer, options.write_buffer, options.unsent_limit)
        self.outlet = EagerTransport(transport, self._drained)
        self._slices = Slices(self.clock, self.outlet, lambda: self.dataReceived(b""))
        super().makeConnection(self.outlet)

    def dataReceived(self, data: bytes) -> None:
        """Take audio and pongs here, without Autobahn. Autobahn gets all other frames, whole."""
        frames = self._frames
        if frames is not None and self.state == self.STATE_OPEN:
            payload = frames.only(data)
            if payload is not None:
                self._heard = True
                self._received(payload)
                return
        if frames is None:
            data = self._begin(data)
            frames = self._frames
            if frames is None:
                return
        if data and frames.more:  # with TLS data comes although nothing is read
            frames.keep(data)
        else:
            self._take_frames(frames, data)

    def _take_frames(self, frames: PlainFrames, data: bytes) -> None:
        pieces = frames.feed(data, MOST)
        for message, piece in pieces:
            if message:
                if not self._gone:
                    self._heard = True
                    self._received(piece)
            elif not self._gone and (payload := pong(piece, self.peer_masks)) is not None:
                self.onPong(payload)
            elif frames.passing and piece is pieces[-1][1] and len(piece) > BITE:
                super().dataReceived(piece[:BITE])
                self._frames, self._unread = None, piece[BITE:]
                self._slices.later()
                return
            else:
                super().dataReceived(piece)
        if frames.more:
            self._slices.later()

    @property
    def _gone(self) -> bool:
        """Nothing of the peer counts any more. After our own close, its last audio does."""
        return self.state == self.STATE_CLOSED or self.failedByMe or bool(self.remoteCloseCode)

    def _begin(self, data: bytes) -> bytes:
        """Give Autobahn the handshake, and then all up to the beginning of a message, a little in
        each turn. Returns what comes after that. After a fault of the peer Autobahn gets all."""
        if data and self._unread:  # with TLS data comes although nothing is read
            self._unread += data
            return b""
        data = self._unread + data
        self._unread = b""
        for _ in range(BITES):
            if self.state == self.STATE_OPEN and self._between_messages():
                longest = min(self.settings.max_frame, self.settings.max_message)
                self._frames = PlainFrames(longest, self.peer_masks, self._opcode)
                return data
            if not data:
                return b""
            bite, data = data[:BITE], data[BITE:]
            if self.state == self.STATE_CONNECTING:
                self._greeted += len(bite)
                if self._greeted > MAX_HANDSHAKE:
                    self.failHandshake(f"{self.handshake} of more than {MAX_HANDSHAKE} bytes")
                    return b""
            super().dataReceived(bite)
        if data:
            self._unread = data
            self._slices.later()
        return b""

    def _between_messages(self) -> bool:
        begun: list[Any] = [self.current_frame, self.inside_message, self.data]
        return not any(begun)

    # From Autobahn

    def onOpen(self) -> None:
        self._keepalive = self.clock.callLater(self.settings.ping_interval, self._keep_alive)
        if self._link is not None:
            self._opcode = BINARY if self._link.dialect.binary else TEXT
            self._received = self._link.received
            self._link.attach(self, self._direction)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self.frame_data = [bytearray()]
        if len(self.message_data) >= MOST_FRAGMENTS and not self.failedByMe:
            text = f"a message of more than {MOST_FRAGMENTS} frames"
            self._max_message_size_exceeded(self.message_data_total_length, MOST_FRAGMENTS, text)

    def onMessageFrameData(self, payload: bytes) -> None:
        """Keep a part of a frame. Autobahn would keep each as an object, and they may have a byte
        each."""
        if not self.failedByMe:
            self.frame_data[0] += payload

    def onCloseHandshakeTimeout(self) -> None:
        """The peer does not answer our close. What it has sent by now is read first: this process
        may have stood still, and that is no fault of the peer."""
        if self._out_of_time:
            super().onCloseHandshakeTimeout()
            return
        self._out_of_time = True
        again: Any = self.clock.callLater(LAST_READ, self.onCloseHandshakeTimeout)
        self.closeHandshakeTimeoutCall = again

    def onPing(self, payload: bytes) -> None:
        """Answer a ping; of those that come while the peer does not read, the last one (RFC 6455,
        section 5.5.3)."""
        self._heard = True
        if self.outlet.congested:
            self._pong = payload
        else:
            super().onPing(payload)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.remoteCloseCode:
            return  # nothing counts after the peer's close (section 5.5.1)
        self._heard = True
        if isBinary == (self._opcode == BINARY):
            self._received(payload)
        elif self._link is not None:
            kind, expected = ("binary", "text") if isBinary else ("text", "binary")
            self._link.misspoken(f"a {kind} message of {len(payload)} bytes, expected {expected}")

    def onPong(self, payload: bytes) -> None:
        self._heard = True
        if self._link is not None:
            self._link.pong(self, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._keepalive is not None and self._keepalive.active():
            self._keepalive.cancel()
        self._keepalive = None
        waiting: Any = self.closeHandshakeTimeoutCall  # Autobahn does not cancel it here
        if waiting is not None:
            waiting.cancel()
            self.closeHandshakeTimeoutCall = None
        self.outlet.forget()
        self._slices.close()
        self.is_closed.addCallback(lambda _: None)  # drop the result: it is this protocol
        self._received = _ignore
        link, self._link = self._link, None
        if link is None:
            return
        if self.failedByMe:  # `code` and `reason` then belong to the answer to our close
            text: Any = self.localCloseReason
            fault = text.decode("utf-8", "replace") if text else ""
            broke = f"the bot broke the WebSocket protocol: {fault} ({self.localCloseCode})"
            link.lost(self, SocketClose(False, broke))
            return
        said = self.factory.redact(reason or "no reason given")
        text = f"the bot's WebSocket closed: {said} ({code})"
        link.lost(self, SocketClose(wasClean and code in CLEAN, text, code in BUSY_CODES))

    def _drained(self) -> None:
        if self._pong is not None:
            payload, self._pong = self._pong, None
            super().onPing(payload)
        if self._link is not None:
            self._link.drained()

    def _keep_alive(self) -> None:
        """Ping the peer. Drop it if it sent nothing for `ping_timeout` seconds after a ping."""
        options, now = self.settings, self.clock.seconds()
        if self._heard or self._paused or self._pinged_at is None:
            self._heard, self._pinged_at = False, now
        left = self._pinged_at + options.ping_timeout - now
        if left <= 0:
            self.wasNotCleanReason = f"no answer to a ping within {options.ping_timeout:g} s"
            self.dropConnection(abort=True)
            return
        delay = min(options.ping_interval, left)
        self._keepalive = self.clock.callLater(delay, self._keep_alive)
        if self._link is not None:
            self.sendPing(self._link.to_bot.progress)

    # From the link

    def send(self, payload: bytes) -> bool:
        """Send one message. False: it was dropped, as the closing handshake has begun, or the peer
        does not read."""
        outlet = self.outlet
        if self.state != self.STATE_OPEN or (outlet.congested and outlet.waiting > MOST_WAITING):
            return False
        outlet.write(self.frame(payload, self._opcode))
        return True

    def ping(self, payload: bytes) -> None:
        """Send a ping of at most 125 bytes. It is dropped if the closing handshake has begun, or
        the peer does not read."""
        if self.state == self.STATE_OPEN and self.outlet.waiting <= MOST_WAITING:
            self.outlet.write(self.frame(payload, PING))

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        self._slices.read(False)

    def resume(self) -> None:
        """Start reading again."""
        self._paused = False
        if self.state != self.STATE_CLOSED:
            self._slices.read(True)

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. Autobahn disconnects a peer that does not answer it."""
        self.sendClose(code, reason)
