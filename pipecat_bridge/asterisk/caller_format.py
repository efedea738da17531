"""Recognises the format of audio of kind 0x10, which should be 8 kHz linear and not always is.

`Dial(AudioSocket/...)` without `c(slin)` sends the caller's codec, unchanged, as kind 0x10. With
`c(slin16)`, releases before 20.17 / 22.7 send 16 kHz audio as kind 0x10. No field of the protocol
tells the formats apart. The length and the pace of the frames do.
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
"""Frames that are needed for a decision: 0.2 s."""

AT_ONCE = 0.005
"""Frames closer together than this, in seconds, are a pile: they waited while this process or
Asterisk was busy. A call may begin with a pile, and it is unknown how long that one took to grow,
so it does not count for the pace."""

MOST_FRAMES = 50
"""Frames that are held at most: 1 s."""

Guess = Literal["linear", "g711", "slin16"]

_DOUBTS: Final[dict[Guess, str]] = {
    "g711": "the phone sends 160 bytes each 20 ms as kind 0x10: this is the caller's codec, decoded"
    " as {g711} (G.722 would be noise): add c(slin) to Dial(AudioSocket/...) in the dialplan",
    "slin16": "the phone sends 640 bytes each 20 ms as kind 0x10: decoded as 16 kHz, as Asterisk"
    " before 20.17 / 22.7 sends it; the bot's audio goes back at 8 kHz",
}
"""Texts of the warning `codec-guess`."""


class CallerFormat:
    """Turns payloads of kind 0x10 into linear PCM.

    While the length of the frames leaves a doubt, they are held. When their pace has shown the
    format, they are returned all at once. A frame of any other length means 8 kHz linear.
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
        """The codec of the phone; "linear" until another one is recognised."""
        return self._g711 if self.codec == "g711" else self.codec or "linear"

    @property
    def doubt(self) -> str:
        """The text of a warning if the format may be wrong, else ""."""
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
    """Decide by the time between frames of `size` bytes; `times` are in seconds.

    160 bytes are 10 ms linear or 20 ms G.711; 640 are 40 ms at 8 kHz or 20 ms at 16 kHz. The median
    decides, so that one late frame, or a caller put on hold, makes no difference.
    """
    spacings: list[float] = []
    for (before, _), (start, end) in pairwise(_piles(times)):
        grown = times[start] - times[before]
        spacings += [grown / (end - start)] * (end - start)
    # If all frames came at once, assume 20 ms, as Asterisk usually sends.
    spacing = median(spacings) if spacings else 0.02
    if size == G711_BYTES:
        return "g711" if spacing > 0.015 else "linear"
    return "slin16" if spacing < 0.03 else "linear"


def _piles(times: list[float]) -> Iterator[tuple[int, int]]:
    """First index, and the index after the last, of each group of frames that came at once.

    Most groups are a single frame.
    """
    start = 0
    for index, (before, after) in enumerate(pairwise(times), 1):
        if after - before > AT_ONCE:
            yield start, index
            start = index
    yield start, len(times)
