"""The line to one phone: its audio both ways, its counters, its end.

A `Wire`, such as AudioSocket, carries the audio. A line knows no protocol and no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.caller_audio import CallerAudio
from pipecat_bridge.audio.frame import FRAME, frame_bytes
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import (
    AnswerCall,
    AudioSink,
    FrameSent,
    PhoneCodec,
    PhoneEnd,
    PhoneListener,
    PhoneStats,
)
from pipecat_bridge.net.guard import FAULT, reason_of
from pipecat_bridge.net.rate_limit import BoundedLog

KEYS: Final = frozenset("0123456789ABCD*#")

LATE: Final = 1.75 * FRAME
"""Seconds from a frame to the next one, over which the next one was late. The first audio of a bot
may move the ticks by less, once."""

LONGEST_HOLE: Final = 500
"""Frames of silence that the call is told of after a stall, at most: 10 s."""


@dataclass(frozen=True, slots=True)
class LineOptions:
    """Times in seconds. `g711` is the codec with which G.711 from Dial() without c() is decoded."""

    handshake_timeout: float = 5.0
    stall_timeout: float = 10.0
    hold_after: float = 0.5
    g711: Literal["ulaw", "alaw"] = "ulaw"


class Pace(Protocol):
    """Decides when frames go to the phone: the `FrameClock`, or a phone side with its own pace."""

    def add(
        self,
        tick: Callable[[], None],
        failed: Callable[[Failure], None],
        skipped: Callable[[int], None],
    ) -> None:
        """Call `tick` for each frame from now on, `failed` if `tick` raises, and `skipped` with the
        number of frames that are left out, if so many are late that they cannot be made good."""

    def align(self, tick: Callable[[], None], at: float) -> None:
        """Call `tick` at or soon after the time `at`, and every 20 ms before and after it, if
        possible."""

    def remove(self, tick: Callable[[], None]) -> None:
        """Stop calling `tick`."""


class Wire(Protocol):
    """Carries the audio of one phone."""

    def send_frame(self, frame: bytes | None) -> bool | None:
        """Send `frame`, or silence for None.

        True: sent. False: the phone does not take it. None: the connection is closed, and
        `Line.lost` will be called.
        """
        ...

    def send_hangup(self, cleanly: bool) -> None:
        """Tell the phone that the call is over; if not `cleanly`, hang up the caller."""

    def abort(self) -> None:
        """Close the connection at once; data that waits is not sent."""

    def rate_changed(self, rate: int) -> None:
        """Frames have `rate` samples per second from now on."""


def _lost(frame: bytes | None) -> None:
    """Send nothing: the connection is over."""


class Line:
    """One phone. It tells its call what happens (`PhoneListener`); the call uses it as a `Phone`.

    From `open` on, the phone gets one frame at each tick of `pace`, also while it sends nothing.
    The call that answers calls `join`. From then on the caller's audio goes straight to the bot's
    sink, and each tick takes bot audio from the playout queue.

    A phone that takes no frame for `stall_timeout` seconds is lost. The timeout is counted in
    ticks: when this process stands still, the phone is not to blame.
    """

    _log = Logger()
    strangers: BoundedLog | None = None  # for a phone that has not told the id of its call

    def __init__(
        self,
        wire: Wire,
        answer: AnswerCall,
        pace: Pace,
        options: LineOptions,
        now: Callable[[], float],
    ) -> None:
        self.peer = "?"
        self.call_id = ""
        self.codec: PhoneCodec = "linear"
        self.rate = 8000
        self.stats = PhoneStats()
        self.caller = CallerAudio(options.hold_after, self.stats, now)
        self.closed = False
        self.in_call = False  # from the answer to the end
        self._wire: Wire | None = wire  # until it is lost
        self._answer = answer
        self._pace = pace
        self._now = now
        self._send_frame = wire.send_frame
        self._playout: Playout | None = None
        self._sent: FrameSent | None = None
        self._ticked_at = now()
        self._listener: PhoneListener | None = None
        self._end: tuple[PhoneEnd, str] | None = None  # known before the connection is lost
        self._stall_timeout = options.stall_timeout
        self._stall_ticks = max(1, round(options.stall_timeout / FRAME))
        self._skipped = 0  # frames in a row

    # From the wire

    def open(self, peer: str) -> None:
        """The phone has connected: send it frames from now on, the first one at once.

        If the bridge waited for the caller's first frame, some calls would stay silent.
        """
        self.peer = peer
        self.tick()
        self._pace.add(self.tick, self.broken, self.skipped)

    def identify(self, call_id: str) -> bool:
        """The phone has told the id of its call: begin the call, or hang up if it is refused.

        True if a call has begun.
        """
        self.call_id = call_id
        listener = self._answer(call_id, self)
        if listener is None:
            self.hang_up()
        else:
            self._listener = listener
            self.in_call = True
        return self.in_call

    def set_rate(self, rate: int) -> None:
        """The phone's audio now has `rate` samples per second: send audio at that rate, too."""
        self.rate = rate
        if self._playout is not None:
            self._playout.set_rate(rate)
        if self._wire is not None:
            self._wire.rate_changed(rate)

    def press(self, key: str) -> None:
        """The caller pressed a key."""
        if key not in KEYS:
            self.warn("bad-digit", f"a DTMF digit {key!a} was dropped: expected one of 0-9 A-D * #")
        elif self._listener is not None:
            self._listener.caller_digit(key)

    def warn(self, kind: str, text: str) -> None:
        """Report a fault of the phone that does not end the call."""
        if self._listener is not None:
            self._listener.phone_warning(kind, text)

    def end(self, how: PhoneEnd, reason: str) -> None:
        """The phone ends for a known `reason`. The wire will call `lost`."""
        self._end = how, reason
        self.close()

    def lost(self, how: PhoneEnd = "hangup", reason: str = "") -> None:
        """The connection is closed. If `end` was called before, its `how` and `reason` count."""
        listener, self._listener = self._listener, None
        self._playout = self._sent = None
        # The wire refers to this line as well: both would keep each other in memory.
        self._wire, self._send_frame = None, _lost
        try:
            self.close()
        finally:
            if listener is not None:
                listener.phone_gone(*(self._end or (how, reason)))

    def refuse(self, fault: str) -> None:
        """The phone broke the protocol. The wire will call `lost`."""
        self.complain(fault)
        self.end("fault", f"the phone broke the protocol: {fault}")

    def complain(self, fault: str) -> None:
        """Log why the connection is closed."""
        log = self.strangers if self.strangers is not None and not self.call_id else self._log
        log.warn(
            "{call_id} connection from {peer} closed: {fault}",
            call_id=self.call_id or "-",
            peer=self.peer,
            fault=fault,
        )

    def broken(self, failure: Failure) -> None:
        """Log a fault of the bridge with its traceback, and end this call."""
        self._log.failure(FAULT, failure, call_id=self.call_id or "-")
        listener, self._listener = self._listener, None
        try:
            if listener is not None:
                listener.phone_gone("bridge", reason_of(failure))
        except Exception:  # noqa: BLE001 - then the phone must not stay open
            self._log.failure(FAULT, call_id=self.call_id or "-")
        self.hang_up()

    @property
    def seconds_skipped(self) -> float:
        """Seconds for which the phone has taken no frame."""
        return self._skipped * FRAME

    # From the call

    def join(self, sink: AudioSink, playout: Playout) -> None:
        """Send the caller's audio to `sink`, and play `playout` to the caller, from now on."""
        self.caller.join(sink)
        if self._playout is None:
            self._playout = playout
            self._ticked_at = self._now()
            playout.set_rate(self.rate)

    def listen(self, sent: FrameSent) -> None:
        """Call `sent` with each frame that is sent to the phone, from `join` on."""
        self._sent = sent

    def hang_up(self, cleanly: bool = True) -> None:
        """End the call. If `cleanly`, the dialplan continues; else Asterisk hangs up the caller."""
        if self.closed:
            return
        try:
            self.close()
            if self._wire is not None:
                self._wire.send_hangup(cleanly)
        except Exception:  # noqa: BLE001 - then the phone must not stay open
            self._log.failure("{call_id} the phone cannot be hung up", call_id=self.call_id or "-")
            self._abort()

    def close(self) -> None:
        """Stop sending audio and passing it on."""
        self.closed = True
        self._pace.remove(self.tick)
        self.caller.leave()

    # From the clock

    def tick(self) -> None:
        """Send the frame of this tick: bot audio, or silence."""
        frame = None
        if self._playout is not None:
            now = self._now()
            if now - self._ticked_at > LATE:
                self.stats.late_frames += 1
            self._ticked_at = now
            frame = self._playout.read(now)
            if frame is None and (due := self._playout.first_due()) is not None:
                self._pace.align(self.tick, due)
            self.caller.tick(now)
            if self._sent is not None:
                self._sent(frame, self.rate)
        taken = self._send_frame(frame)
        if taken:
            self.stats.frames_out += 1
            self._skipped = 0
        elif taken is not None:
            self._skip()

    def skipped(self, frames: int) -> None:
        """This machine stood still: the phone got nothing in the time of so many frames."""
        if self._sent is not None:
            self._sent(bytes(min(frames, LONGEST_HOLE) * frame_bytes(self.rate)), self.rate)

    def _skip(self) -> None:
        self.stats.frames_skipped += 1
        self._skipped += 1
        if self._skipped >= self._stall_ticks and not self.closed:
            fault = f"the phone took no audio for {self._stall_timeout:g} s"
            self.complain(fault)
            self.end("lost", fault)
            self._abort()

    def _abort(self) -> None:
        self.close()
        if self._wire is not None:
            self._wire.abort()
