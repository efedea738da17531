"""Presents a report as text, as JSON and as a picture."""

from __future__ import annotations

from typing import Any

from pipecat_bridge.tools.phone.picture import Phrase, Sketch
from pipecat_bridge.tools.phone.recording import Span
from pipecat_bridge.tools.phone.report import BargeIn, Report

_UNKNOWN = "not in the bridge's record"


def transcript(report: Report) -> list[str]:
    """Who said what and when, with the time to each answer."""
    lines = []
    for number, turn in enumerate(report.turns):
        if turn.said is not None:
            lines.append(f"{turn.said.start:6.1f} s  caller  {report.said[number]}")
            lines += _beside("the bot understood", report.understood[number])
        start = f"{turn.heard.start:6.1f} s" if turn.heard else " " * 8
        after = f"  ({turn.answered_after:.2f} s after)" if turn.answered_after else ""
        cut = " [interrupted]" if turn.interrupted else ""
        heard = report.heard[number] or "(nothing understood)"
        lines.append(f"{start}  bot     {heard}{cut}{after}")
        lines += _beside("the bot's own text", report.told[number])
    return lines


def _beside(what: str, text: str) -> list[str]:
    return [f"{'':18}{what}: {text}"] if text else []


def figures(report: Report) -> list[str]:
    """The measurements, one on each line."""
    waits = _waits(report)
    answered = (
        f"{min(waits):.2f} to {max(waits):.2f} s, mean {sum(waits) / len(waits):.2f} s"
        if waits
        else "no answer"
    )
    pace, stats = report.pace, report.stats
    return [
        f"first answer after      {answered}",
        f"delay caller to bot     {_delay(stats.get('caller_delay_ms'))}",
        f"delay bot to caller     {_delay(stats.get('bot_delay_ms'))}",
        f"heard when interrupted  {_interruption(report)}",
        f"frames                  {pace.messages} received, {pace.missing} missing, "
        f"nothing to play for {1000 * pace.dry:.0f} ms, {1000 * pace.lead:.0f} ms ahead at most",
        f"late by                 {_ms(pace.p50)} p50, {_ms(pace.p99)} p99, "
        f"{_ms(pace.latest)} at most (the phone's own frames: {_ms(report.own_lateness)})",
        f"underruns               {_underruns(stats)}",
        f"outcome                 {report.outcome}",
    ]


def judgement(report: Report) -> list[str]:
    """Every check with its result, one on each line."""
    return [f"{'ok   ' if one.good else 'WRONG'}  {one.name}: {one.found}" for one in report.checks]


def as_json(report: Report, call_id: str) -> dict[str, Any]:
    """All figures, for programs. Times are in seconds of the call, unless the name has a unit."""
    barge_in = report.barge_in
    return {
        "id": call_id,
        "good": report.good,
        "rate": report.timeline.rate,
        "seconds": round(report.timeline.seconds, 3),
        "outcome": report.outcome,
        "turns": [_turn_json(report, number) for number in range(len(report.turns))],
        "barge_in": None
        if barge_in is None
        else {
            "caller_began": round(barge_in.began, 3),
            "signalled": _rounded(barge_in.signalled),
            "bot_stopped": round(barge_in.stopped, 3),
            "heard_after_caller_began": round(barge_in.after_speech, 3),
            "heard_after_signal": _rounded(barge_in.after_signal),
            "messages_after_signal": barge_in.messages_after,
        },
        "pace": {name: round(value, 5) for name, value in report.pace._asdict().items()},
        "phone_lateness": round(report.own_lateness, 5),
        "gaps": [[round(one, 3) for one in gap] for gap in report.timeline.gaps],
        "silences": [[round(one, 3) for one in span] for span in report.silences],
        "bridge": report.stats,
        "checks": [one._asdict() for one in report.checks],
    }


def sketch(report: Report, title: str) -> Sketch:
    """The content of the picture of the call."""
    phrases, waits = [], []
    for turn, said, heard in zip(report.turns, report.said, report.heard, strict=True):
        if turn.said is not None:
            phrases.append(Phrase(True, turn.said, said))
        if turn.heard is not None:
            text = heard.capitalize() or "(not understood)"
            phrases.append(Phrase(False, turn.heard, text + (" ..." if turn.interrupted else "")))
        if turn.said is not None and turn.heard is not None:
            waits.append(Span(turn.said.end, turn.heard.start))
    barge_in = report.barge_in
    line = Span(barge_in.began, barge_in.stopped) if barge_in else None
    text = _marked(barge_in) if barge_in else ""
    return Sketch(
        title, _subtitle(report), report.timeline, phrases, waits, report.silences, line, text
    )


def _marked(barge_in: BargeIn) -> str:
    text = f"interrupted: the bot was heard for {barge_in.after_speech * 1000:.0f} ms more"
    if barge_in.after_signal is not None:
        text += f", {barge_in.after_signal * 1000:.0f} ms after its signal to the bridge"
    return text


def _subtitle(report: Report) -> str:
    parts = [f"{report.timeline.rate / 1000:g} kHz, {report.timeline.seconds:.1f} s"]
    waits = _waits(report)
    if waits:
        parts.append(f"first answer after {min(waits):.1f} to {max(waits):.1f} s")
    adds = [
        f"{delay['mean']:.1f} ms {name}"
        for key, name in (("caller_delay_ms", "to the bot"), ("bot_delay_ms", "to the caller"))
        if (delay := report.stats.get(key))
    ]
    if adds:
        parts.append(f"the bridge adds {' and '.join(adds)}")
    parts.append(f"{report.pace.missing} frames missing")
    if "underruns" in report.stats:
        parts.append(f"{report.stats['underruns']} underruns")
    return "  ·  ".join(parts)


def _turn_json(report: Report, number: int) -> dict[str, Any]:
    turn = report.turns[number]
    return {
        "caller_text": report.said[number],
        "caller_understood": report.understood[number],
        "caller": None if turn.said is None else [round(one, 3) for one in turn.said],
        "bot": None if turn.heard is None else [round(one, 3) for one in turn.heard],
        "bot_recognised": report.heard[number],
        "bot_transcript": report.told[number],
        "answered_after": _rounded(turn.answered_after),
        "interrupted": turn.interrupted,
    }


def _waits(report: Report) -> list[float]:
    return [turn.answered_after for turn in report.turns if turn.answered_after is not None]


def _delay(delay: dict[str, float] | None) -> str:
    return f"{delay['mean']:.1f} ms mean, {delay['max']:.1f} ms at most" if delay else _UNKNOWN


def _interruption(report: Report) -> str:
    barge_in = report.barge_in
    if barge_in is None:
        return "nothing was interrupted"
    after = barge_in.after_signal
    signal = f"the signal {_UNKNOWN}"
    if after is not None:
        signal = f"{_ms(after)} and {barge_in.messages_after} frames after the signal"
    return f"{_ms(barge_in.after_speech)} after the caller's first sound, {signal}"


def _underruns(stats: dict[str, Any]) -> str:
    if "underruns" not in stats:
        return _UNKNOWN
    return f"{stats['underruns']}, {stats.get('underrun_ms', 0)} ms in all"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
