"""The AudioSocket connection of one phone, from AudioSocket() or from Dial(AudioSocket/...)."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from uuid import UUID

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.caller_format import CallerFormat
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import Line, LineOptions
from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.contracts import AnswerCall, PhoneEnd
from pipecat_bridge.net.slices import MOST, Slices
from pipecat_bridge.net.transport import EagerTransport, bound_send_buffer
from pipecat_bridge.wire.audiosocket import (
    AUDIO_8K,
    AUDIO_RATES,
    ERROR,
    HANGUP,
    DecodeError,
    Decoder,
    Kind,
    audio_header,
)

CLOSE_TIMEOUT = 1.0
"""Seconds that Asterisk has to close the connection after our hangup.

Asterisk closes as soon as it has read the hangup. If the bridge closed first, while frames of the
caller are on their way, the kernel would reset the connection, and the reset can overtake the
hangup.
"""

SEND_BUFFER = 0.2
"""Seconds of audio that the kernel may hold for a phone that does not read.

Audio in this buffer arrives late and in a burst. Frames that do not fit are skipped. After a lost
packet the kernel needs some buffer to send again.
"""

LEAST_SEND_BUFFER = 8192
"""Smallest send buffer, in bytes."""

RATE_STAYS = 1.0
"""Seconds for which a phone keeps its sample rate. At a change filters are made, and up to half a
second of audio is converted. Asterisk changes the rate at the beginning, if ever."""

STALLED = 1.0
"""If the phone has taken no frame for so many seconds, a reset of the connection means a lost phone
and not a hangup. Asterisk reads until it closes, so its machine or kernel has given up."""


def _nothing(connection: AudioSocketConnection) -> None:
    """Does nothing: nobody wants to be told."""


class AudioSocketConnection(Protocol):
    """Carries one line over AudioSocket.

    `on_known` and `on_lost` are called when a call has begun with the phone's UUID, and when the
    phone has gone.
    """

    def __init__(
        self,
        answer: AnswerCall,
        clock: FrameClock,
        reactor: IReactorTime,
        options: LineOptions,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._options = options
        self._now = now
        self._decoder = Decoder(uuid_first=True)
        self._format = CallerFormat(options.g711)
        self._deadline: IDelayedCall | None = None
        self._rate_since = -inf
        self.on_known: Callable[[AudioSocketConnection], None] = _nothing
        self.on_lost: Callable[[AudioSocketConnection], None] = _nothing
        self.line = Line(self, answer, clock, options, now)
        self._set_header(self.line.rate)

    # From Twisted

    def connectionMade(self) -> None:
        assert self.transport is not None
        peer = self.transport.getPeer()
        self._bound_send_buffer(self.line.rate)
        self._out = EagerTransport(self.transport)
        self._slices = Slices(self._reactor, self.transport, lambda: self.dataReceived(b""))
        timeout = self._options.handshake_timeout
        self._deadline = self._reactor.callLater(timeout, self._handshake_timed_out)
        self.line.open(f"{getattr(peer, 'host', '?')}:{getattr(peer, 'port', '?')}")

    def dataReceived(self, data: bytes) -> None:
        line = self.line
        if line.closed:
            return
        try:
            audio = self._decoder.only(data)
            if audio is not None and line.in_call:
                self._hear(data[0], audio)
            else:
                self._receive(data)
        except Exception:  # noqa: BLE001 - any fault of the bridge ends only this call
            line.broken(Failure())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_deadline()
        self._slices.close()
        try:
            self.line.lost(*self._end_by(reason))
        except Exception:  # noqa: BLE001 - any fault of the bridge ends only this call
            self.line.broken(Failure())
        finally:
            self.on_lost(self)

    def _end_by(self, reason: Failure) -> tuple[PhoneEnd, str]:
        """How and why the phone ended, judged by the error of its connection."""
        error = self._out.error
        if error is not None and not isinstance(error, ConnectionError):
            return "lost", f"the phone cannot be reached: {error.strerror}"
        # EPIPE is a hangup: a frame was sent after Asterisk closed and before we read its close.
        closed = reason.check(ConnectionDone) and not isinstance(error, ConnectionResetError)
        if closed:
            return "hangup", ""
        seconds = self.line.seconds_skipped
        if seconds >= STALLED:
            return "lost", f"the phone took no audio for {seconds:.1f} s, then its connection broke"
        return "hangup", "the phone's connection was reset"

    # What Asterisk says

    def _receive(self, data: bytes) -> None:
        line, decoder = self.line, self._decoder
        if data and decoder.more:  # with TLS data comes although nothing is read
            decoder.keep(data)
            return
        try:
            messages, fault = decoder.feed(data, MOST), ""
        except DecodeError as error:
            messages, fault = error.messages, str(error)
        for kind, payload in messages:
            if line.closed:
                break
            if line.in_call and kind in AUDIO_RATES:
                self._hear(kind, payload)
            else:
                self._obey(kind, payload)
        if decoder.skipped != line.stats.unknown_messages:
            self._count_skipped()
        if fault and not line.closed:
            self._refuse(fault)
        elif decoder.more and not line.closed:
            self._slices.later()

    def _hear(self, kind: int, payload: bytes) -> None:
        if not payload:
            return
        line, rate = self.line, AUDIO_RATES[kind]
        if kind == AUDIO_8K and not self._format.settled:
            if not self._hear_doubtful(payload):
                return
        elif len(payload) & 1:
            self._count_odd(len(payload))
            return
        else:
            line.caller.hear(payload, rate)
        if rate != line.rate:
            self._follow(rate)

    def _follow(self, rate: int) -> None:
        """Send audio at the phone's new rate: it plays at that rate what it gets."""
        now = self._now()
        if now - self._rate_since >= RATE_STAYS:
            self._rate_since = now
            self.line.set_rate(rate)

    def _hear_doubtful(self, payload: bytes) -> bool:
        """Take audio of kind 0x10, which may be G.711, or at 16 kHz. False: it was dropped."""
        line, form = self.line, self._format
        form.watch(payload, self._now())
        # G.711 has one byte for each sample, so an odd length is good.
        if len(payload) & 1 and form.codec != "g711":
            self._count_odd(len(payload))
            return False
        line.stats.frames_in += 1
        frames = form.convert(payload)
        if line.codec != form.phone_codec:
            line.codec = form.phone_codec
            if form.doubt:
                line.warn("codec-guess", form.doubt)
        line.caller.hear_held(frames, form.rate)
        return True

    def _count_odd(self, size: int) -> None:
        self.line.stats.odd_frames += 1
        self.line.warn(
            "odd-frame",
            f"an audio frame of {size} bytes was dropped: expected an even number, two bytes for"
            " each sample",
        )

    def _obey(self, kind: int, payload: bytes) -> None:
        line = self.line
        if kind == Kind.HANGUP:
            line.end("hangup", "the phone sent a hangup message")
            self._answer_hangup()
        elif not line.in_call:  # then it is the UUID: the decoder refuses any other first message
            self._cancel_deadline()
            if line.identify(str(UUID(bytes=payload))):
                self.on_known(self)
        elif kind == Kind.DTMF:
            line.press(payload.decode("latin-1"))
        else:
            code = f"code 0x{payload.hex()}" if payload else "without a code"
            self._refuse(f"an error (kind 0xff), {code}")

    def _count_skipped(self) -> None:
        self.line.stats.unknown_messages = self._decoder.skipped
        kind, size = self._decoder.last_skipped
        self.line.warn(
            "unknown-message",
            f"a message of kind 0x{kind:02x} with a length of {size} was skipped: expected"
            " audio, DTMF of one key, or hangup",
        )

    # From the line

    def send_frame(self, frame: bytes | None) -> bool | None:
        """Send `frame`, or silence for None.

        True: sent. False: the phone does not read. None: Asterisk has closed the connection, which
        `connectionLost` will report.
        """
        taken = self._out.offer(self._silence if frame is None else self._header + frame)
        return taken or (None if self._out.broken else False)

    def send_hangup(self, cleanly: bool) -> None:
        """Send a hangup if `cleanly`, else an error.

        After an error Asterisk hangs up the channel. Exceptions: the application runs in TryExec(),
        or Dial() with the option g called the AudioSocket channel.
        """
        self._out.write(HANGUP if cleanly else ERROR)
        self._cancel_deadline()
        self._deadline = self._reactor.callLater(CLOSE_TIMEOUT, self._close)

    def abort(self) -> None:
        """Close the connection now."""
        self._cancel_deadline()
        self._out.abortConnection()

    def rate_changed(self, rate: int) -> None:
        """Send frames of `rate` samples per second from now on."""
        self._set_header(rate)
        self._bound_send_buffer(rate)

    # Ends

    def _refuse(self, fault: str) -> None:
        self.line.refuse(fault)
        self._answer_hangup()

    def _answer_hangup(self) -> None:
        self._out.write(HANGUP)
        self._close()

    def _handshake_timed_out(self) -> None:
        self._deadline = None
        self._refuse(f"no call UUID within {self._options.handshake_timeout:g} s")

    def _close(self) -> None:
        self._cancel_deadline()
        self._out.loseConnection()
        # Unsent data must not keep the connection open when the phone does not read.
        self._deadline = self._reactor.callLater(CLOSE_TIMEOUT, self._out.abortConnection)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _set_header(self, rate: int) -> None:
        size = frame_bytes(rate)
        self._header = audio_header(rate, size)
        self._silence = self._header + bytes(size)

    def _bound_send_buffer(self, rate: int) -> None:
        size = max(LEAST_SEND_BUFFER, round(rate * SEND_BUFFER) * 2)
        bound_send_buffer(self.transport, size)
