"""The receptionist that comes with the bridge holds its conversation over Asterisk.

Its packages are those of the bot extra, so the daemon is that of this environment. The caller is
Asterisk's: it hears by WaitForNoise() and WaitForSilence() when it is its turn.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace

from pipecat_bridge.tools.phone.demo import spoken
from pipecat_bridge.tools.phone.ears import recognise
from pipecat_bridge.tools.phone.judge import missing_words
from pipecat_bridge.tools.phone.measure import Turn, heard_after, turns_of
from pipecat_bridge.tools.phone.microphone import Utterance
from pipecat_bridge.tools.phone.recording import Timeline
from pipecat_bridge.tools.phone.report import BARGE_IN_SECONDS, recognised
from pipecat_bridge.tools.phone.scenario import Said, Scenario, load
from pipecat_bridge.tools.phone.speech import spans
from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import Caller, call
from tests.asterisk.calls import DRIVERS, no_channels
from tests.asterisk.conftest import Measurements, wait
from tests.asterisk.pbx import Pbx

RATE = 16000
LINES = (
    Said("What are your opening hours?", "hours"),
    Said("Where are you located?", "address", interrupt_after=2.5),
    Said("Say that again.", "address"),
    Said("Are you open on Saturday, please?", "saturday"),
    Said("No thank you, that is all.", "farewell"),
)
"""Lines that the bot's recogniser is sure of in this voice at 8 kHz too, by a wide margin."""


def _scenario() -> Scenario:
    demo = load()
    voice = replace(demo.caller, words_per_minute=135)
    return replace(demo, say=list(LINES), caller=voice)


SCENARIO = _scenario()
INTERRUPTED = [*(bool(one.interrupt_after) for one in SCENARIO.say), False]
"""Of each of the bot's turns, whether the caller cuts it short; the greeting is the first."""

LONGEST_ANSWER = 10.0
"""Seconds; the answer that is longer is the one that is cut short."""

CALLS = {"application": ("602@pipecat", "slin"), "channel": ("604@pipecat", "slin16")}
"""Both drivers, with the caller's number told beforehand."""


class Talk(NamedTuple):
    """A call that is over, as recorded by Asterisk, and what the bridge says of it."""

    timeline: Timeline
    turns: list[Turn]
    record: dict[str, Any]
    understood: list[str]
    """What the caller said, as the bot tells it."""
    after: str


@pytest.fixture(scope="module")
def talks(pbx: Pbx) -> dict[str, Talk]:
    """One call on each driver, one after the other: the bot computes in real time."""
    return wait(_talks(pbx))


async def _talks(pbx: Pbx) -> dict[str, Talk]:
    _write_lines(pbx.folder / "takes")
    twistd = str(Path(sys.executable).with_name("twistd"))
    daemon = Bridge("http://127.0.0.1:8000", {"runner": {"mode": "embedded"}}, twistd=twistd)
    await daemon.start()
    try:
        await daemon.ready()
        await _warm_up(pbx, daemon)
        talks = {driver: await _talk(pbx, daemon, driver) for driver in DRIVERS}
        await no_channels(pbx)
        return talks
    finally:
        await daemon.stop()


async def _warm_up(pbx: Pbx, daemon: Bridge) -> None:
    """The first bot of a runner loads its models while it greets: its voice may have holes."""
    quiet = sound.write(pbx.folder / "takes", "quiet-6", 8000, sound.silence(6, 8000))
    caller = await call(pbx, DRIVERS["application"], quiet, 8000, *daemon.variables)
    await caller.ended()


def _write_lines(folder: Path) -> None:
    for number, samples in enumerate(spoken(SCENARIO, RATE), 1):
        sound.write(folder, f"line-{number}", RATE, samples / sound.FULL_SCALE)


