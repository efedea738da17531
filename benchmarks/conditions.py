"""What is heard when nothing is ideal, on a turned clock: `python -m benchmarks conditions`.

A bot that never pauses speaks to a playout queue, and a phone to the bridge's caller side, in
messages that come as a pattern says: with jitter, after stalls, too slowly. With `--against COMMIT`
the same is done with another commit. The speech is espeak's, over soft noise; the recogniser is the
one of the demo. All figures of a run are the same each time.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipecat_bridge.asterisk.caller_audio import CallerAudio
from pipecat_bridge.asterisk.line import LineOptions
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.audio.resample import make_resampler
from pipecat_bridge.contracts import PhoneStats
from pipecat_bridge.embedded.espeak import Espeak
from pipecat_bridge.embedded.recogniser import recogniser_for

ROOT = Path(__file__).parents[1]
RATE = 8000
FRAME = 0.02
BACKGROUND = 40.0  # RMS, 58 dB below full scale
SENTENCES = (
    "what are your opening hours",
    "are you open on saturday",
    "where can i find you",
    "could you repeat that please",
    "what time do you close",
    "how do i get there",
    "are you open on tuesday",
    "what is your address please",
    "thank you that is all goodbye",
    "good morning",
)
PAUSE = 0.6
Samples = NDArray[np.int16]
Result = dict[str, Any]


def _patterns() -> Any:
    """The load generator's patterns of today, also if another commit is measured."""
    path = ROOT / "pipecat_bridge" / "tools" / "load" / "patterns.py"
    spec = importlib.util.spec_from_file_location("patterns_of_today", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


patterns = _patterns()
Pattern, Stall = patterns.Pattern, patterns.Stall


class Said(NamedTuple):
    """Sentences, one after the other. `ends`: the sample after each and half of its pause."""

    samples: Samples
    ends: list[int]


class Heard(NamedTuple):
    """`delays`: (seconds, delay in seconds) of each frame. `pieces`: what was heard of each
    sentence. `told`: counters of the bridge."""

    samples: Samples
    delays: list[tuple[float, float]]
    pieces: list[Samples]
    told: Result


def speech(repeats: int) -> Said:
    """All sentences, `repeats` times, over soft noise."""
    espeak, pause = Espeak(), np.zeros(round(PAUSE * RATE), np.int16)
    parts, ends, end = [], [], 0
    once = []
    for sentence in SENTENCES:
        pcm, rate = espeak.synthesize(sentence)
        voice = np.frombuffer(make_resampler(rate, RATE, "soxr").process(pcm), "<i2")
        once.append(np.concatenate((voice, pause)))
    for voice in once * repeats:
        parts.append(voice)
        end += voice.size
        ends.append(end - pause.size // 2)
    samples = np.concatenate(parts)
    noise = np.random.default_rng(1).normal(0, BACKGROUND, samples.size)
    return Said((samples + noise).astype(np.int16), ends)


def delay_of(stats: Any) -> float:
    """Seconds by which all frames together were delayed. Older commits have another name for it."""
    return float(stats.delays.total if hasattr(stats, "delays") else stats.delay_sum)


def to_caller(said: Said, pattern: Any, seed: int = 1, phase: float = 0.007) -> Heard:
    """A bot says it; what the phone hears."""
    playout, random = Playout(), Random(seed)
    stats, size = playout.stats, round(pattern.chunk * RATE)
    times = [phase + at for at in pattern.arrivals(said.samples.size // size, random)]
    heard: list[bytes] = []
    delays: list[tuple[float, float]] = []
    ends: list[int] = []
    waiting = list(said.ends)
    written = tick = 0
    while written < len(times) or not playout.empty:
        now = tick * FRAME
        while written < len(times) and times[written] <= now:
            chunk = said.samples[written * size : (written + 1) * size]
            playout.write(chunk.tobytes(), RATE, 1, times[written])
            written += 1
            if waiting and written * size >= waiting[0]:
                waiting.pop(0)
                playout.mark(lambda: ends.append(len(heard) * 160))
        before = delay_of(stats), stats.frames_played
        heard.append(playout.read(now) or bytes(320))
        if stats.frames_played > before[1]:
            delays.append((now, delay_of(stats) - before[0]))
        tick += 1
    samples = np.frombuffer(b"".join(heard), "<i2")
    pieces = [samples[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    names = ("underruns", "underrun_ms", "concealed_ms", "shortened_ms", "stretched_ms")
    told = {name: round(getattr(stats, name, 0)) for name in names}
    return Heard(samples, delays, pieces, told)


def to_bot(said: Said, pattern: Any, seed: int = 1, phase: float = 0.007) -> Heard:
    """A caller says it; what the bot hears."""
    now, sound, frames = 0.0, [], 0
    ends: list[int] = []
    waiting = list(said.ends)
    stats = PhoneStats()
    caller = CallerAudio(LineOptions().hold_after, stats, lambda: now)
    caller.join(lambda pcm, rate: sound.append(pcm))
    size = round(pattern.chunk * RATE)
    times = [phase + at for at in pattern.arrivals(said.samples.size // size, Random(seed))]
    for tick in range(round(times[-1] / FRAME) + 2):
        while frames < len(times) and times[frames] <= tick * FRAME:
            now = times[frames]
            caller.hear(said.samples[frames * size : (frames + 1) * size].tobytes(), RATE)
            frames += 1
            if waiting and frames * size >= waiting[0]:
                waiting.pop(0)
                ends.append(sum(map(len, sound)) // 2)
        now = tick * FRAME
        caller.tick(now)
    samples = np.frombuffer(b"".join(sound), "<i2")
    pieces = [samples[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return Heard(samples, [], pieces, {"caller_frames_filled": stats.filled_frames})


def holes(samples: Samples) -> tuple[int, float]:
    """How often 5 ms or more of digital silence were heard within the sound, and for how long."""
    gaps = np.diff(np.flatnonzero(samples))
    gaps = gaps[gaps > 40]
    return int(gaps.size), float(gaps.sum() / RATE)


def mean_delay(heard: Heard, since: float, until: float) -> float:
    """Milliseconds."""
    return 1000 * float(np.mean([late for at, late in heard.delays if since <= at < until]))


def settled(heard: Heard, since: float, limit: float) -> float:
    """Seconds after `since` until the mean delay of 0.4 s stays below `limit` milliseconds.
    Infinite if it does not before the end."""
    late = [
        at for at, _ in heard.delays if at > since and mean_delay(heard, at - 0.2, at + 0.2) > limit
    ]
    if not late:
        return 0.0
    return float("inf") if late[-1] > heard.delays[-1][0] - 0.5 else late[-1] - since


def words(heard: Heard, clean: Sequence[str]) -> tuple[int, int]:
    """How many words of what is understood on a clean line are understood here, and of how many."""
    grammar = ROOT / "pipecat_bridge" / "embedded" / "receptionist.gram"
    recogniser = recogniser_for(grammar.read_text())
    right = total = 0
    for piece, wanted in zip(heard.pieces, clean, strict=False):
        got = recogniser.hear(piece.tobytes(), RATE).sentence.split()
        for word in wanted.split():
            total += 1
            if word in got:
                got.remove(word)
                right += 1
    return right, total


def understood(heard: Heard) -> list[str]:
    """What the recogniser makes of each sentence."""
    grammar = ROOT / "pipecat_bridge" / "embedded" / "receptionist.gram"
    recogniser = recogniser_for(grammar.read_text())
    return [recogniser.hear(piece.tobytes(), RATE).sentence for piece in heard.pieces]


def losses(every: float, length: float, until: float, seed: int) -> tuple[Any, ...]:
    """What the loss of packets makes of TCP: at random, once in `every` seconds, nothing comes
    until the packet is sent again after `length` seconds."""
    random, at, stalls = Random(seed), 3.0, []
    while at < until:
        at += random.expovariate(1 / every)
        stalls.append(Stall(at, length))
        at += length
    return tuple(stalls)


MINUTE = 60.0
BOT: dict[str, Any] = {
    "clean": Pattern(),
    "jitter of 3 ms": Pattern(jitter=0.003),
    "jitter of 30 ms": Pattern(jitter=0.03),
    "1 % of the packets lost": Pattern(jitter=0.003, stalls=losses(4.0, 0.22, MINUTE, 1)),
    "3 % of the packets lost": Pattern(jitter=0.003, stalls=losses(1.3, 0.22, MINUTE, 2)),
    "a stall of 0.3 s": Pattern(jitter=0.003, stalls=(Stall(10.0, 0.3),)),
    "a stall of 0.8 s": Pattern(stalls=(Stall(10.0, 0.8),)),
    "a stall of 1 s": Pattern(jitter=0.003, stalls=(Stall(10.0, 1.0),)),
    "a cut of 3 s": Pattern(stalls=(Stall(10.0, 3.0),)),
    "only 80 % of the bandwidth": Pattern(speed=0.8),
}
THREE_STALLS = Pattern(jitter=0.003, stalls=(Stall(8.0, 0.3), Stall(18.0, 0.5), Stall(30.0, 1.0)))
PHONE: dict[str, Any] = {
    "clean": Pattern(chunk=FRAME),
    "jitter of 30 ms": Pattern(chunk=FRAME, jitter=0.03),
    "a stall of 0.4 s": Pattern(chunk=FRAME, stalls=(Stall(10.0, 0.4),)),
    "bursts of 0.3 s": Pattern(
        chunk=FRAME, stalls=tuple(Stall(n * 0.3, 0.2999) for n in range(400))
    ),
    "3 % of the packets lost": Pattern(chunk=FRAME, stalls=losses(1.3, 0.22, MINUTE, 2)),
    "a cut of 3 s": Pattern(chunk=FRAME, stalls=(Stall(10.0, 3.0),)),
}


def three_stalls(said: Said) -> list[tuple[float, float]]:
    """(second, delay in ms) of each frame, of a bot that never pauses and stalls three times."""
    heard = to_caller(said, THREE_STALLS)
    return [(round(at, 2), round(1000 * late, 1)) for at, late in heard.delays]


def word_with_a_gap(said: Said) -> list[int]:
    """0.16 s of what is heard around the place at which a chunk comes 60 ms too late."""
    blocks = said.samples[4 * RATE : 16 * RATE].reshape(-1, RATE // 25).astype(float)
    loud = np.convolve(np.sqrt((blocks**2).mean(axis=1)), np.ones(4), "valid")
    at = 4 + (int(np.argmax(loud)) + 1) * 0.04
    heard = to_caller(said, Pattern(stalls=(Stall(at, 0.07),)))
    played = [now for now, _ in heard.delays if now > at - 0.1]
    last = next(now for now, after in pairwise(played) if after - now > 1.5 * FRAME)
    begin = round((last - 0.04) * RATE)
    return [int(sample) for sample in heard.samples[begin : begin + round(0.16 * RATE)]]


def measure(repeats: int = 3) -> Result:
    """All conditions on both sides; each sentence is said `repeats` times."""
    said = speech(repeats)
    result: Result = {"bot": {}, "phone": {}}
    sides: tuple[tuple[str, dict[str, Any], Callable[..., Heard]], ...] = (
        ("bot", BOT, to_caller),
        ("phone", PHONE, to_bot),
    )
    for side, conditions, carry in sides:
        clean: list[str] = []
        for name, pattern in conditions.items():
            heard = carry(said, pattern)
            clean = clean or understood(heard)
            row: Result = {
                "holes": holes(heard.samples),
                "words": words(heard, clean),
                **heard.told,
            }
            if side == "bot":
                after = sum(pattern.stalls[0]) if len(pattern.stalls) == 1 else 5.0
                row["delay_ms"] = mean_delay(heard, 5.0, 60.0)
                row["delay_end_ms"] = mean_delay(heard, 50.0, 60.0)
                row["settled_s"] = settled(heard, after, 60.0)
                row["settled_100_s"] = settled(heard, after, 100.0)
            result[side][name] = row
    result["jitter_mean_ms"] = [
        mean_delay(to_caller(said, Pattern(jitter=0.003), seed, seed * 0.0025), 5.0, 60.0)
        for seed in range(8)
    ]
    result["three_stalls"] = three_stalls(said)
    result["gap"] = word_with_a_gap(said)
    return result


def draw(results: dict[str, Result], folder: Path) -> list[Path]:
    """Two pictures: the delay over time with three stalls, and a word across a gap."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(9, 3.6))
    for name, result in results.items():
        axes.plot(*zip(*result["three_stalls"], strict=True), label=name, linewidth=1)
    for begin, length in THREE_STALLS.stalls:
        axes.axvspan(begin, begin + length, color="tab:red", alpha=0.3)
    axes.set(
        xlabel="s", ylabel="ms", title="Delay of a bot that never pauses and stalls three times"
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    paths = [folder / "conditions-delay.png", folder / "conditions-gap.png"]
    figure.tight_layout()
    figure.savefig(paths[0], dpi=110)
    figure, rows = plt.subplots(
        len(results), 1, figsize=(9, 2.2 * len(results)), sharex=True, squeeze=False
    )
    for row, (name, result) in zip(rows[:, 0], results.items(), strict=True):
        time = np.arange(len(result["gap"])) / RATE * 1000
        row.plot(time, result["gap"], linewidth=0.8)
        row.set(ylabel=name, yticks=[])
        row.grid(visible=True, alpha=0.3)
    rows[-1, 0].set(xlabel="ms")
    rows[0, 0].set(title="A word in which a chunk comes 60 ms too late, as the caller hears it")
    figure.tight_layout()
    figure.savefig(paths[1], dpi=110)
    plt.close("all")
    return paths


def table(results: dict[str, Result]) -> str:
    """Tables in Markdown; each figure of all commits, today's first."""
    return "\n".join([*_bot_table(results), "", *_phone_table(results)])


def _bot_table(results: dict[str, Result]) -> Iterator[str]:
    names = " / ".join(results)
    yield f"Bot to caller, {names}:"
    yield ""
    yield (
        "| condition | mean delay, ms | in the last 10 s | back below 60 ms after, s |"
        " underruns told | holes | of them, s | words understood |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for condition in BOT:
        rows = [result["bot"][condition] for result in results.values()]
        yield _line(
            condition,
            rows,
            lambda row: f"{row['delay_ms']:.0f}",
            lambda row: f"{row['delay_end_ms']:.0f}",
            lambda row: f"{row['settled_s']:.1f}" if row["settled_s"] < 1e9 else "never",
            lambda row: f"{row['underruns']}",
            lambda row: f"{row['holes'][0]}",
            lambda row: f"{row['holes'][1]:.2f}",
            lambda row: f"{row['words'][0]} of {row['words'][1]}",
        )
    means = [result["jitter_mean_ms"] for result in results.values()]
    spans = " / ".join(f"{min(each):.0f} to {max(each):.0f}" for each in means)
    yield ""
    yield f"Mean delay with a jitter of 3 ms, in 8 calls of different phases: {spans} ms"


def _phone_table(results: dict[str, Result]) -> Iterator[str]:
    yield f"Caller to bot, {' / '.join(results)}:"
    yield ""
    yield "| condition | frames of silence put in | words understood |"
    yield "|---|---|---|"
    for condition in PHONE:
        rows = [result["phone"][condition] for result in results.values()]
        yield _line(
            condition,
            rows,
            lambda row: f"{row['caller_frames_filled']}",
            lambda row: f"{row['words'][0]} of {row['words'][1]}",
        )


def _line(name: str, rows: Sequence[Result], *cells: Callable[[Result], str]) -> str:
    return f"| {name} | " + " | ".join(" / ".join(map(cell, rows)) for cell in cells) + " |"


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
