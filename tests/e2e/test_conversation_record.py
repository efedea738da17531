"""What is kept of a spoken call agrees: transcript, record, recording and events, each with the
others, and with the picture that the demo draws of the same call."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple
from uuid import uuid4

import numpy as np
import pytest
from msgspec.structs import replace
from pytest_twisted import ensureDeferred

from pipecat_bridge.tools.phone import present, scenario
from pipecat_bridge.tools.phone.call import dial
from pipecat_bridge.tools.phone.demo import spoken
from pipecat_bridge.tools.phone.ears import recognise
from pipecat_bridge.tools.phone.judge import words_of
from pipecat_bridge.tools.phone.picture import Sketch
from pipecat_bridge.tools.phone.report import Material, Report, report_on
from pipecat_bridge.tools.phone.scenario import Scenario
from pipecat_bridge.tools.phone.talk import Talk
from tests.e2e.harness import line, reactor
from tests.e2e.test_recordings import recorded, sound
from tests.e2e.test_store import in_store
from tests.records import checked

pytestmark = [pytest.mark.tools, pytest.mark.pipecat]

RATE: Final = 8000

PREBUFFER: Final = 0.2
"""Seconds of the bot's voice that wait, so that a barge-in always drops some. By default they are
30 ms, and a bot that sends in real time may just have nothing there."""

NOT_SAID: Final = "Could you repeat that?"
"""Left out of the demo's call, which is long enough without it."""

# What docs and docstrings say of the figures in `talk`. The background of this call is far too
# quiet to raise the limit of what is loud.

FRAME: Final = 0.02
LOUD: Final = 150.0
"""Mean absolute sample of a frame of speech, of 16 bits."""
BEGIN: Final = 3
"""Loud frames in a row that begin an utterance, with the first of them."""
PAUSE: Final = 20
"""Frames in a row that are not loud and end it, with the last loud one."""

EXACT: Final = 0.02
"""Seconds by which a figure of the record may differ from the recording."""

AT_ONCE: Final = 0.25
"""Seconds between two things that the daemon does in the same turn of its loop: generous, because
another process may run in between."""

WHOLE: Final = 5 * FRAME
"""Seconds by which the recording may be longer or shorter than the call. Three frames may be late
at the end, and the caller may be two frames ahead."""

EARLY: Final = 0.6
"""Seconds from the message of a bot that it speaks to its first sound. Its audio comes with it, may
wait for 0.4 s (`[bot_audio] max_prebuffer`), and begins with some silence."""

TOLD: Final = 0.1
"""Seconds by which a message of the bot may come later than the audio that was sent after it."""

LET_GO: Final = 0.5
"""Seconds from the bot's last sound to its message that it has stopped. Silence ends its voice, and
then Pipecat waits 0.35 s for more of it."""

STALE: Final = 3 * FRAME
"""Seconds of sound after a barge-in: a frame that is just sent, one that fades, and one because the
first audio of a bot moves the ticks by up to a frame."""

SEEN: Final = 0.08
"""Seconds by which the demo may see a sound elsewhere. It measures at its own phone, in windows of
10 ms and with another limit of what is loud: a frame at each end. The recording's grid begins up to
a frame later than the phone, and the caller may be two frames behind on it."""

MADE_GOOD: Final = 5 * FRAME
"""Seconds by which the daemon's frames may be late without a hole: what is later is skipped. In the
recording they have their places all the same."""


class Utterance(NamedTuple):
    """Speech of one side. `first` and `last`: its first and last loud frame. `loud`: how many."""

    first: int
    last: int
    loud: int


class Part(NamedTuple):
    """All that one side says before the other one begins: `first` and `last` frame."""

    speaker: str
    first: int
    last: int


