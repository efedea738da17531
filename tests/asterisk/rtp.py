"""An RTP port as a phone has it: PCMU and telephone events out, packets with their times in."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from pipecat_bridge.audio import g711
from tests.asterisk.sound import FULL_SCALE, Signal, pcm

_TIMESTAMPNS = 35  # SO_TIMESTAMPNS, which Python has no name for
_PCMU, _EVENT = 0, 101
_FRAME = 160  # samples in 20 ms
_KEYS = "0123456789*#ABCD"


class Packet(NamedTuple):
    """A packet: seconds when the kernel got it, and the header's fields."""

    at: float
    payload_type: int
    sequence: int
    timestamp: int
    payload: bytes


@implementer(IReadDescriptor)
class RtpPort:
    """A UDP socket on loopback; it sends to wherever packets come from."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.packets: list[Packet] = []
        self._peer: tuple[str, int] | None = None
        self._sequence = 0
        self._timestamp = 0
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "rtp"

    def connectionLost(self, reason: object) -> None:
        """The reactor has no connection to lose here."""

    def doRead(self) -> None:
        while True:
            try:
                data, extra, _, self._peer = self._socket.recvmsg(2048, 128)
            except BlockingIOError:
                return
            seconds, nanoseconds = struct.unpack("qq", extra[0][2])
            _, kind, sequence, timestamp = struct.unpack("!BBHI", data[:8])
            packet = Packet(
                seconds + nanoseconds / 1e9, kind & 0x7F, sequence, timestamp, data[12:]
            )
            self.packets.append(packet)

    def close(self) -> None:
        """Give the port back."""
        reactor.removeReader(self)
        self._socket.close()

    def heard(self) -> Signal:
        """The audio received, in the order of its sequence numbers."""
        audio = sorted(
            (p for p in self.packets if p.payload_type == _PCMU), key=lambda p: p.sequence
        )
        linear = b"".join(g711.decode("ulaw", packet.payload) for packet in audio)
        return np.frombuffer(linear, "<i2").astype(np.float64) / FULL_SCALE

    def spacing(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Milliseconds between audio packets."""
        return 1000 * np.diff([p.at for p in self.packets if p.payload_type == _PCMU])

    def play(self, signal: Signal) -> Deferred[None]:
        """Send `signal` (8 kHz) in packets of 20 ms; fires after the last."""
        samples = g711.encode("ulaw", pcm(signal))
        frames = iter([samples[start : start + _FRAME] for start in range(0, len(samples), _FRAME)])
        return self._every_20_ms((_PCMU, frame, _FRAME) for frame in frames)

    def press(self, key: str) -> Deferred[None]:
        """Press a key for 100 ms by RFC 4733: five packets, and the end three times."""
        event = _KEYS.index(key)
        steps = [(event, 10, step * _FRAME) for step in range(1, 6)]
        steps += [(event, 0x80 | 10, 5 * _FRAME)] * 3
        packets = [struct.pack("!BBH", *step) for step in steps]
        # All packets of one event carry the time of its beginning.
        advance = [0] * (len(packets) - 1) + [8 * _FRAME]
        return self._every_20_ms(
            (_EVENT, packet, step) for packet, step in zip(packets, advance, strict=True)
        )

    def _every_20_ms(self, packets: Iterator[tuple[int, bytes, int]]) -> Deferred[None]:
        def step(count: int) -> None:
            for _ in range(count):
                packet = next(packets, None)
                if packet is None:
                    loop.stop()
                    return
                self._send(*packet)

        loop = LoopingCall.withCount(step)
        return loop.start(0.02).addCallback(lambda _: None)

    def _send(self, payload_type: int, payload: bytes, samples: int) -> None:
        header = struct.pack(
            "!BBHII", 0x80, payload_type, self._sequence & 0xFFFF, self._timestamp, 0x5EED
        )
        self._sequence += 1
        self._timestamp += samples
        if self._peer is not None:
            self._socket.sendto(header + payload, self._peer)
