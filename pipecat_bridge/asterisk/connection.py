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
from pipecat_bridge.asterisk.clock import FRAME, FrameClock
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.transport import EagerTransport
from pipecat_bridge.wire.audiosocket import (
    AUDIO_8K,
    AUDIO_RATES,
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
        self._closing = False
        self._deadline: IDelayedCall | None = None
        self._sink: Callable[[bytes, int], None] = _discard
        self._playout: Playout | None = None
        self._heard = 0.0  # until when the caller's audio, or silence in its place, has gone out
        self._set_rate(8000)
        self.call_id = ""
        self.on_lost: Callable[[], None] = lambda: None
        self.stats = PhoneStats()

    # From Twisted

    def connectionMade(self) -> None:
        assert self.transport is not None
        peer = self.transport.getPeer()
        self.peer = f"{getattr(peer, 'host', '?')}:{getattr(peer, 'port', '?')}"
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._out = EagerTransport(self.transport)
        timeout = self._options.handshake_timeout
        self._deadline = self._reactor.callLater(timeout, self._handshake_timed_out)
        # A server that waits for the caller's first frame gets wholly silent calls now and then.
        self.tick()
        self._clock.add(self.tick)

    def dataReceived(self, data: bytes) -> None:
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
        self._cancel_deadline()
        if self._line is not None:
            self._line.phone_gone()
        self.on_lost()

    # From the call

    def join(self, sink: Callable[[bytes, int], None], playout: Playout) -> None:
        """Connect the caller's audio to `sink` and the phone's ear to `playout`."""
        self._sink = sink
        self._playout = playout
        self._heard = self._now()
        playout.set_rate(self._rate)

    def hang_up(self) -> None:
        """End the call in good order: the dialplan goes on."""
        if self._closing:
            return
        self._closing = True
        self._leave()
        self._cancel_deadline()
        self._out.write(HANGUP)
        self._deadline = self._reactor.callLater(CLOSE_TIMEOUT, self._close)

    # The clock

    def tick(self) -> None:
        """Send the frame of this tick: the bot's, or silence."""
        now = self._now()
        frame = None
        if self._playout is not None:
            frame = self._playout.read(now)
            if now - self._heard > self._options.hold_after:
                self._fill(now)
        message = self._silence if frame is None else self._header + frame
        if self._out.offer(message):
            self.stats.frames_out += 1
        else:
            self.stats.frames_skipped += 1

    def _fill(self, now: float) -> None:
        """The caller sends nothing (hold): silence, for the bot's VAD counts samples, not time."""
        while now - self._heard >= FRAME:
            self._heard += FRAME
            self.stats.filled_frames += 1
            self._sink(self._silent_frame, self._rate)

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
            self._refuse(f"kind 0x{kind:02x} where the call's UUID (0x01) is expected")
            return
        if len(payload) & 1:
            self._odd(len(payload))
            return
        self.stats.frames_in += 1
        now = self._now()
        if kind == AUDIO_8K and self._format.codec != "linear":
            self._hear_doubtful(payload, now)
            return
        self._hear_linear(payload, AUDIO_RATES[kind], now)

    def _hear_linear(self, payload: bytes, rate: int, now: float) -> None:
        self._heard = now
        if rate != self._rate:
            self._set_rate(rate)
        self._sink(payload, rate)

    def _hear_doubtful(self, payload: bytes, now: float) -> None:
        undecided = self._format.codec is None
        frames = self._format.convert(payload, now)
        if undecided and frames:
            self._report_format()
        self._heard = now
        for frame in frames:
            self._sink(frame, self._format.rate)

    def _report_format(self) -> None:
        codec = self._format.codec
        if codec == "g711":
            self._log.warn(
                "{call_id} frames of 160 bytes each 20 ms under kind 0x10 are G.711, taken for"
                " {g711}: add c(slin) to Dial(AudioSocket/...) in the dialplan",
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
            self._line.caller_digit(payload.decode("ascii", "replace"))
        else:
            self._refuse(f"kind 0x{kind:02x} is out of place")

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
        self._out.write(HANGUP)
        self._close()

    def _handshake_timed_out(self) -> None:
        self._deadline = None
        seconds = self._options.handshake_timeout
        self._refuse(f"no call UUID within {seconds:g} s")

    def _close(self) -> None:
        self._closing = True
        self._leave()
        self._cancel_deadline()
        self._out.loseConnection()
        # What waits to be sent to a phone that does not read must not keep the connection.
        self._deadline = self._reactor.callLater(CLOSE_TIMEOUT, self._out.abortConnection)

    def _leave(self) -> None:
        self._clock.remove(self.tick)
        self._sink = _discard

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _set_rate(self, rate: int) -> None:
        self._rate = rate
        size = round(rate * FRAME) * 2
        self._header = audio_header(rate, size)
        self._silent_frame = bytes(size)
        self._silence = self._header + self._silent_frame
        if self._playout is not None:
            self._playout.set_rate(rate)
