"""The report of a demonstration call: measurements and judgement."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, NamedTuple

from pipecat_bridge.tools.phone.judge import Recognise, grammar, listen, missing_words
from pipecat_bridge.tools.phone.measure import (
    MeasuredPace,
    Turn,
    heard_after,
    messages_after,
    own_lateness,
    pace_of,
    silences,
    turns_of,
)
from pipecat_bridge.tools.phone.microphone import Utterance
from pipecat_bridge.tools.phone.recording import Recording, Span, Timeline
from pipecat_bridge.tools.phone.scenario import Scenario
from pipecat_bridge.tools.phone.softphone import Ending, How

# A silence that is longer than this is marked.
SILENCE_SECONDS: Final = 2.0
# Longest time from the caller's first sound to the bot's last sound. The bot's voice detection
# needs a part of it.
BARGE_IN_SECONDS: Final = 1.5


class Check(NamedTuple):
    """One check of the call: its name, whether it is good, and what was found."""

    name: str
    good: bool
    found: str


class BargeIn(NamedTuple):
    """The interruption of the bot, in seconds of the call.

    `began`: the caller's first sound. `signalled`: the bot's signal to the bridge. `stopped`: the
    bot's last sound. `messages_after`: number of messages with sound that arrived after the signal.
    `signalled` and `messages_after` are None if the time of the signal is unknown.
    """

    began: float
    signalled: float | None
    stopped: float
    messages_after: int | None

    @property
    def after_speech(self) -> float:
        """Seconds for which the bot was still heard after the caller began."""
        return max(0.0, self.stopped - self.began)

    @property
    def after_signal(self) -> float | None:
        """Seconds for which the bot was still heard after the bridge got the signal."""
        return None if self.signalled is None else max(0.0, self.stopped - self.signalled)


class Report(NamedTuple):
    """Everything that is known about a call.

    These lists have one text for each turn. `said`: what the caller said. `heard`: what was
    recognised of the bot in the recording. `told`: the bot's own text of what it said.
    `understood`: what the bot understood of the caller.
    """

    timeline: Timeline
    turns: list[Turn]
    said: list[str]
    heard: list[str]
    told: list[str]
    understood: list[str]
    pace: MeasuredPace
    own_lateness: float
    silences: list[Span]
    barge_in: BargeIn | None
    stats: dict[str, Any]
    outcome: str
    checks: list[Check]

    @property
    def good(self) -> bool:
        """Whether all checks are good."""
        return all(check.good for check in self.checks)


class Material(NamedTuple):
    """What remains of a call. `problem`: why the caller gave up, or "". `started`: the epoch time
    of the first sample. `record`: the bridge's record, or {}. `events`: of the call, without the
    last one."""

    recording: Recording
    utterances: list[Utterance]
    ending: Ending
    problem: str
    started: float
    record: dict[str, Any]
    events: list[dict[str, Any]]


def report_on(material: Material, scenario: Scenario, recognise: Recognise) -> Report:
    """Measure and judge a call."""
    timeline = material.recording.timeline()
    turns = turns_of(timeline, material.utterances)
    heard = [recognised(timeline, turn, scenario, recognise) for turn in turns]
    pace = pace_of(material.recording, timeline)
    barge_in = _barge_in(timeline, turns, material)
    checks = [
        *_spoken(scenario, turns, heard),
        _interruption(scenario, barge_in),
        _hung_up(material),
        Check("no frame missing", pace.missing == 0, _frames(pace, timeline)),
    ]
    return Report(
        timeline,
        turns,
        ["", *(one.text for one in material.utterances)],
        heard,
        _told(turns, material, "bot"),
        _told(turns, material, "caller"),
        pace,
        own_lateness(material.recording),
        silences(timeline, SILENCE_SECONDS),
        barge_in,
        material.record.get("quality") or {},
        str(material.record.get("outcome") or "unknown"),
        checks,
    )


def recognised(timeline: Timeline, turn: Turn, scenario: Scenario, recognise: Recognise) -> str:
    """What the recogniser understands of the bot's part of a turn; "" for silence."""
    if turn.heard is None:
        return ""
    words = grammar(scenario.sentences, cut_short=turn.interrupted)
    start, end = (round(one * timeline.rate) for one in turn.heard)
    return listen(timeline.bot[start:end], timeline.rate, words, recognise)


def _spoken(scenario: Scenario, turns: list[Turn], heard: list[str]) -> list[Check]:
    """One check for the greeting, and one for every answer."""
    names = ["the greeting", *(f"the answer to {one.text!r}" for one in scenario.say)]
    checks = []
    for number, (name, answer) in enumerate(zip(names, scenario.expected, strict=True)):
        if number >= len(turns):
            checks.append(Check(name, False, "the call was over before"))
            continue
        wanted = answer.opening if turns[number].interrupted and answer.opening else answer.words
        missing = missing_words(heard[number], wanted)
        text = f"heard {heard[number]!r}" if heard[number] else "nothing that could be understood"
        lacking = f", without {' '.join(missing)!r}" if missing and heard[number] else ""
        checks.append(Check(name, not missing and bool(heard[number]), text + lacking))
    return checks


def _interruption(scenario: Scenario, barge_in: BargeIn | None) -> Check:
    name = "the interruption"
    if not any(one.interrupt_after for one in scenario.say):
        return Check(name, True, "none in the script")
    if barge_in is None:
        return Check(name, False, "the bot was not speaking when it should have been interrupted")
    found = f"the bot was heard for {barge_in.after_speech * 1000:.0f} ms after the caller began"
    return Check(name, barge_in.after_speech <= BARGE_IN_SECONDS, found)


def _hung_up(material: Material) -> Check:
    found = material.problem or material.ending.how.value
    if material.ending.detail:
        found += f": {material.ending.detail}"
    good = material.ending.how is How.PEER_HUNG_UP and not material.problem
    return Check("the bot hung up", good, found)


def _frames(pace: MeasuredPace, timeline: Timeline) -> str:
    found = f"{pace.missing} missing of {pace.messages + pace.missing}"
    places = ", ".join(f"{gap.start:.1f} s" for gap in timeline.gaps[:10])
    return f"{found}; nothing to play at {places}" if places else found


def _barge_in(timeline: Timeline, turns: list[Turn], material: Material) -> BargeIn | None:
    for turn, following in pairwise(turns):
        if turn.interrupted and following.said is not None:
            began = following.said.start
            times = (one["time"] - material.started for one in _events(material, "interrupted"))
            signal = min((one for one in times if one >= began), default=None)
            after = None if signal is None else messages_after(material.recording.chunks, signal)
            return BargeIn(began, signal, began + heard_after(timeline, began), after)
    return None


def _told(turns: list[Turn], material: Material, speaker: str) -> list[str]:
    """The texts of a speaker in the transcript, one for each turn."""
    told: list[list[str]] = [[] for _ in turns]
    for event in _events(material, "turn"):
        data = event["data"]
        if data["speaker"] != speaker:
            continue
        at = data["start" if speaker == "bot" else "end"] - material.started
        past = [n for n, turn in enumerate(turns) if turn.said is None or turn.said.end <= at]
        told[past[-1]].append(data["text"])
    return [" ".join(texts) for texts in told]


def _events(material: Material, kind: str) -> list[dict[str, Any]]:
    return [one for one in material.events if one["kind"] == kind]