class Heard(NamedTuple):
    """Both sides of a recording."""

    caller: list[Utterance]
    bot: list[Utterance]

    @property
    def parts(self) -> list[Part]:
        """The utterances in order of their beginnings. Those of a side that follow each other are
        one part."""
        said = [Part("caller", *one[:2]) for one in self.caller]
        said += [Part("bot", *one[:2]) for one in self.bot]
        parts: list[Part] = []
        for one in sorted(said, key=lambda part: part.first):
            if parts and parts[-1].speaker == one.speaker:
                parts[-1] = parts[-1]._replace(last=one.last)
            else:
                parts.append(one)
        return parts

    @property
    def answers(self) -> list[float]:
        """Seconds from the caller's last sound to the bot's first, of each answer."""
        waits, before = [], -1
        for answer in self.bot:
            ended = [one.last for one in self.caller if before < one.last < answer.first]
            waits += [(answer.first - ended[-1] - 1) * FRAME] if ended else []
            before = answer.first
        return waits

    @property
    def longest_silence(self) -> float:
        """Seconds between two sounds while nobody spoke."""
        both = sorted((*self.caller, *self.bot))
        ends = np.maximum.accumulate([one.last for one in both])
        gaps = [one.first - end - 1 for one, end in zip(both[1:], ends[:-1], strict=True)]
        return max(gaps) * FRAME


def utterances(samples: np.ndarray[Any, Any], rate: int) -> list[Utterance]:
    """The utterances of one side."""
    size = round(rate * FRAME)
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(float)
    loud = np.flatnonzero(np.abs(frames).mean(axis=1) >= LOUD)
    return [
        Utterance(int(part[begin]), int(part[-1]), len(part) - begin)
        for part in np.split(loud, np.flatnonzero(np.diff(loud) > PAUSE) + 1)
        if (begin := _begin(part)) is not None
    ]


def _begin(loud: np.ndarray[Any, Any]) -> int | None:
    """Where the first frames in a row are that begin an utterance."""
    for at in range(len(loud) - BEGIN + 1):
        if loud[at + BEGIN - 1] - loud[at] == BEGIN - 1:
            return at
    return None


def percentile(values: list[float], part: float) -> float:
    """The value that so many of a hundred do not exceed."""
    return float(np.percentile(values, part, method="inverted_cdf"))


def test_the_measure_of_this_test() -> None:
    def side(text: str) -> list[Utterance]:
        frames = [np.full(160, 2000 if each == "#" else -100) for each in text]
        return utterances(np.concatenate(frames), RATE)

    pause = "." * (PAUSE - 1)
    assert side("..##.#" + "###" + pause + "#." + "." * 30) == [Utterance(5, 28, 5)]
    assert side("###" + pause + ".###.." + pause) == [Utterance(0, 2, 3), Utterance(23, 25, 3)]
    assert side("..##" * 9) == []
    long = "." * 50
    caller = side("." * 10 + "#" * 20 + long + "." * 20 + "#" * 40 + long)
    bot = side("#" * 5 + "." * 40 + "#" * 75 + "." * 30 + "#" * 20 + long)
    heard = Heard(caller, bot)
    assert heard.parts == [
        Part("bot", 0, 4),
        Part("caller", 10, 29),
        Part("bot", 45, 119),
        Part("caller", 100, 139),
        Part("bot", 150, 169),
    ]
    assert heard.answers == [15 * FRAME, 10 * FRAME]
    assert heard.longest_silence == 15 * FRAME


class Kept(NamedTuple):
    """All that is known of a call after its end. `turns`: of the API. `events`: of the file.
    `sides`: the recording, caller and bot. `seen`: what the demo has of it."""

    record: dict[str, Any]
    turns: list[dict[str, Any]]
    events: list[dict[str, Any]]
    sides: np.ndarray[Any, Any]
    rate: int
    seen: Material

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind."""
        return [one for one in self.events if one["kind"] == kind]

    @property
    def seconds(self) -> float:
        """The length of the recording."""
        return len(self.sides) / self.rate

    @property
    def late(self) -> float:
        """Seconds by which what is recorded may have been heard later than it is recorded."""
        return MADE_GOOD if self.record["quality"]["phone_frames_late"] else 0.0

    def at(self, moment: float) -> float:
        """Seconds of the recording, from seconds since the epoch: it begins with the call."""
        return float(moment - self.record["answered_at"])


async def call(folder: Path, played: Scenario) -> Kept:
    """Make the demo's call through a daemon that keeps all of it in `folder`."""
    voices = spoken(played, RATE)
    told = folder / "events.jsonl"
    settings = (f"bot_audio.prebuffer={PREBUFFER}", f"store.events_file={told}")
    async with line("runner.mode=embedded", *recorded(folder, "always", *settings)) as it:
        call_id = uuid4()
        path = f"/v1/calls/{call_id}"
        talk = Talk(played, voices, RATE, call_id, reactor, lambda text: None)
        port = it.bridge.phones.listener.port.getHost().port
        ending = await dial(reactor, "127.0.0.1", port, talk.phone)
        started = time.time() - talk.phone.now
        phone: Any = SimpleNamespace(call_id=call_id)
        sides, rate = await sound(it, phone)
        await in_store(it)
        _, record = await it.api("GET", path)
        _, transcript = await it.api("GET", f"{path}/transcript")
        _, shown = await it.api("GET", f"{path}/events")
    checked(record)
    events = [json.loads(text) for text in told.read_text("utf-8").splitlines()]
    parts = (talk.recording, talk.microphone.utterances, ending, talk.problem)
    seen = Material(*parts, started, record, shown["events"])
    return Kept(record, transcript["turns"], events, sides, rate, seen)


