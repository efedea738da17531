"""A soft phone on AudioSocket, which takes the place of Asterisk.

It behaves like ``app_audiosocket``. It sends the UUID first, then a message of 20 ms every 20 ms.
To hang up it closes the connection. It ends the call at any message that Asterisk does not accept.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from pipecat_bridge.tools.phone.microphone import Microphone
from pipecat_bridge.tools.phone.recording import Chunk, Recording
from pipecat_bridge.wire.audiosocket import (
    AUDIO_RATES,
    AudioSocketMessage,
    DecodeError,
    Decoder,
    Kind,
    audio_header,
    encode,
)

FRAME_SECONDS: Final = 0.02
DTMF_DIGITS: Final = frozenset("0123456789ABCD*#")


class How(Enum):
    """The ways in which a call can end."""

    PEER_HUNG_UP = "hung up by the peer"
    PEER_CLOSED = "closed by the peer without a hangup message"
    WE_HUNG_UP = "hung up by the caller"
    LOST = "connection lost"
    FAULT = "broken by the peer"


class Ending(NamedTuple):
    """How a call ended. `at`: seconds from its start. `detail`: more about the cause, or ""."""

    how: How
    at: float
    detail: str = ""


def _ignore(_: object) -> None:
    pass


class SoftPhone(Protocol):
    """One call. `finished` fires with its `Ending` when the connection is closed.

    `seconds`: a monotonic clock. `clock`: sets the timers. The first frame is sent at once, and
    frame n is sent n times 20 ms later. After a stall all frames that are due are sent together, so
    the n-th sample always belongs to the same time. `on_tick` is called after every frame with the
    seconds from the start of the call, and `on_audio` with every audio message that is received.
    """

    transport: ITCPTransport

    def __init__(
        self,
        call_id: UUID,
        microphone: Microphone,
        recording: Recording,
        clock: IReactorTime,
        seconds: Callable[[], float],
        on_tick: Callable[[float], None] = _ignore,
        on_audio: Callable[[Chunk], None] = _ignore,
    ) -> None:
        self.finished: Deferred[Ending] = Deferred()
        self._call_id = call_id
        self._microphone = microphone
        self._recording = recording
        self._clock = clock
        self._seconds = seconds
        self._on_tick = on_tick
        self._on_audio = on_audio
        self._decoder = Decoder()
        self._frame_samples = recording.rate // 50
        self._header = audio_header(recording.rate, 2 * self._frame_samples)
        self._start = 0.0
        self._frames = 0
        self._timer: IDelayedCall | None = None
        self._ending: Ending | None = None

    @property
    def now(self) -> float:
        """Seconds from the start of the call."""
        return self._seconds() - self._start

    def connectionMade(self) -> None:
        """Send the UUID, and start to send audio."""
        self._start = self._seconds()
        if self._ending is not None:
            self.transport.loseConnection()
            return
        self.transport.setTcpNoDelay(True)
        self.transport.write(encode(Kind.UUID, self._call_id.bytes))
        self._tick()

    def hang_up(self) -> None:
        """Hang up: close the connection, as Asterisk does when the caller hangs up."""
        self._end(How.WE_HUNG_UP)

    def press(self, digit: str) -> None:
        """Send a DTMF key. Raises ValueError if there is no such key."""
        if digit not in DTMF_DIGITS:
            raise ValueError(f"DTMF key {digit!r} does not exist, expected one of 0-9 A-D * #")
        if self._ending is None:
            self.transport.write(encode(Kind.DTMF, digit.encode("ascii")))

    def dataReceived(self, data: bytes) -> None:
        """Take data from the peer."""
        fault = ""
        try:
            messages = self._decoder.feed(data)
        except DecodeError as error:
            messages, fault = error.messages, str(error)
        at = self.now
        for message in messages:
            if self._ending is None:
                self._received(message, at)
        if self._decoder.skipped and not fault:
            kind, size = self._decoder.last_skipped
            fault = f"kind 0x{kind:02x} with a length of {size} ends a call in Asterisk"
        if fault:
            self._end(How.FAULT, fault)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop, and fire `finished`."""
        if self._ending is None:
            done = reason.check(ConnectionDone)
            how, detail = (How.PEER_CLOSED, "") if done else (How.LOST, reason.getErrorMessage())
            self._ending = Ending(how, self.now, detail)
        self._stop()
        self.finished.callback(self._ending)

    def _received(self, message: AudioSocketMessage, at: float) -> None:
        if message.kind == Kind.HANGUP:
            self._end(How.PEER_HUNG_UP)
        elif message.kind == Kind.ERROR:
            self._end(How.FAULT, "an AudioSocket error (kind 0xff)")
        elif message.kind not in AUDIO_RATES:
            self._end(How.FAULT, f"kind 0x{message.kind:02x} from a server ends a call in Asterisk")
        elif not message.payload or len(message.payload) % 2:
            size = len(message.payload)
            self._end(How.FAULT, f"{size} bytes of audio, expected an even number above 0")
        else:
            chunk = Chunk(at, AUDIO_RATES[message.kind], message.payload)
            self._recording.received(chunk)
            self._on_audio(chunk)

    def _tick(self) -> None:
        self._timer = None
        while self._ending is None and self._frames * FRAME_SECONDS <= self.now + 1e-9:
            self._send_frame()
        if self._ending is None:
            wait = max(0.0, self._frames * FRAME_SECONDS - self.now)
            self._timer = self._clock.callLater(wait, self._tick)

    def _send_frame(self) -> None:
        frame = self._microphone.read(self._frame_samples).tobytes()
        self.transport.write(self._header + frame)
        self._frames += 1
        at = self.now
        self._recording.sent(at, frame)
        self._on_tick(at)

    def _end(self, how: How, detail: str = "") -> None:
        if self._ending is None:
            self._ending = Ending(how, self.now, detail)
            self._stop()
            if self.connected:
                self.transport.loseConnection()

    def _stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
