"""Hours of talking calls in memory, on a turned clock: `python -m benchmarks hours`.

Caller and bot speak all the time, through the daemon's real code. Their clocks are up to 200 ppm
faster or slower than the bridge's, and the bot's chunks of 40 ms come with jitter. Memory, objects
and descriptors must stay as they are, and no audio may be lost but what is told.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from random import Random
from typing import Any, Final

from benchmarks import conditions
from benchmarks.frame_path import Path, pipecat
from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.tools.load import protobuf, websocket
from pipecat_bridge.wire.audiosocket import audio_header

FRAME: Final = 0.02
CHUNK: Final = 0.04
JITTER: Final = 0.002
"""Mean of the exponential delay of a chunk, in seconds."""

PPM: Final = (-200, 0, 200)
SEGMENT: Final = 60.0
"""Seconds that one call is turned on before the next one is."""

SAMPLES: Final = 8
Result = dict[str, Any]


class TalkingCall(Path):
    """One call. `phone_ppm`, `bot_ppm`: how much faster these clocks are than the bridge's."""

    def __init__(self, number: int, caller: list[bytes], bot: list[bytes]) -> None:
        super().__init__(pipecat(), False, bot[0])
        self.phone_ppm = PPM[number % 3]
        self.bot_ppm = PPM[number // 3 % 3]
        self._random = Random(number)
        self._caller, self._bot = caller, bot
        self._ticks = self._frames = self._chunks = 0
        self._last_chunk = 0.0
        self._began = 0.0  # when the first frame was played

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        clock, phone, socket = self._clock, self._phone, self._socket
        frame = FRAME * (1 - self.phone_ppm * 1e-6)
        chunk = CHUNK * (1 - self.bot_ppm * 1e-6)
        spoken = self._spoken(chunk)
        for tick in range(self._ticks + 1, self._ticks + round(seconds / FRAME) + 1):
            now = tick * FRAME
            while self._frames * frame <= now:
                clock.rightNow = self._frames * frame
                phone.dataReceived(self._caller[self._frames % len(self._caller)])
                self._frames += 1
            while spoken <= now:
                clock.rightNow = self._last_chunk = spoken
                socket.dataReceived(self._bot[self._chunks % len(self._bot)])
                self._chunks += 1
                spoken = self._spoken(chunk)
            clock.rightNow = now
            phone.line.tick()
            if not self._began and self.playout.stats.frames_played:
                self._began = now
        self._ticks += round(seconds / FRAME)

    def _spoken(self, chunk: float) -> float:
        delayed = self._chunks * chunk + self._random.expovariate(1 / JITTER)
        return max(self._last_chunk, delayed)

    @property
    def lost(self) -> float:
        """Seconds of the bot's audio that are neither played, nor waiting, nor told. Since it began
        to play, it has played all the time but in underruns."""
        stats = self.playout.stats
        told = (stats.shortened_ms - stats.stretched_ms + stats.dropped_ms) / 1000
        time = self._ticks * FRAME + FRAME - self._began if self._began else 0.0
        played = time - stats.underrun_ms / 1000
        waiting = self.playout._queue.seconds
        return self._chunks * CHUNK - played - told - waiting


def measure(hours: float, calls: int, report: Callable[[str], None]) -> Result:
    """Turn `calls` calls for `hours` hours."""
    voice = conditions.speech(1).samples.tobytes()
    wide = make_resampler(8000, 16000).process(voice)
    caller = [audio_header(8000, 320) + voice[at : at + 320] for at in range(0, 320 * 500, 320)]
    bot = [
        websocket.masked(protobuf.audio_frame(wide[at : at + 1280], 16000))
        for at in range(0, 1280 * 250, 1280)
    ]
    talking = [TalkingCall(number, caller, bot) for number in range(calls)]
    rows = [_row(0.0, talking)]
    segments = max(SAMPLES, round(hours * 3600 / SEGMENT))
    seconds = hours * 3600 / segments
    for segment in range(1, segments + 1):
        for call in talking:
            call.turn(seconds)
        if segment * SAMPLES // segments > (segment - 1) * SAMPLES // segments:
            rows.append(_row(segment * seconds / 3600, talking))
            report(f"{rows[-1]['hours']:.2f} hours")
    return {"calls": calls, "hours": hours, "rows": rows}


def _row(hours: float, calls: list[TalkingCall]) -> Result:
    gc.collect()
    stats = [call.playout.stats for call in calls]
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    played = sum(each.frames_played for each in stats)
    return {
        "hours": hours,
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "objects": len(gc.get_objects()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "underruns": sum(each.underruns for each in stats),
        "shortened_s": sum(each.shortened_ms for each in stats) / 1000,
        "stretched_s": sum(each.stretched_ms for each in stats) / 1000,
        "filled": sum(call._phone.line.stats.filled_frames for call in calls),
        "delay_ms": 1000 * sum(each.delays.total for each in stats) / played if played else 0.0,
        "lost_s": max((abs(call.lost) for call in calls), default=0.0),
    }


def table(result: Result) -> str:
    """A row for each eighth of the time, in Markdown."""
    names = {
        "hours": "{:.2f}",
        "rss_mb": "{:.1f}",
        "objects": "{}",
        "descriptors": "{}",
        "underruns": "{}",
        "shortened_s": "{:.1f}",
        "stretched_s": "{:.1f}",
        "filled": "{}",
        "delay_ms": "{:.1f}",
        "lost_s": "{:.3f}",
    }
    lines = [
        f"{result['calls']} calls; sums over all of them, of the lost audio the worst call.",
        "",
        "| hours | memory, MB | objects | descriptors | underruns | left out, s | repeated, s |"
        " frames of silence to bots | mean delay, ms | lost and not told, s |",
        "|---" * 10 + "|",
    ]
    for row in result["rows"]:
        cells = [form.format(row[name]) for name, form in names.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
