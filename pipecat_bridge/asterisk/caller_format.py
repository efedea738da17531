"""Recognises the format of audio of kind 0x10, which should be 8 kHz linear and not always is.

`Dial(AudioSocket/...)` without `c(slin)` sends the caller's codec, unchanged, as kind 0x10. With
`c(slin16)`, releases before 20.17 / 22.7 send 16 kHz audio as kind 0x10. No field of the protocol
tells the formats apart. The bytes per second do: 8,000 of G.711, 16,000 linear, 32,000 at 16 kHz. A
phone that is short of processor time may send linear audio at half its pace for a second. Then the
level tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import fmean, median
from typing import Final, Literal

import numpy as np

from pipecat_bridge.audio import g711
from pipecat_bridge.audio.frame import frame_bytes
from pipecat_bridge.audio.pcm import SAMPLE
from pipecat_bridge.contracts import PhoneCodec

USUAL_BYTES: Final = frame_bytes(8000)
"""20 ms linear, as nearly all phones send. It may be 40 ms of G.711, but a few frames do not tell:
on a busy machine linear frames may be as slow for half a second."""

G711_BYTES: Final = (80, 160, 240)
"""10, 20 and 30 ms of G.711. So short a frame is G.711 if all frames come at once."""

SLIN16_BYTES: Final = frame_bytes(16000)
"""The releases that send 16 kHz as 8 kHz send 20 ms at a time. Shorter frames that come faster than
they should only catch up."""

G711_MOST: Final = 11_300
LINEAR_MOST: Final = 22_600
"""Bytes per second, in the middle between the formats by ratio."""

FRAMES: Final = 10
"""Frames that are needed for a decision: 0.2 s."""

WINDOW: Final = 50
"""Frames, mostly 1 s. After each window a decision may be corrected."""

WINDOWS: Final = 4
"""After so many windows nothing is corrected any more. If the pace was that of G.711 in all of
them, it is G.711, whatever the level says. Windows of zeros do not count."""

AT_ONCE: Final = 0.005
"""Frames closer together than this, in seconds, are a pile: they waited while this process or
Asterisk was busy. A call may begin with a pile, and it is unknown how long that one took to grow,
so it does not count for the pace."""

LOUDER: Final = 2
MARGIN: Final = 200
"""G.711 is quieter if it is decoded than if its octets are taken for linear samples. Linear audio
is louder if it is taken for G.711, unless it is very loud. So what would be louder in both laws, by
the factor `LOUDER` and by the level `MARGIN` in each frame, is linear for now."""

Guess = Literal["linear", "g711", "slin16"]

_DOUBTS: Final[dict[Guess, str]] = {
    "g711": "the phone sends 8000 bytes a second as kind 0x10: this is the caller's codec, decoded"
    " as {g711} (G.722 would be noise): add c(slin) to Dial(AudioSocket/...) in the dialplan",
    "slin16": "the phone sends 32000 bytes a second as kind 0x10: decoded as 16 kHz, as Asterisk"
    " before 20.17 / 22.7 sends it; the bot's audio goes back at 8 kHz",
}
"""Texts of the warning `codec-guess`."""


class CallerFormat:
    """Turns payloads of kind 0x10 into linear PCM.

    Frames are held until their pace has shown the format. Then they are returned all at once. But
    frames of the usual length are returned as linear from the first on. A decision is corrected
    until pace and level agree, for `WINDOWS` windows of frames.

    `codec` is None until the first decision. `settled`: all that comes is linear, for sure.
    """

    __slots__ = (
        "_check_at",
        "_g711",
        "_held",
        "_levels",
        "_sizes",
        "_times",
        "_windows",
        "codec",
        "settled",
    )

    def __init__(self, g711_codec: Literal["ulaw", "alaw"]) -> None:
        self._g711 = g711_codec
        self._held: list[bytes] = []
        self._sizes: list[int] = []
        self._times: list[float] = []
        self._levels = (0.0, 0.0)  # of the frames in `_sizes`: taken for linear, and for G.711
        self._check_at = FRAMES
        self._windows = WINDOWS  # that are left
        self.codec: Guess | None = None
        self.settled = False

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

    def watch(self, payload: bytes, now: float) -> None:
        """A payload came at `now` seconds."""
        if not self._windows:
            return
        size = len(payload)
        linear, as_g711 = self._levels
        quieter = min(_level(g711.decode(law, payload)) for law in g711.CODECS)
        self._levels = linear + _level(payload[: size & ~1]), as_g711 + quieter
        self._sizes.append(size)
        self._times.append(now)
        if self.codec is None and size == USUAL_BYTES:
            self.codec, self._check_at = "linear", WINDOW
        if len(self._times) == WINDOW:
            self._end_window()
        elif self._check_at == FRAMES:
            piles = list(_piles(self._times))
            if piles[-1][0] - piles[0][1] + 1 >= FRAMES - 1:
                self._check_at = WINDOW
                self.codec = self._guess(_by_pace(self._sizes, self._times))

    def convert(self, payload: bytes) -> list[bytes]:
        """PCM for one payload, after `watch`; an empty list while undecided."""
        if self.codec is None:
            self._held.append(payload)
            return []
        if self._held:
            held, self._held = [*self._held, payload], []
            return [self._decode(each) for each in held]
        return [self._decode(payload)]

    def _decode(self, payload: bytes) -> bytes:
        return g711.decode(self._g711, payload) if self.codec == "g711" else payload

    def _guess(self, pace: Guess) -> Guess:
        linear, as_g711 = self._levels
        if pace != "g711":
            return pace
        if not linear:  # silence, while an octet 0 is a loud one in both laws
            return "linear"
        loud = as_g711 > LOUDER * linear + MARGIN * len(self._sizes)
        return "linear" if loud and self._windows > 1 else "g711"

    def _end_window(self) -> None:
        pace = _by_pace(self._sizes, self._times)
        self.codec = self._guess(pace)
        if pace != "g711":
            self._windows = 0
        elif self._levels[0]:  # zeros prove nothing of what follows
            self._windows -= 1
        self.settled = self.codec == "linear" and not self._windows
        self._sizes, self._times, self._levels = [], [], (0.0, 0.0)


def _level(pcm: bytes) -> float:
    """The mean of the absolute values of PCM16."""
    return float(np.abs(np.frombuffer(pcm, SAMPLE).astype(np.int32)).mean()) if pcm else 0.0


def _by_pace(sizes: list[int], times: list[float]) -> Guess:
    """Decide by the bytes per second of frames of `sizes` bytes; `times` are in seconds.

    The middle half of the times decides, so that late frames, or a caller put on hold, make no
    difference.
    """
    seconds_per_byte: list[float] = []
    complete = list(_piles(times))[:-1]  # more of the last one may come
    for (before, _), (start, end) in pairwise(complete):
        size = sum(sizes[start:end])
        seconds_per_byte += [(times[start] - times[before]) / size] * (end - start)
    usual = median(sizes)
    if not seconds_per_byte:
        return "g711" if usual in G711_BYTES else "slin16" if usual == SLIN16_BYTES else "linear"
    middle = sorted(seconds_per_byte)[len(seconds_per_byte) // 4 :][
        : len(seconds_per_byte) // 2 + 1
    ]
    pace = 1 / fmean(middle)
    # While this process stands still, frames pile up: then only the mean of all is right.
    first, last = complete[0][1], complete[-1][1]
    mean = sum(sizes[first:last]) / (times[complete[-1][0]] - times[complete[0][0]])
    if max(pace, mean) < G711_MOST:
        return "g711"
    return "slin16" if pace > LINEAR_MOST and usual >= SLIN16_BYTES else "linear"


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