async def _talk(pbx: Pbx, daemon: Bridge, driver: str) -> Talk:
    extension, audio_format = CALLS[driver]
    said = enumerate(SCENARIO.say, 1)
    number, after = next((n, one.interrupt_after) for n, one in said if one.interrupt_after)
    caller = await call(
        pbx,
        extension,
        pbx.folder / "takes" / "line",
        RATE,
        f"LINES={len(SCENARIO.say)}",
        f"PAUSE={round(1000 * SCENARIO.timing.pause)}",
        f"INTERRUPTING={number}",
        f"AFTER={after}",
        f"PIPECAT_FORMAT={audio_format}",
        *daemon.variables,
        exten="converse",
    )
    call_id = await caller.variable("PIPECAT_CALL")
    await caller.ended(SCENARIO.timing.longest_call)
    timeline = _timeline(caller)
    turns = turns_of(timeline, _utterances(timeline))
    record = await daemon.outcome(call_id)
    _, told = await daemon.request("GET", f"/v1/calls/{call_id}/transcript")
    understood = [turn["text"] for turn in told["turns"] if turn["speaker"] == "caller"]
    return Talk(timeline, turns, record, understood, await caller.variable("PIPECAT_OUTCOME"))


def _timeline(caller: Caller) -> Timeline:
    tracks = [np.rint(track * sound.FULL_SCALE) for track in (caller.said(), caller.heard())]
    length = max(len(track) for track in tracks)
    said, heard = (np.pad(x, (0, length - len(x))).astype(np.int16) for x in tracks)
    return Timeline(caller.rate, said, heard, [], 0.0)


def _utterances(timeline: Timeline) -> list[Utterance]:
    """Where in the recording the caller spoke; the pauses within its lines are shorter."""
    found = spans(timeline.caller, timeline.rate)
    starts = [(round(one.start * timeline.rate), round(one.end * timeline.rate)) for one in found]
    texts = [one.text for one in SCENARIO.say]
    assert len(found) == len(texts), f"{len(texts)} lines were to be said, recorded: {found}"
    return [Utterance(text, *times) for text, times in zip(texts, starts, strict=True)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_answers_what_it_is_asked(
    driver: str, talks: dict[str, Talk], measured: Measurements
) -> None:
    """Judged by a recogniser from what the caller's end recorded, not from what the bot says."""
    talk = talks[driver]
    assert [turn.interrupted for turn in talk.turns] == INTERRUPTED, talk.turns
    for turn, answer in zip(talk.turns, SCENARIO.expected, strict=True):
        # The recogniser takes minutes over a long stretch that has holes.
        assert turn.heard is not None, talk.turns
        assert turn.heard.seconds < LONGEST_ANSWER, talk.turns
        heard = recognised(talk.timeline, turn, SCENARIO, recognise)
        wanted = answer.opening if turn.interrupted and answer.opening else answer.words
        assert heard, f"nothing that could be understood in place of {answer.sentences}"
        assert missing_words(heard, wanted) == [], (heard, talk.understood)
    waits = [turn.answered_after for turn in talk.turns if turn.answered_after is not None]
    measured.add(
        f"receptionist, {driver}",
        answers=len(talk.turns),
        answer_p50_ms=round(1000 * float(np.median(waits))),
        answer_max_ms=round(1000 * max(waits)),
    )


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_lets_itself_be_interrupted(
    driver: str, talks: dict[str, Talk], measured: Measurements
) -> None:
    """One answer is cut short, and no other; the bot's voice detection has its part in the time."""
    talk = talks[driver]
    assert [turn.interrupted for turn in talk.turns] == INTERRUPTED, talk.turns
    said = talk.turns[1 + INTERRUPTED.index(True)].said
    assert said is not None
    began = said.start
    after = heard_after(talk.timeline, began)
    measured.add(f"receptionist interrupted, {driver}", first_sound_to_last_ms=round(1000 * after))
    assert 0 < after <= BARGE_IN_SECONDS
    assert talk.record["quality"]["interruptions"] >= 1


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_hangs_up_when_it_has_said_goodbye(driver: str, talks: dict[str, Talk]) -> None:
    """The dialplan goes on, and knows that the bot had finished."""
    talk = talks[driver]
    assert talk.record["outcome"] == "completed"
    assert talk.after == "completed"
    assert talk.record["metadata"]["caller"] == "2125550100"
