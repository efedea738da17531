"""One AudioSocket connection: a phone line, seen from the bridge."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.caller_audio import CallerAudio, Codec, Sink
from pipecat_bridge.asterisk.clock import FRAME, FrameClock
from pipecat_bridge.asterisk.interfaces import Exchange, Line, LineOptions, PhoneEnd, PhoneStats
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.net.transport import EagerTransport, bound_send_buffer
from pipecat_bridge.wire.audiosocket import (
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

STALLED = 1.0
"""Seconds without a frame taken after which a reset is no hangup: Asterisk reads until it closes,
so that the reset then comes from a machine or a kernel that has given up."""

KEYS = frozenset("0123456789ABCD*#")


class AudioSocketConnection(Protocol):
    """Speaks AudioSocket with Asterisk: 20 ms frames out at all times, whatever comes in.

    The call that answers joins it by `join`; from then on the caller's audio goes straight to the
    bot's `sink(pcm, rate)`, and the clock takes the bot's from the playout queue.

    `rate` is that of the line, in Hz. A phone that takes no frame at any tick of `stall_timeout`
    seconds is gone: ticks are counted and not time, for a stall of this process is not the phone's.
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
        self._decoder = Decoder(uuid_first=True)
        self._line: Line | None = None
        self._closing = False
        self._ending: tuple[PhoneEnd, str] | None = None  # known before the connection is lost
        self._deadline: IDelayedCall | None = None
        self._playout: Playout | None = None
        self._stall_ticks = max(1, round(options.stall_timeout / FRAME))
        self._refused = 0  # frames in a row that the phone did not take
        self.call_id = ""
        self.on_lost: Callable[[], None] = lambda: None
        self.stats = PhoneStats()
        self._caller = CallerAudio(options, self.stats, now)
        self._set_rate(self._caller.rate)

    @property
    def codec(self) -> Codec:
        """What the caller's audio is taken for."""
        return self._caller.codec

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
        fault = ""
        try:
            messages = self._decoder.feed(data)
        except DecodeError as error:
            messages, fault = error.messages, str(error)
        self._receive(messages)
        if self._decoder.skipped != self.stats.unknown_messages:
            self._count_skipped()
        if fault and not self._closing:
            self._refuse(fault)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        self._leave()
        line, self._line, self._playout = self._line, None, None
        if line is not None:
            line.phone_gone(*(self._ending or self._end_by(reason)))
        self.on_lost()

    def _end_by(self, reason: Failure) -> tuple[PhoneEnd, str]:
        """How the phone ended, by what the kernel says of its connection."""
        error = self._out.error
        if error is not None and not isinstance(error, ConnectionError):
            return "lost", f"the phone cannot be reached: {error.strerror}"
        # A send that has met a close which is not read yet breaks as well, by EPIPE.
        closed = reason.check(ConnectionDone) and not isinstance(error, ConnectionResetError)
        if closed:
            return "hangup", ""
        seconds = self._refused * FRAME
        if seconds >= STALLED:
            return "lost", f"the phone took nothing for {seconds:.1f} s, then its connection broke"
        return "hangup", "the phone's connection was reset"

    # From the call

    def join(self, sink: Sink, playout: Playout) -> None:
        """Connect the caller's audio to `sink` and the phone's ear to `playout`, from now on."""
        self._caller.join(sink)
        if self._playout is None:
            self._playout = playout
            playout.set_rate(self.rate)

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
            self._caller.tick(now)
        message = self._silence if frame is None else self._header + frame
        if self._out.offer(message):
            self.stats.frames_out += 1
            self._refused = 0
        elif not self._out.broken:  # Asterisk has not hung up between two ticks
            self._skip()

    def _skip(self) -> None:
        self.stats.frames_skipped += 1
        self._refused += 1
        if self._refused >= self._stall_ticks and not self._closing:
            self._closing = True
            fault = f"the phone took nothing for {self._options.stall_timeout:g} s"
            self._ending = "lost", fault
            self._complain(fault)
            self._leave()
            self._out.abortConnection()

    # What Asterisk says

    def _receive(self, messages: list[Message]) -> None:
        for kind, payload in messages:
            if self._closing:
                return
            line = self._line
            if line is None or kind not in AUDIO_RATES:
                self._obey(kind, payload, line)
            else:
                self._caller.hear(kind, payload, line)
        if self._caller.rate != self.rate:
            self._set_rate(self._caller.rate)

    def _obey(self, kind: int, payload: bytes, line: Line | None) -> None:
        if kind == Kind.HANGUP:
            self._ending = "hangup", "the phone sent a hangup message"
            self._close()
        elif line is None:  # the decoder lets no other pass as the first
            self._answer(str(UUID(bytes=payload)))
        elif kind == Kind.DTMF:
            self._press(payload.decode("latin-1"), line)
        else:
            code = f"code 0x{payload.hex()}" if payload else "without a code"
            self._refuse(f"an error (kind 0xff), {code}")

    def _count_skipped(self) -> None:
        self.stats.unknown_messages = self._decoder.skipped
        kind, size = self._decoder.last_skipped
        if self._line is not None:
            self._line.phone_warning(
                "unknown-message",
                f"a message of kind 0x{kind:02x} with a length of {size} was skipped: expected"
                " audio, DTMF of one key, or hangup",
            )

    def _press(self, key: str, line: Line) -> None:
        if key in KEYS:
            line.caller_digit(key)
        else:
            line.phone_warning(
                "bad-digit",
                f"a DTMF digit {key!a} was dropped: expected one of 0-9 A-D * #",
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
        self._ending = "fault", f"the phone broke the protocol: {fault}"
        self._complain(fault)
        self._close()

    def _complain(self, fault: str) -> None:
        self._log.warn(
            "{call_id} connection from {peer} closed: {fault}",
            call_id=self.call_id or "-",
            peer=self.peer,
            fault=fault,
        )

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
        self._caller.leave()
        self._cancel_deadline()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _set_rate(self, rate: int) -> None:
        self.rate = rate
        size = rate // 50 * 2
        self._header = audio_header(rate, size)
        self._silence = self._header + bytes(size)
        if self._playout is not None:
            self._playout.set_rate(rate)
        if self.transport is not None:
            self._bound_send_buffer()

    def _bound_send_buffer(self) -> None:
        size = max(LEAST_SEND_BUFFER, round(self.rate * SEND_BUFFER) * 2)
        bound_send_buffer(self.transport, size)
