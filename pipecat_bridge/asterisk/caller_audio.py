"""The caller's audio: from AudioSocket messages to the bot's stream, which never pauses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pipecat_bridge.asterisk.caller_format import CallerFormat
from pipecat_bridge.asterisk.caller_time import CallerTime
from pipecat_bridge.asterisk.interfaces import Line, LineOptions, PhoneStats
from pipecat_bridge.wire.audiosocket import AUDIO_8K, AUDIO_RATES

Codec = Literal["linear", "ulaw", "alaw", "slin16"]
"""What kind 0x10 carries: "slin16" is 16 kHz under the kind of 8 kHz."""

Sink = Callable[[bytes, int], None]
"""Takes PCM and its samples per second."""


def discard(audio: bytes, rate: int) -> None:
    """Audio that nobody waits for."""


class CallerAudio:
    """Decodes the caller's audio and fills in silence for what the phone does not send.

    `rate` is the line's, in Hz: that of the last audio message. `now` is in seconds.
    """

    __slots__ = ("_format", "_g711", "_now", "_sink", "_sink_rate", "_stats", "_time", "rate")

    def __init__(self, options: LineOptions, stats: PhoneStats, now: Callable[[], float]) -> None:
        self._g711 = options.g711
        self._stats = stats
        self._now = now
        self._format = CallerFormat(options.g711)
        self._time = CallerTime(options.hold_after)
        self._sink: Sink = discard
        self._sink_rate = 8000
        self.rate = 8000

    @property
    def codec(self) -> Codec:
        """What the caller's audio is taken for; "linear" until there is a reason for another."""
        codec = self._format.codec
        if codec == "g711":
            return self._g711
        return codec or "linear"

    def join(self, sink: Sink) -> None:
        """Send the audio to `sink` from now on; the caller's time counts from the first one on."""
        if self._sink is discard:
            self._time.start(self._now())
        self._sink = sink

    def leave(self) -> None:
        """Send it nowhere."""
        self._sink = discard

    def tick(self, now: float) -> None:
        """One tick of the clock: silence toward the bot, if it is due."""
        if missing := self._time.tick(now):
            self._fill(missing)

    def hear(self, kind: int, payload: bytes, line: Line) -> None:
        """Take one audio message."""
        if not payload:
            return
        if kind == AUDIO_8K and self._format.codec != "linear":
            self._hear_doubtful(payload, line)
        elif len(payload) & 1:
            self._odd(len(payload), line)
        else:
            self._stats.frames_in += 1
            rate = self.rate = AUDIO_RATES[kind]
            self._catch_up(len(payload) / (2 * rate), rate)
            self._sink(payload, rate)

    def _hear_doubtful(self, payload: bytes, line: Line) -> None:
        # G.711 has a byte for each sample: it may end on any.
        if len(payload) & 1 and self._format.codec != "g711":
            self._odd(len(payload), line)
            return
        self._stats.frames_in += 1
        self.rate = AUDIO_RATES[AUDIO_8K]
        undecided = self._format.codec is None
        frames = self._format.convert(payload, self._now())
        if undecided and frames:
            self._report_format(line)
        rate = self._format.rate
        self._catch_up(sum(map(len, frames)) / (2 * rate), rate)
        for frame in frames:
            self._sink(frame, rate)

    def _catch_up(self, duration: float, rate: int) -> None:
        """Give the bot what was not heard before the `duration` seconds that were."""
        if missing := self._time.hear(duration, self._now()):
            self._fill(missing)
        self._sink_rate = rate

    def _fill(self, frames: int) -> None:
        """Silence toward the bot, in place of what the caller did not send."""
        self._stats.filled_frames += frames
        for _ in range(frames):
            self._sink(bytes(self._sink_rate // 50 * 2), self._sink_rate)

    def _report_format(self, line: Line) -> None:
        codec = self._format.codec
        if codec == "g711":
            line.phone_warning(
                "codec-guess",
                "frames of 160 bytes each 20 ms under kind 0x10 are the caller's codec, taken for"
                f" {self._g711} (G.722 would be noise): add c(slin) to Dial(AudioSocket/...) in"
                " the dialplan",
            )
        elif codec == "slin16":
            line.phone_warning(
                "codec-guess",
                "frames of 640 bytes each 20 ms under kind 0x10: taken for 16 kHz, which Asterisk"
                " before 20.17 / 22.7 sends so; the bot's audio goes back at 8 kHz",
            )

    def _odd(self, size: int, line: Line) -> None:
        self._stats.odd_frames += 1
        line.phone_warning(
            "odd-frame",
            f"an audio frame of {size} bytes was dropped: expected an even number, two bytes a"
            " sample",
        )
