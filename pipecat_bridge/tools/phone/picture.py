"""Draws a picture of a call: both voices on one time line, the turns, and the measurements."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from pipecat_bridge.tools.phone.microphone import Samples
from pipecat_bridge.tools.phone.recording import Span, Timeline

_INK: Final = "#1f2933"
_QUIET: Final = "#7b8794"
_CALLER: Final = "#1d6fb8"
_BOT: Final = "#c2571a"
_STOP: Final = "#b3123c"
_SILENCE: Final = "#eef1f4"
_COLUMNS: Final = 1600  # steps of the envelope, more than the pixels of the picture


class Phrase(NamedTuple):
    """Something that was said: by the caller or the bot, when, and the words."""

    caller: bool
    span: Span
    text: str


class Sketch(NamedTuple):
    """Everything that the picture shows.

    `waits`: from the caller's last sound to the first sound of the answer. `barge_in`: from the
    caller's first sound to the bot's last. `barge_in_text`: a line about the barge-in.
    """

    title: str
    subtitle: str
    timeline: Timeline
    phrases: list[Phrase]
    waits: list[Span]
    silences: list[Span]
    barge_in: Span | None
    barge_in_text: str = ""


def draw(sketch: Sketch, path: Path) -> None:
    """Write the picture as a PNG file."""
    import matplotlib  # heavy, and needed by nothing else

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = max(1, (len(sketch.phrases) + 1) // 2)
    height = 6.0 + 0.42 * rows
    figure = pyplot.figure(figsize=(15, height), dpi=110, facecolor="white")
    grid = figure.add_gridspec(
        2,
        1,
        height_ratios=[4.4, 0.42 * rows + 0.3],
        left=0.065,
        right=0.985,
        top=0.87,
        bottom=0.02,
        hspace=0.2,
    )
    figure.text(0.065, 0.955, sketch.title, size=17, weight="bold", color=_INK, va="center")
    figure.text(0.065, 0.912, sketch.subtitle, size=11, color=_QUIET, va="center")
    _tracks(figure.add_subplot(grid[0]), sketch)
    _words(figure.add_subplot(grid[1]), sketch.phrases)
    figure.savefig(path)
    pyplot.close(figure)


def _tracks(axes: Any, sketch: Sketch) -> None:
    timeline = sketch.timeline
    for silence in sketch.silences:
        axes.axvspan(*silence, color=_SILENCE, zorder=0, linewidth=0)
        _centred(axes, silence, 0.0, f"silence\n{silence.seconds:.1f} s", _QUIET)
    for level, samples, colour, name in (
        (1.0, timeline.caller, _CALLER, "caller"),
        (-1.0, timeline.bot, _BOT, "bot"),
    ):
        low, high = envelope(samples)
        times = np.linspace(0.0, timeline.seconds, low.size)
        axes.axhline(level, color=colour, linewidth=0.5, alpha=0.5)
        axes.fill_between(times, level + low, level + high, color=colour, linewidth=0.3)
        axes.text(
            -0.012,
            level,
            name,
            color=colour,
            size=13,
            weight="bold",
            ha="right",
            va="center",
            transform=axes.get_yaxis_transform(),
        )
    _numbers(axes, sketch.phrases)
    for wait in sketch.waits:
        _wait(axes, wait)
    if sketch.barge_in is not None:
        _barge_in(axes, sketch.barge_in, sketch.barge_in_text)
    axes.set_xlim(0, timeline.seconds)
    axes.set_ylim(-2.35, 2.62)
    axes.set_yticks([])
    axes.set_xlabel("seconds from the start of the call", color=_QUIET, size=10)
    axes.tick_params(colors=_QUIET)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_QUIET)


def envelope(samples: Samples) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The lowest and the highest sample of each of about 1600 steps, scaled to a peak of 0.85."""
    step = max(1, -(-samples.size // _COLUMNS))
    padded = np.concatenate((samples, np.zeros(-samples.size % step, dtype=samples.dtype)))
    table = padded.reshape(-1, step).astype(np.float64)
    scale = 0.85 / max(1.0, float(np.abs(table).max(initial=0.0)))
    return table.min(axis=1) * scale, table.max(axis=1) * scale


def _numbers(axes: Any, phrases: list[Phrase]) -> None:
    """Draw a numbered bar beside each phrase."""
    for number, phrase in enumerate(phrases, 1):
        colour = _CALLER if phrase.caller else _BOT
        at = 1.98 if phrase.caller else -1.98
        axes.plot([*phrase.span], [at, at], color=colour, linewidth=2.5, solid_capstyle="butt")
        axes.text(
            sum(phrase.span) / 2,
            at + (0.17 if phrase.caller else -0.19),
            str(number),
            color=colour,
            size=11,
            weight="bold",
            ha="center",
            va="center",
        )


def _wait(axes: Any, wait: Span) -> None:
    """Draw a bracket from the caller's last sound to the first sound of the answer."""
    axes.plot(
        [wait.start, wait.start, wait.end, wait.end],
        [0.22, 0.08, 0.08, -0.12],
        color=_INK,
        linewidth=1.1,
    )
    axes.text(
        wait.end + 0.12,
        0.0,
        f"{wait.seconds:.2f} s",
        color=_INK,
        size=9.5,
        va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8},
    )


def _barge_in(axes: Any, barge_in: Span, text: str) -> None:
    axes.axvspan(*barge_in, color=_STOP, alpha=0.12, zorder=0, linewidth=0)
    axes.axvline(barge_in.start, color=_STOP, linewidth=1.3, linestyle=(0, (4, 2)))
    axes.annotate(
        text,
        (barge_in.end, 2.48),
        xytext=(7, 0),
        textcoords="offset points",
        color=_STOP,
        size=10,
        weight="bold",
        va="center",
    )


def _centred(axes: Any, span: Span, level: float, text: str, colour: str) -> None:
    axes.text(sum(span) / 2, level, text, color=colour, size=9, ha="center", va="center")


def _words(axes: Any, phrases: list[Phrase]) -> None:
    """Write what was said, in two columns, with the numbers of the bars."""
    axes.axis("off")
    axes.set_xlim(0, 2)
    rows = max(1, (len(phrases) + 1) // 2)
    axes.set_ylim(rows, 0)
    for number, phrase in enumerate(phrases, 1):
        column, row = divmod(number - 1, rows)
        colour = _CALLER if phrase.caller else _BOT
        axes.text(column, row + 0.5, f"{number}", color=colour, size=11, weight="bold", va="center")
        text = "\n".join(textwrap.wrap(phrase.text, 88, max_lines=2, placeholder=" ..."))
        axes.text(column + 0.038, row + 0.5, text, color=_INK, size=10.5, va="center")
