"""Strict Asterisk: the client side of AudioSocket, which ends the call on all that Asterisk does.

The rules are those of `res_audiosocket.c`, `app_audiosocket.c` and `chan_audiosocket.c`. Nothing
here shares code with the bridge. Faults are recorded and never raised.
"""

from __future__ import annotations

import select
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise, repeat
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.doubles.far_end import FarEnd
from tests.doubles.watch import Watched

RATES = dict(
    zip(
        range(0x10, 0x19),
        (8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000, 192000),
        strict=True,
    )
)
FRAME = 0.02
TURNS = 5  # of the loop in which the bridge, in this very process, may send what it has
GAP = 0.005  # longest pause inside a message, the timeout of the poll in res_audiosocket.c
IDLE = 2.0  # the application ends the call after so long without a frame either way
HUNG_UP = "error received: the channel is hung up"
"""`ended` after an error of the server's."""

JITTER = (0.0, 0.0035, -0.0035, 0.0035, 0.001, -0.002)  # spacings of 13 to 27 ms

Driver = Literal["application", "channel"]


class AudioFrame(NamedTuple):
    """One audio message: when, samples per second, bytes."""

    at: float
    rate: int
    payload: bytes


class StrictAsterisk(Protocol, Watched):
    """One call.

    `handshake` is sent in place of the UUID message (`b""`: nothing, a half-open call). `kind`
    overrides the kind of `rate`. `release` is the Asterisk release, e.g. "20.13", and decides the
    quirks. `jitter` is added to the 20 ms grid of the sent audio, in seconds, in turn.

    `ended` says why the call ended, None while it lasts; `lost` fires when the connection is gone.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        call_id: UUID | None = None,
        rate: int = 8000,
        kind: int | None = None,
        driver: Driver = "channel",
        release: str = "22.10",
        handshake: bytes | None = None,
        jitter: Sequence[float] = (0.0,),
    ) -> None:
        self.clock = clock
        self.call_id = call_id or uuid4()
        self.rate = rate
        self.driver = driver
        self.faults: list[str] = []
        self.ended: str | None = None
        self.hangup_received = False
        self.frames: list[AudioFrame] = []
        self.sent: list[AudioFrame] = []
        self.far_end = FarEnd(self.faults)
        self.connected_at = 0.0
        self.bytes_after_end = 0
        self.audio_done: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self._all_rates = _since(release, 17, 7)
        self._joins_headers = _since(release, 19, 9)
        self._sends_dtmf = _since(release, 14, 4)
        self.kind = kind if kind is not None else self._kind_of(rate)
        self._handshake = handshake
        self._jitter = jitter
        self._buffer = bytearray()
        self._timers: dict[str, IDelayedCall] = {}
        self._active_at = 0.0
        self._held = False
        self._reading = True

    def start_audio(self, source: Iterable[bytes] | None = None) -> Deferred[None]:
        """Send the payloads of `source` (endless silence) on a 20 ms clock of absolute deadlines.

        The Deferred fires when the source is at its end or the call is over.
        """
        silence = bytes(self.rate // 50 * 2)
        self._source: Iterator[bytes] = iter(repeat(silence) if source is None else source)
        self._audio_start, self._slot = self.clock.seconds(), 0
        self.audio_done = Deferred()
        self._send_slot()
        return self.audio_done

    def stop_audio(self) -> None:
        """Send no more of the source; the call stays."""
        self._cancel("audio")
        self._audio_over()

    def hold(self) -> None:
        """The caller sends nothing, and takes nothing from the source, until `resume`."""
        self._held = True

    def resume(self) -> None:
        """End of `hold`."""
        self._held = False

    def send_audio(self, payload: bytes) -> None:
        """Send one audio message now, of any size."""
        self.sent.append(AudioFrame(self.clock.seconds(), RATES.get(self.kind, 8000), payload))
        self.send(_message(self.kind, payload))

    def dtmf(self, digit: str, held: float = 0.0) -> None:
        """Press a key for `held` seconds; no audio meanwhile, and the message when it is let go."""
        if held:
            self.hold()
            self._later("key", held, lambda: (self.resume(), self.dtmf(digit)))
        elif self._sends_dtmf:
            self.send(_message(0x03, digit.encode("ascii")))

    def send(self, data: bytes) -> None:
        """Write bytes as they are, unless the call is over."""
        if self.ended is None:
            self._active_at = self.clock.seconds()
            self.transport.write(data)

    def hangup(self) -> None:
        """The caller hangs up: the connection is closed, nothing is said."""
        self._end("hung up")

    def reset(self) -> None:
        """As `hangup`, but the connection ends with RST."""
        self._end("reset", abort=True)

    def stop_reading(self) -> None:
        """Read nothing until `start_reading`; the kernel's buffers fill up."""
        self._reading = False
        self._cancel("rest")
        self.transport.pauseProducing()

    def start_reading(self) -> None:
        """End of `stop_reading`."""
        self._reading = True
        self.transport.resumeProducing()
        self._await_rest()

    def pcm(self, rate: int | None = None) -> bytes:
        """All audio received at `rate`; without it there must have been one rate only."""
        rates = {frame.rate for frame in self.frames}
        if rate is None and len(rates) > 1:
            raise ValueError(f"audio came at {sorted(rates)} samples per second: name one")
        return b"".join(frame.payload for frame in self.frames if rate in (None, frame.rate))

    def spacing(self) -> list[float]:
        """Seconds between frames."""
        times = [frame.at for frame in self.frames]
        return [after - before for before, after in pairwise(times)]

    def gaps(self, limit: float = 0.03) -> list[tuple[float, float]]:
        """(when, seconds) of the spacings longer than `limit`."""
        pairs = zip(self.frames, self.spacing(), strict=False)
        return [(frame.at, space) for frame, space in pairs if space > limit]

    @property
    def blocked(self) -> bool:
        """The rest of a header is awaited: this call's audio stands still."""
        return 0 < len(self._buffer) < 3

    def connectionMade(self) -> None:
        self.connected_at = self._active_at = self.clock.seconds()
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        if self._handshake is None:
            self.send(_message(0x01, self.call_id.bytes))
            if self.driver == "application":
                self._later("idle", IDLE, self._check_idle)
        elif self._handshake:
            self.send(self._handshake)

    def dataReceived(self, data: bytes) -> None:
        if self.ended is not None:
            self.bytes_after_end += len(data)
            return
        self._active_at = self.clock.seconds()
        self._buffer += data
        while self._take_message():
            pass
        self._await_rest()
        self.changed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        middle = " in the middle of a message" if self._buffer else ""
        if self.ended is None:
            self._fault(
                f"closed{middle} without 00 0000 ({reason.value}): up to 20.13 the call stays up "
                "and Asterisk spins"
            )
        self.over(str(self.ended))
        self.lost.callback(None)

    def pauseProducing(self) -> None:
        """The buffers toward the server are full; Asterisk's write would fail now."""
        self._fault("the server does not read: Asterisk's write fails", abort=True)

    def resumeProducing(self) -> None:
        """Nothing: a full buffer has ended the call."""

    def stopProducing(self) -> None:
        """Nothing: `connectionLost` follows."""

    def _take_message(self) -> bool:
        if self.ended is not None or len(self._buffer) < 3:
            return False
        kind, size = struct.unpack_from(">BH", self._buffer)
        if kind == 0x00:
            self.hangup_received = True
            self.bytes_after_end += len(self._buffer) - 3
            self._end("hangup received")
            return False
        if kind == 0xFF:
            self.bytes_after_end += max(0, len(self._buffer) - 3 - size)
            self._end(HUNG_UP)
            return False
        if kind not in RATES or (kind != 0x10 and not self._all_rates):
            self._fault(f"kind 0x{kind:02x} is neither hangup nor audio")
            return False
        if size == 0:
            self._fault(f"kind 0x{kind:02x} with length 0")
            return False
        if len(self._buffer) < 3 + size:
            return False
        self._play(RATES[kind], bytes(self._buffer[3 : 3 + size]))
        del self._buffer[: 3 + size]
        return True

    def _play(self, rate: int, payload: bytes) -> None:
        frame = AudioFrame(self.clock.seconds(), rate, payload)
        self.frames.append(frame)
        self.far_end.arrive(frame.at, len(payload) / 2 / rate)

    def _await_rest(self) -> None:
        self._cancel("rest")
        if not self._buffer or self.ended is not None or not self._reading:
            return
        if self.blocked and not self._joins_headers and not self._more_waits():
            self._fault("a header came in two pieces, which breaks releases before 20.19 / 22.9")
        else:
            self._later("rest", GAP, self._rest_is_late)

    def _rest_is_late(self, turns: int = TURNS) -> None:
        if self._more_waits():
            self._await_rest()  # it came in time; only this process was late to read it
        elif turns:
            self._later("rest", 0.0, partial(self._rest_is_late, turns - 1))
        elif self.blocked:
            # No end of the call, but no audio either until the rest comes.
            self.faults.append("the rest of a header did not come within 5 ms: Asterisk blocks")
        else:
            self._fault("a gap of more than 5 ms inside a message")

    def _more_waits(self) -> bool:
        handle = getattr(self.transport, "getHandle", None)
        if handle is None:
            return False
        poll = select.poll()
        poll.register(handle(), select.POLLIN)
        return bool(poll.poll(0))

    def _check_idle(self) -> None:
        left = self._active_at + IDLE - self.clock.seconds()
        if left > 1e-6:
            self._later("idle", left, self._check_idle)
        else:
            self._fault("2 s in which neither side sent anything")

    def _send_slot(self) -> None:
        payload = None if self._held else next(self._source, b"")
        if payload == b"" or self.ended is not None:
            self._audio_over()
            return
        if payload is not None:
            self.send_audio(payload)
        self._slot += 1
        jitter = self._jitter[self._slot % len(self._jitter)]
        due = self._audio_start + self._slot * FRAME + jitter
        self._later("audio", max(0.0, due - self.clock.seconds()), self._send_slot)

    def _audio_over(self) -> None:
        if not self.audio_done.called:
            self.audio_done.callback(None)

    def _fault(self, text: str, *, abort: bool = False) -> None:
        self.faults.append(text)
        self._end(text, abort=abort)

    def _end(self, why: str, *, abort: bool = False) -> None:
        if self.ended is not None:
            return
        self.ended = why
        for name in list(self._timers):
            self._cancel(name)
        transport: Any = self.transport
        transport.unregisterProducer()
        if abort:
            transport.abortConnection()
        else:
            transport.loseConnection()
        self._audio_over()
        self.changed()

    def _later(self, name: str, delay: float, call: Callable[[], object]) -> None:
        self._cancel(name)
        self._timers[name] = self.clock.callLater(delay, call)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None and timer.active():
            timer.cancel()

    def _kind_of(self, rate: int) -> int:
        if not self._all_rates:
            return 0x10  # `c(slin16)` of old releases: 640 bytes per 20 ms under the kind of 8 kHz
        return next(kind for kind, known in RATES.items() if known == rate)


def _since(release: str, minor_of_20: int, minor_of_22: int) -> bool:
    """Whether `release` is 20.x or 22.x from the given minor version on, or newer than 22."""
    major, minor = (int(part) for part in release.split(".")[:2])
    if major in (20, 22):
        return minor >= (minor_of_20 if major == 20 else minor_of_22)
    return major > 22


def _message(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


async def connect_asterisk(
    reactor: Any, port: int, *, host: str = "127.0.0.1", bind: str | None = None, **options: Any
) -> StrictAsterisk:
    """Call the bridge at `port` over TCP; `bind` is the address to call from."""
    local = None if bind is None else (bind, 0)
    endpoint = TCP4ClientEndpoint(reactor, host, port, bindAddress=local)
    call: StrictAsterisk = await connectProtocol(endpoint, StrictAsterisk(reactor, **options))
    return call
