"""One AudioSocket connection: a phone line, seen from the bridge."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface
from uuid import UUID

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.caller_format import CallerFormat
from pipecat_bridge.asterisk.caller_time import CallerTime
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.transport import EagerTransport, bound_send_buffer
from pipecat_bridge.wire.audiosocket import (
    AUDIO_8K,
    AUDIO_RATES,
    ERROR,
    HANGUP,
    DecodeError,
    Decoder,
    Kind,
    Message,
    audio_header,
)

CLOSE_TIMEOUT = 1.0
"""Seconds that Asterisk has to close after our hangup, which it does as soon as it reads it.

Closing first would reset the connection under frames of the caller's still on their way, and the
reset can overtake the hangup.
"""

SEND_BUFFER = 0.2
"""Seconds of audio that the kernel is asked to hold for a phone that does not read.

What it holds comes late and in a burst, what it refuses is skipped; a lost packet needs some of it.
"""

LEAST_SEND_BUFFER = 8192

KEYS = frozenset("0123456789ABCD*#")


class Line(Interface):
    """A call, as its phone sees it."""

    def caller_digit(self, digit: str) -> None:
        """The caller has pressed and released a key."""

    def phone_gone(self) -> None:
        """The caller hung up, or the connection broke; told once."""


class Exchange(Interface):
    """Where a phone that has said its UUID becomes a call."""

    def answer(self, call_id: str, phone: AudioSocketConnection) -> Line | None:
        """The call, or None when it is refused."""


@dataclass(slots=True)
class PhoneStats:
    """Counters of one line."""

    frames_in: int = 0
    frames_out: int = 0
    frames_skipped: int = 0
    odd_frames: int = 0
    filled_frames: int = 0


@dataclass(frozen=True, slots=True)
class LineOptions:
    """Times in seconds; `g711` is the codec that 160-byte frames are taken for."""

    handshake_timeout: float = 5.0
    hold_after: float = 0.1
    g711: str = "ulaw"


def _discard(audio: bytes, rate: int) -> None:
    """Audio that nobody waits for."""


class AudioSocketConnection(Protocol):
    """Speaks AudioSocket with Asterisk: 20 ms frames out at all times, whatever comes in.

    The call that answers joins it by `join`; from then on the caller's audio goes straight to the
    bot's `sink(pcm, rate)`, and the clock takes the bot's from the playout queue.
    """

    _log = Logger()

    def __init__(
        self,
        exchange: Exchange,
        clock: FrameClock,
        reactor: IReactorTime,
        options: LineOptions,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._reactor = reactor
        self._options = options
        self._now = now
        self._decoder = Decoder()
        self._format = CallerFormat(options.g711)
        self._line: Line | None = None
        self._begun = False
        self._closing = False
        self._deadline: IDelayedCall | None = None
        self._sink: Callable[[bytes, int], None] = _discard
        self._playout: Playout | None = None
        self._caller_time = CallerTime(options.hold_after)
        self._caller_rate = 8000
        self._set_rate(8000)
        self.call_id = ""
        self.on_lost: Callable[[], None] = lambda: None
        self.stats = PhoneStats()

    # From Twisted

    def connectionMade(self) -> None:
        assert self.transport is not None
        peer = self.transport.getPeer()
        self.peer = f"{getattr(peer, 'host', '?')}:{getattr(peer, 'port', '?')}"
        self._bound_send_buffer()
        self._out = EagerTransport(self.transport)
        timeout = self._options.handshake_timeout
        self._deadline = self._reactor.callLater(timeout, self._handshake_timed_out)
        # A server that waits for the caller's first frame gets wholly silent calls now and then.
        self.tick()
        self._clock.add(self.tick)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._begun:
            self._begun = True
            # Not left to the decoder: TLS begins like a long frame of audio.
            if data[0] not in (Kind.UUID, Kind.HANGUP):
                self._refuse(f"0x{data[0]:02x} where the call's UUID (kind 0x01) is expected")
                return
        try:
            messages = self._decoder.feed(data)
        except DecodeError as error:
            self._receive(error.messages)
            self._refuse(str(error))
            return
        self._receive(messages)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        self._leave()
        line, self._line, self._playout = self._line, None, None
        if line is not None:
            line.phone_gone()
        self.on_lost()

    # From the call

    def join(self, sink: Callable[[bytes, int], None], playout: Playout) -> None:
        """Connect the caller's audio to `sink` and the phone's ear to `playout`, from now on."""
        self._sink = sink
        if self._playout is None:
            self._playout = playout
            self._caller_time.start(self._now())
            playout.set_rate(self._rate)

    def hang_up(self, cleanly: bool = True) -> None:
        """End the call in good order, so that the dialplan goes on; or with an error, which hangs
        the channel up, unless it is in TryExec() or was reached by Dial() with g."""
        if self._closing:
            return
        self._closing = True
        self._leave()
        self._out.write(HANGUP if cleanly else ERROR)
        self._deadline = self._reactor.callLater(CLOSE_TIMEOUT, self._close)

    # The clock

    def tick(self) -> None:
        """Send the frame of this tick: the bot's, or silence."""
        frame = None
        if self._playout is not None:
            now = self._now()
            frame = self._playout.read(now)
            if missing := self._caller_time.tick(now):
                self._fill(missing)
        message = self._silence if frame is None else self._header + frame
        if self._out.offer(message):
            self.stats.frames_out += 1
        elif not self._out.broken:  # Asterisk has not hung up between two ticks
            self.stats.frames_skipped += 1

    def _fill(self, frames: int) -> None:
        """Silence toward the bot, in place of what the caller did not send."""
        self.stats.filled_frames += frames
        for _ in range(frames):
            self._sink(bytes(self._caller_rate // 50 * 2), self._caller_rate)

    # What Asterisk says

    def _receive(self, messages: list[Message]) -> None:
        for kind, payload in messages:
            if self._closing:
                return
            if kind >= AUDIO_8K and kind in AUDIO_RATES:
                self._hear(kind, payload)
            else:
                self._obey(kind, payload)

    def _hear(self, kind: int, payload: bytes) -> None:
        if self._line is None:
            self._refuse(f"kind 0x{kind:02x} where the call's UUID (kind 0x01) is expected")
        elif not payload:
            return
        elif kind == AUDIO_8K and self._format.codec != "linear":
            self._hear_doubtful(payload)
        elif len(payload) & 1:
            self._odd(len(payload))
        else:
            self._hear_linear(payload, AUDIO_RATES[kind])

    def _hear_linear(self, payload: bytes, rate: int) -> None:
        self.stats.frames_in += 1
        if rate != self._rate:
            self._set_rate(rate)
        self._catch_up(len(payload) / (2 * rate), rate)
        self._sink(payload, rate)

    def _hear_doubtful(self, payload: bytes) -> None:
        # G.711 has a byte for each sample: it may end on any.
        if len(payload) & 1 and self._format.codec != "g711":
            self._odd(len(payload))
            return
        self.stats.frames_in += 1
        undecided = self._format.codec is None
        frames = self._format.convert(payload, self._now())
        if undecided and frames:
            self._report_format()
        rate = self._format.rate
        self._catch_up(sum(map(len, frames)) / (2 * rate), rate)
        for frame in frames:
            self._sink(frame, rate)

    def _catch_up(self, duration: float, rate: int) -> None:
        """Give the bot what was not heard before the `duration` seconds that were."""
        if missing := self._caller_time.hear(duration, self._now()):
            self._fill(missing)
        self._caller_rate = rate

    def _report_format(self) -> None:
        codec = self._format.codec
        if codec == "g711":
            self._log.warn(
                "{call_id} frames of 160 bytes each 20 ms under kind 0x10 are the caller's codec,"
                " taken for {g711} (G.722 would be noise): add c(slin) to Dial(AudioSocket/...) in"
                " the dialplan",
                call_id=self.call_id,
                g711=self._options.g711,
            )
        elif codec == "slin16":
            self._log.info(
                "{call_id} frames of 640 bytes each 20 ms under kind 0x10: taken for 16 kHz, which"
                " Asterisk before 20.17 / 22.7 sends so; the bot's audio goes back at 8 kHz",
                call_id=self.call_id,
            )

    def _odd(self, size: int) -> None:
        self.stats.odd_frames += 1
        if self.stats.odd_frames == 1:
            self._log.warn(
                "{call_id} an audio frame of {size} bytes was dropped: expected an even number,"
                " two bytes a sample; further ones are only counted",
                call_id=self.call_id,
                size=size,
            )

    def _obey(self, kind: int, payload: bytes) -> None:
        if kind == Kind.UUID and self._line is None:
            self._answer(str(UUID(bytes=payload)))
        elif kind == Kind.HANGUP:
            self._close()
        elif kind == Kind.DTMF and self._line is not None:
            self._press(payload.decode("latin-1"), self._line)
        else:
            self._refuse(f"kind 0x{kind:02x} is out of place")

    def _press(self, key: str, line: Line) -> None:
        if key in KEYS:
            line.caller_digit(key)
        else:
            self._log.warn(
                "{call_id} a DTMF digit {key!a} was dropped: expected one of 0-9 A-D * #",
                call_id=self.call_id,
                key=key,
            )

    def _answer(self, call_id: str) -> None:
        self._cancel_deadline()
        self.call_id = call_id
        line = self._exchange.answer(call_id, self)
        if line is None:
            self.hang_up()
        else:
            self._line = line

    # Ends

    def _refuse(self, fault: str) -> None:
        self._log.warn(
            "{call_id} connection from {peer} closed: {fault}",
            call_id=self.call_id or "-",
            peer=self.peer,
            fault=fault,
        )
        self._close()

    def _handshake_timed_out(self) -> None:
        self._deadline = None
        seconds = self._options.handshake_timeout
        self._refuse(f"no call UUID within {seconds:g} s")

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._out.write(HANGUP)
        self._leave()
        self._out.loseConnection()
        # What waits to be sent to a phone that does not read must not keep the connection.
        self._deadline = self._reactor.callLater(CLOSE_TIMEOUT, self._out.abortConnection)

    def _leave(self) -> None:
        self._clock.remove(self.tick)
        self._sink = _discard
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _set_rate(self, rate: int) -> None:
        self._rate = rate
        size = rate // 50 * 2
        self._header = audio_header(rate, size)
        self._silence = self._header + bytes(size)
        if self._playout is not None:
            self._playout.set_rate(rate)
        if self.transport is not None:
            self._bound_send_buffer()

    def _bound_send_buffer(self) -> None:
        size = max(LEAST_SEND_BUFFER, round(self._rate * SEND_BUFFER) * 2)
        bound_send_buffer(self.transport, size)
