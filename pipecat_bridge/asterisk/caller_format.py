"""What the bytes of kind 0x10 are: its number says 8 kHz linear, and that is not always true.

`Dial(AudioSocket/...)` without `c(slin)` sends the caller's codec as it is under 0x10, and releases
before 20.17 / 22.7 send 16 kHz of `c(slin16)` under it as well. Nothing on the wire says which;
the length of the frames and their pace do.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Final, Literal

from pipecat_bridge.audio import g711
from pipecat_bridge.contracts import PhoneCodec

G711_BYTES = 160
SLIN16_BYTES = 640
FRAMES = 10
"""Frames that are looked at before a decision: 0.2 s."""

AT_ONCE = 0.005
"""Frames closer together than this, in seconds, had piled up while this process or Asterisk was
busy. Of the pile that a call may begin with nobody knows how long it took to grow."""

MOST_FRAMES = 50
"""Frames that are kept at the most: a second."""

Guess = Literal["linear", "g711", "slin16"]

_DOUBTS: Final[dict[Guess, str]] = {
    "g711": "frames of 160 bytes each 20 ms under kind 0x10 are the caller's codec, taken for"
    " {g711} (G.722 would be noise): add c(slin) to Dial(AudioSocket/...) in the dialplan",
    "slin16": "frames of 640 bytes each 20 ms under kind 0x10: taken for 16 kHz, which Asterisk"
    " before 20.17 / 22.7 sends so; the bot's audio goes back at 8 kHz",
}
"""What is told of a guess that may be wrong."""


class CallerFormat:
    """Turns payloads of kind 0x10 into linear PCM.

    Frames whose length leaves a doubt are kept until the pace has settled it, then returned all at
    once; a frame of any other length settles it for linear at 8 kHz.
    """

    __slots__ = ("_g711", "_held", "_times", "codec")

    def __init__(self, g711_codec: Literal["ulaw", "alaw"]) -> None:
        self._g711 = g711_codec
        self._held: list[bytes] = []
        self._times: list[float] = []
        self.codec: Guess | None = None

    @property
    def rate(self) -> int:
        """Samples per second of what `convert` returns."""
        return 16000 if self.codec == "slin16" else 8000

    @property
    def phone_codec(self) -> PhoneCodec:
        """The codec of the phone; "linear" while there is no reason for another."""
        return self._g711 if self.codec == "g711" else self.codec or "linear"

    @property
    def doubt(self) -> str:
        """A sentence for a guess that may be wrong; "" for none."""
        return _DOUBTS[self.codec].format(g711=self._g711) if self.codec in _DOUBTS else ""

    def convert(self, payload: bytes, now: float) -> list[bytes]:
        """PCM for one payload that came at `now` seconds; an empty list while undecided."""
        if self.codec is None:
            return self._undecided(payload, now)
        return [self._decode(payload)]

    def _decode(self, payload: bytes) -> bytes:
        return g711.decode(self._g711, payload) if self.codec == "g711" else payload

    def _is_enough(self) -> bool:
        times = self._times
        since_first_pile = len(times) - next(_piles(times))[1]
        return since_first_pile >= FRAMES - 1 or len(times) == MOST_FRAMES

    def _undecided(self, payload: bytes, now: float) -> list[bytes]:
        held = self._held
        held.append(payload)
        self._times.append(now)
        if len(payload) not in (G711_BYTES, SLIN16_BYTES) or len(payload) != len(held[0]):
            self.codec = "linear"
        elif self._is_enough():
            self.codec = _by_pace(len(payload), self._times)
        else:
            return []
        self._held, self._times = [], []
        return [self._decode(each) for each in held]


def _by_pace(size: int, times: list[float]) -> Guess:
    """160 bytes are 10 ms linear or 20 ms G.711; 640 are 40 ms at 8 kHz or 20 ms at 16 kHz.

    The median, since one frame that was late, or a caller put on hold meanwhile, must not decide.
    """
    spacings: list[float] = []
    for (before, _), (start, end) in pairwise(_piles(times)):
        grown = times[start] - times[before]
        spacings += [grown / (end - start)] * (end - start)
    # All at once: Asterisk's frames are of 20 ms as a rule.
    spacing = median(spacings) if spacings else 0.02
    if size == G711_BYTES:
        return "g711" if spacing > 0.015 else "linear"
    return "slin16" if spacing < 0.03 else "linear"


def _piles(times: list[float]) -> Iterator[tuple[int, int]]:
    """First index, and the one after the last, of frames that came at once; most are alone."""
    start = 0
    for index, (before, after) in enumerate(pairwise(times), 1):
        if after - before > AT_ONCE:
            yield start, index
            start = index
    yield start, len(times)