@ensureDeferred
async def test_all_that_is_kept_of_a_conversation_agrees(tmp_path: Path) -> None:
    whole = scenario.load()
    played = replace(whole, say=[one for one in whole.say if one.text != NOT_SAID])
    kept = await call(tmp_path, played)
    assert kept.seen.problem == ""
    assert kept.record["outcome"] == "completed"
    heard = Heard(*(utterances(kept.sides[:, side], kept.rate) for side in (0, 1)))
    _check_events(kept)
    _check_turns(kept, played)
    _check_figures(kept, heard)
    _check_times(kept, heard)
    report = report_on(kept.seen, played, recognise)
    sketch = present.sketch(report, played.title)
    _check_picture(kept, heard, sketch)
    _check_words(kept, report, sketch)


def _check_events(kept: Kept) -> None:
    """The events are those of the record, in the file as in the API."""
    record = kept.record
    [created], [answered], [ready], [ended], [recording] = (
        kept.told(kind)
        for kind in ("call.created", "call.answered", "call.ready", "call.ended", "recording.ready")
    )
    assert kept.events[0] == created
    assert kept.events[-2:] == [ended, recording]
    assert kept.seen.events == kept.events[:-2]
    for event, member in (
        (created, "created_at"),
        (answered, "answered_at"),
        (ready, "ready_at"),
        (ended, "ended_at"),
    ):
        assert 0 <= event["time"] - record[member] <= AT_ONCE, member
    began = record["created_at"]
    assert ready["data"]["seconds"] == round(record["ready_at"] - began, 3)
    assert record["duration"] == pytest.approx(record["ended_at"] - began, abs=AT_ONCE)
    assert record["bots"][0]["ready_by"] == ready["data"]["by"]
    last, part = ended["data"]["record"], record["recording"]
    assert {**last, "recording": part} == record
    assert last["recording"]["seconds"] == part["seconds"] == round(kept.seconds, 2)
    assert {**recording["data"], "state": "ready"} == part
    assert kept.seconds == pytest.approx(record["duration"], abs=WHOLE)


def _check_turns(kept: Kept, played: Scenario) -> None:
    """The transcript has the turns of the events, each once, and one was interrupted."""
    turns, record = kept.turns, kept.record
    assert [one["data"] for one in kept.told("turn")] == turns
    assert record["transcript"] == {"turns": len(turns)}
    assert record["talk"]["turns"] == len(turns)
    sides = ["bot", *(side for _ in played.say for side in ("caller", "bot"))]
    assert [one["speaker"] for one in turns] == sides
    [cut] = [number for number, one in enumerate(turns) if one.get("interrupted")]
    assert sides[cut] == "bot"
    assert len(kept.told("interrupted")) == 1
    assert record["talk"]["interruptions"] == record["quality"]["interruptions"] == 1
    flushed = record["quality"]["flushed_ms"] / 1000
    assert flushed > FRAME
    for number, one in enumerate(turns):
        if one["speaker"] == "bot":
            lost = flushed if number == cut else 0.0
            assert one["audio"] - one["played"] == pytest.approx(lost, abs=0.003), one
    answers = played.expected
    for number, one in enumerate(turns[::2]):  # the bot's
        sentences = answers[number].sentences[: 1 if 2 * number == cut else None]
        assert words_of(one["text"]) == words_of(" ".join(sentences))


