"""A phone that sends anything, to a connection and its line."""

from __future__ import annotations

from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.line import Line, LineOptions
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import PhoneEnd
from tests.fuzz.harness import LenientTransport, pieces, settle
from tests.hostile import plain

_UUID = plain.phone(plain.UUID, bytes(range(16)))
_OPTIONS: Final = LineOptions(handshake_timeout=5, stall_timeout=10, hold_after=0.5, g711="ulaw")

SEEDS: Final = (
    b"\1\1" + plain.phone(plain.AUDIO, bytes(320)) * 3 + plain.phone(plain.DTMF, b"5"),
    b"\0\5" + _UUID + plain.phone(plain.AUDIO_192K, bytes(7680)) + plain.phone(plain.AUDIO, b"xy"),
    b"\3\2" + plain.phone(0xFF, b"\1") + plain.phone(plain.HANGUP),
    b"\1\0" + plain.phone(plain.AUDIO, b"\xff" * 160) * 20 + plain.phone(0x12, bytes(640)) * 20,
    b"\1\6" + _UUID + plain.phone(plain.AUDIO, b"\x7f\xfe" * 160) * 8 + plain.phone(0x99, b"?"),
    # As much as there may be of it.
    b"\x0f\0"
    + (plain.phone(plain.AUDIO_192K, b"\1\1") + plain.phone(plain.AUDIO, b"\1\1")) * 6_000,
    b"\1\0" + plain.phone(plain.DTMF, b"5") * 15_000,
    b"\1\0" + plain.phone(0x42) * 20_000,
)


class _Call:
    """A call that takes all."""

    def __init__(self) -> None:
        self.playout = Playout()

    def hear(self, pcm: bytes, rate: int) -> None:
        if len(pcm) % 2 or not rate:
            raise ValueError(f"{len(pcm)} bytes of audio at {rate} Hz")

    def caller_digit(self, digit: str) -> None:
        if len(digit) != 1:
            raise ValueError(f"the key {digit!r}")

    def phone_gone(self, how: PhoneEnd, reason: str) -> None:
        pass

    def phone_warning(self, kind: str, text: str) -> None:
        pass


def one_input(data: bytes) -> None:
    """The first byte: whether a UUID goes before, and how much the bot has said. The second: how
    the rest is cut."""
    first, seed, stream = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
    clock, call = Clock(), _Call()

    def answer(call_id: str, phone: Line) -> _Call:
        phone.join(call.hear, call.playout)
        for _ in range(first[0] >> 1 & 7):
            call.playout.write(b"\1\2" * 1600, 16000, 1, clock.seconds())
        return call

    connection = AudioSocketConnection(
        answer, FrameClock(clock, clock.seconds), clock, _OPTIONS, clock.seconds
    )
    transport = LenientTransport()
    connection.makeConnection(transport)
    if first[0] & 1:
        connection.dataReceived(_UUID)
    for number, piece in enumerate(pieces(stream, seed[0])):
        if transport.disconnecting:
            break
        connection.dataReceived(piece)
        settle(clock)
        if number % 8 == 0:
            clock.advance(0.02)
            transport.clear()
    clock.advance(0.02)
    connection.connectionLost(Failure(ConnectionDone()))
    settle(clock)
    if clock.getDelayedCalls():
        raise ValueError(f"a timer is left: {clock.getDelayedCalls()}")
