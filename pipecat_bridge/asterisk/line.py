"""The line to one phone: its audio both ways, its counters, its end.

What carries the audio is a `Wire`, such as AudioSocket. A line knows no protocol and no socket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.caller_audio import CallerAudio
from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import (
    AnswerCall,
    AudioSink,
    PhoneCodec,
    PhoneEnd,
    PhoneListener,
    PhoneStats,
)

KEYS: Final = frozenset("0123456789ABCD*#")


@dataclass(frozen=True, slots=True)
class LineOptions:
    """Times in seconds. `g711` is the codec that 160-byte frames are taken for."""

    handshake_timeout: float = 5.0
    stall_timeout: float = 10.0
    hold_after: float = 0.1
    g711: Literal["ulaw", "alaw"] = "ulaw"


class Pace(Protocol):
    """When frames go to the phone: the `FrameClock`, or a phone side that paces itself."""

    def add(self, tick: Callable[[], None], failed: Callable[[Failure], None]) -> None:
        """Call `tick` for each frame from now on; tell `failed` when it raises."""

    def remove(self, tick: Callable[[], None]) -> None:
        """Call `tick` no more."""


class Wire(Protocol):
    """What carries the audio of one phone."""

    def send_frame(self, frame: bytes | None) -> bool | None:
        """Send one frame, None being silence. False: the phone does not take it. None: the
        connection is over, and its end has yet to be read."""
        ...

    def send_hangup(self, cleanly: bool) -> None:
        """Tell the phone that the call is over."""

    def abort(self) -> None:
        """Close the connection now; nothing more can be sent."""

    def rate_changed(self, rate: int) -> None:
        """Frames have another sample rate from now on, in Hz."""


class Line:
    """One phone. Its call hears of it as a `PhoneListener`, and uses it as a `Phone`.

    From `open` on, the phone gets a frame at each tick of `pace`, whatever comes in. The call
    that answers joins it by `join`. From then on the caller's audio goes straight to the bot's
    sink, and each tick takes the bot's audio from the playout queue.

    A phone that takes no frame at any tick of `stall_timeout` seconds is gone. Ticks are counted
    and not seconds: when this process stands still, the phone is not to blame.
    """

    _log = Logger()

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
        self._wire = wire
        self._answer = answer
        self._pace = pace
        self._now = now
        self._send_frame = wire.send_frame
        self._playout: Playout | None = None
        self._listener: PhoneListener | None = None
        self._end: tuple[PhoneEnd, str] | None = None  # known before the connection is lost
        self._stall_timeout = options.stall_timeout
        self._stall_ticks = max(1, round(options.stall_timeout / FRAME))
        self._skipped = 0  # frames in a row

    # From the wire

    def open(self, peer: str) -> None:
        """The phone has connected. A server that waits for the caller's first frame gets wholly
        silent calls now and then, so the first frame goes out at once."""
        self.peer = peer
        self.tick()
        self._pace.add(self.tick, self.fail)

    def identify(self, call_id: str) -> None:
        """The phone says which call it is. A call that is refused is hung up."""
        self.call_id = call_id
        listener = self._answer(call_id, self)
        if listener is None:
            self.hang_up()
        else:
            self._listener = listener
            self.in_call = True

    def set_rate(self, rate: int) -> None:
        """The phone's audio has another sample rate, in Hz; so has what it gets."""
        self.rate = rate
        if self._playout is not None:
            self._playout.set_rate(rate)
        self._wire.rate_changed(rate)

    def press(self, key: str) -> None:
        """The caller pressed a key."""
        if key not in KEYS:
            self.warn("bad-digit", f"a DTMF digit {key!a} was dropped: expected one of 0-9 A-D * #")
        elif self._listener is not None:
            self._listener.caller_digit(key)

    def warn(self, kind: str, text: str) -> None:
        """Something is wrong with the phone, and the call goes on."""
        if self._listener is not None:
            self._listener.phone_warning(kind, text)

    def end(self, how: PhoneEnd, reason: str) -> None:
        """The phone ends, and `lost` will follow; `how` and `reason` are known by now."""
        self._end = how, reason
        self.close()

    def lost(self, how: PhoneEnd = "hangup", reason: str = "") -> None:
        """The connection is closed. An end that was known before counts."""
        self.close()
        listener, self._listener, self._playout = self._listener, None, None
        # The wire has this line, too: both would keep each other in memory.
        del self._wire, self._send_frame
        if listener is not None:
            listener.phone_gone(*(self._end or (how, reason)))

    def refuse(self, fault: str) -> None:
        """The phone broke the protocol, and `lost` will follow."""
        self.complain(fault)
        self.end("fault", f"the phone broke the protocol: {fault}")

    def complain(self, fault: str) -> None:
        """Log why the connection is closed."""
        self._log.warn(
            "{call_id} connection from {peer} closed: {fault}",
            call_id=self.call_id or "-",
            peer=self.peer,
            fault=fault,
        )

    def fail(self, failure: Failure) -> None:
        """The bridge made a mistake: it is logged with its traceback, and ends this call."""
        self._log.failure(
            "{call_id} a mistake of the bridge ends the call",
            failure,
            call_id=self.call_id or "-",
        )
        listener, self._listener = self._listener, None
        try:
            if listener is not None:
                reason = f"a mistake of the bridge: {failure.getErrorMessage()}"
                listener.phone_gone("bridge", reason)
            self.hang_up()
        except Exception:  # noqa: BLE001 - what is broken cannot end in good order
            self._log.failure("{call_id} the call cannot be ended", call_id=self.call_id or "-")
            self.close()
            self._wire.abort()

    @property
    def seconds_skipped(self) -> float:
        """For how long the phone has taken no frame."""
        return self._skipped * FRAME

    # From the call

    def join(self, sink: AudioSink, playout: Playout) -> None:
        """Send the caller's audio to `sink`, and play `playout` to the caller, from now on."""
        self.caller.join(sink)
        if self._playout is None:
            self._playout = playout
            playout.set_rate(self.rate)

    def hang_up(self, cleanly: bool = True) -> None:
        """End the call in good order, so that the dialplan goes on; or hang up the caller."""
        if not self.closed:
            self.close()
            self._wire.send_hangup(cleanly)

    def close(self) -> None:
        """Neither send nor take audio any more."""
        self.closed = True
        self._pace.remove(self.tick)
        self.caller.leave()

    # From the clock

    def tick(self) -> None:
        """Send the frame of this tick: the bot's, or silence."""
        frame = None
        if self._playout is not None:
            now = self._now()
            frame = self._playout.read(now)
            self.caller.tick(now)
        taken = self._send_frame(frame)
        if taken:
            self.stats.frames_out += 1
            self._skipped = 0
        elif taken is not None:
            self._skip()

    def _skip(self) -> None:
        self.stats.frames_skipped += 1
        self._skipped += 1
        if self._skipped >= self._stall_ticks and not self.closed:
            fault = f"the phone took nothing for {self._stall_timeout:g} s"
            self.complain(fault)
            self.end("lost", fault)
            self._wire.abort()