def _check_figures(kept: Kept, heard: Heard) -> None:
    """The record has the figures that the recording has."""
    talk = kept.record["talk"]
    assert talk["caller_utterances"] == len(heard.caller)
    assert talk["bot_utterances"] == len(heard.bot)
    assert talk["answers"]["count"] == len(heard.answers)
    measured = {
        "first_answer": heard.bot[0].first * FRAME,
        "caller_talk": sum(one.loud for one in heard.caller) * FRAME,
        "bot_talk": sum(one.loud for one in heard.bot) * FRAME,
        "longest_silence": heard.longest_silence,
        "p50": percentile(heard.answers, 50),
        "p95": percentile(heard.answers, 95),
        "max": max(heard.answers),
    }
    told = {name: {**talk, **talk["answers"]}[name] for name in measured}
    assert told == pytest.approx(measured, abs=EXACT + 1e-6)


def _pairs(kept: Kept, heard: Heard) -> Iterator[tuple[dict[str, Any], Part, float]]:
    """Each turn, where its sound is, and when the next sound begins, in seconds."""
    parts = heard.parts
    assert [one.speaker for one in parts] == [one["speaker"] for one in kept.turns]
    following = [*(one.first * FRAME for one in parts[1:]), kept.seconds]
    yield from zip(kept.turns, parts, following, strict=True)


def _check_times(kept: Kept, heard: Heard) -> None:
    """Turns are where the sound is. What the bot tells late is late in the transcript: that the
    caller speaks is told while he does, and that he has stopped before the bot answers."""
    told, let_go = TOLD + kept.late, LET_GO + kept.late
    [barge_in] = (kept.at(one["time"]) for one in kept.told("interrupted"))
    for turn, part, following in _pairs(kept, heard):
        start, end = kept.at(turn["start"]), kept.at(turn["end"])
        first, last = part.first * FRAME, (part.last + 1) * FRAME
        if turn["speaker"] == "caller":
            assert first <= start <= last, turn
            assert last <= end <= following + told, turn
            continue
        assert first - EARLY <= start <= first + told, turn
        if turn.get("interrupted"):
            assert 0 <= barge_in - end <= AT_ONCE
            assert following <= end, "the caller had not begun"
            assert last <= end + STALE, "it was heard for longer"
        else:
            assert last - STALE <= end <= last + let_go, turn


def _check_picture(kept: Kept, heard: Heard, sketch: Sketch) -> None:
    """The picture, drawn from what the phone heard, shows the call that was recorded."""
    talk, off = kept.record["talk"], SEEN + kept.late
    shown = [("caller" if one.caller else "bot") for one in sketch.phrases]
    assert shown == [one["speaker"] for one in kept.turns]
    for phrase, (_, part, _) in zip(sketch.phrases, _pairs(kept, heard), strict=True):
        where = part.first * FRAME, (part.last + 1) * FRAME
        assert tuple(phrase.span) == pytest.approx(where, abs=off), phrase
    waits = [one.seconds for one in sketch.waits]
    assert waits == pytest.approx(heard.answers, abs=off)
    answers = talk["answers"]
    assert len(waits) == answers["count"]
    for name, part in (("p50", 50), ("p95", 95), ("max", 100)):
        assert percentile(waits, part) == pytest.approx(answers[name], abs=off)
    cut = [one.text.endswith(" ...") for one in sketch.phrases]
    assert cut == [one.get("interrupted", False) for one in kept.turns]
    assert cut.count(True) == talk["interruptions"]
    number = cut.index(True)
    assert sketch.barge_in is not None
    assert sketch.barge_in.start == sketch.phrases[number + 1].span.start
    assert sketch.barge_in.end == pytest.approx(sketch.phrases[number].span.end, abs=FRAME)
    for silence in sketch.silences:
        if silence.start > 0:
            assert silence.seconds <= talk["longest_silence"] + off
    assert sketch.timeline.seconds == pytest.approx(kept.seconds, abs=WHOLE)


def _check_words(kept: Kept, report: Report, sketch: Sketch) -> None:
    """What a recogniser hears is what the transcript has, and each turn is in its place."""
    for speaker, texts in (("bot", report.told), ("caller", report.understood[1:])):
        assert texts == [one["text"] for one in kept.turns if one["speaker"] == speaker]
    for phrase, turn in zip(sketch.phrases, kept.turns, strict=True):
        shown, told = words_of(phrase.text), words_of(turn["text"])
        if turn.get("interrupted"):
            assert shown == told[: len(shown)], (phrase, turn)
            assert 3 <= len(shown) < len(told), (phrase, turn)
        else:
            assert shown == told, (phrase, turn)
