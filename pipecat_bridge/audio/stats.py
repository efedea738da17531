"""Counters of the bot's audio on its way to the caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipecat_bridge.audio.delays import Delays


@dataclass(slots=True)
class PlayoutStats:
    """Counters of one call. `_ms` means milliseconds.

    `delays`: of each frame that was played, from its arrival until it is sent to the phone.

    `underrun_ms`: how long audio was missing within an utterance; `concealed_ms` of it were hidden
    by the sound before. `shortened_ms` and `stretched_ms` of audio were left out and repeated to
    bring the delay back. `scaled_ms`: the time in which that was done. `dropped_ms`: audio that
    came while `max_queue` seconds waited.
    """

    delays: Delays = field(default_factory=Delays)
    underruns: int = 0
    underrun_ms: float = 0.0
    concealed_ms: float = 0.0
    shortened_ms: float = 0.0
    stretched_ms: float = 0.0
    scaled_ms: int = 0
    flushes: int = 0
    flushed_ms: int = 0
    dropped_ms: float = 0.0
    depth_max_ms: int = 0
    prebuffer_ms: float = 0.0
    filter_ms: float = 0.0

    @property
    def frames_played(self) -> int:
        """Frames that were sent to the phone."""
        return self.delays.count
