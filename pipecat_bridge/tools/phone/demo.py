"""``pipecat-bridge demo``: starts a bridge, makes a spoken call through it, and judges it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
from twisted.internet.task import deferLater

from pipecat_bridge.tools.phone import present, scenario
from pipecat_bridge.tools.phone.call import CallError, dial, run_under_reactor
from pipecat_bridge.tools.phone.daemon import (
    DaemonError,
    DaemonProcess,
    command_line,
    configuration,
    free_ports,
)
from pipecat_bridge.tools.phone.ears import recognise
from pipecat_bridge.tools.phone.microphone import Samples
from pipecat_bridge.tools.phone.picture import draw
from pipecat_bridge.tools.phone.report import Material, Report, report_on
from pipecat_bridge.tools.phone.scenario import Scenario, ScenarioError
from pipecat_bridge.tools.phone.speech import trimmed
from pipecat_bridge.tools.phone.talk import Talk
from pipecat_bridge.tools.phone.wav import at_rate, write_wav

# How long the bridge may take to close the record of a call that is over.
RECORD_SECONDS: Final = 5.0
# If the phone itself is later than this, the machine was too busy for a fair judgement.
BUSY_SECONDS: Final = 0.03

Say = Callable[[str], None]


def _print(text: str) -> None:
    print(text, flush=True)


def run(folder: Path, rate: int, script: Path | None = None, tell: Say = _print) -> int:
    """Make the call of `script` at `rate` samples per second, and write call.wav, call.png,
    call.json and the daemon's log to `folder`. Returns 0 if the answers were right."""
    try:
        played = scenario.load(script)
        folder.mkdir(parents=True, exist_ok=True)
        tell("preparing the caller's voice")
        voices = spoken(played, rate)
    except ScenarioError as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"{folder} cannot be written to: {problem.strerror}", file=sys.stderr)
        return 1
    material: list[tuple[str, Material]] = []

    async def carry(reactor: Any) -> str:
        material.append(await carry_call(reactor, folder, rate, played, voices, tell))
        return "the call is over"

    status = run_under_reactor(carry)
    if status:
        tell(f"the call was not judged; the log of the bridge is {folder}/daemon.log")
        return status
    tell("listening to the recording")
    call_id, left = material[0]
    report = report_on(left, played, recognise)
    _leave(folder, report, call_id, played.title)
    _show(report, folder, tell)
    return 0 if report.good else 1


def spoken(played: Scenario, rate: int) -> list[Samples]:
    """The caller's lines as speech at `rate`, without silence around them."""
    from pipecat_bridge.embedded.espeak import Espeak

    voice, caller = Espeak(), played.caller
    lines = []
    for line in played.say:
        pcm, own_rate = voice.synthesize(line.text, caller.voice, caller.words_per_minute)
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64)
        # Lower the level before resampling: the filter needs some room above the peaks.
        scaled = samples * (caller.peak * 32767 / max(1.0, float(np.abs(samples).max(initial=0))))
        lines.append(trimmed(at_rate(scaled.astype(np.int16), own_rate, rate), rate))
    return lines


async def carry_call(
    reactor: Any, folder: Path, rate: int, played: Scenario, voices: list[Samples], tell: Say
) -> tuple[str, Material]:
    """Start a daemon, make the call, stop the daemon. Returns the call's id and its material."""
    ports = free_ports()
    config = folder / "pipecat-bridge.toml"
    config.write_text(configuration(ports, folder.absolute() / "state"))
    daemon = DaemonProcess(reactor, command_line(config), ports.api, folder / "daemon.log")
    tell("starting the bridge with the embedded runner")
    daemon.start()
    reactor.addSystemEventTrigger("before", "shutdown", daemon.stop_now)
    try:
        await daemon.ready(tell)
        return await _talk(reactor, daemon, ports.phone, rate, played, voices, tell)
    except DaemonError as problem:
        raise CallError(str(problem)) from problem
    finally:
        await daemon.stop()


async def _talk(
    reactor: Any,
    daemon: DaemonProcess,
    port: int,
    rate: int,
    played: Scenario,
    voices: list[Samples],
    tell: Say,
) -> tuple[str, Material]:
    call_id = uuid4()
    talk = Talk(played, voices, rate, call_id, reactor, tell)
    tell(f"calling, {rate} samples per second")
    ending = await dial(reactor, "127.0.0.1", port, talk.phone)
    started = time.time() - talk.phone.now
    tell(f"{ending.at:6.1f} s  {ending.how.value}")
    record = await _record(reactor, daemon, str(call_id))
    told = await daemon.get(f"/v1/calls/{call_id}/events") or {}
    events = told.get("events") or []
    return str(call_id), Material(
        talk.recording, talk.microphone.utterances, ending, talk.problem, started, record, events
    )


async def _record(reactor: Any, daemon: DaemonProcess, call_id: str) -> dict[str, Any]:
    """The bridge's record of the call after its end; after 5 s, the record as it is."""
    deadline = reactor.seconds() + RECORD_SECONDS
    while True:
        record: dict[str, Any] = await daemon.get(f"/v1/calls/{call_id}") or {}
        if record.get("ended_at") is not None or reactor.seconds() > deadline:
            return record
        await deferLater(reactor, 0.1)


def _leave(folder: Path, report: Report, call_id: str, title: str) -> None:
    timeline = report.timeline
    write_wav(folder / "call.wav", [timeline.caller, timeline.bot], timeline.rate)
    text = json.dumps(present.as_json(report, call_id), indent=2)
    (folder / "call.json").write_text(text + "\n")
    draw(present.sketch(report, title), folder / "call.png")


def _show(report: Report, folder: Path, tell: Say) -> None:
    tell("\nTranscript")
    for line in present.transcript(report):
        tell(line)
    tell("\nFigures")
    for line in present.figures(report):
        tell(f"  {line}")
    tell("\nJudged from the recording")
    for line in present.judgement(report):
        tell(f"  {line}")
    if not report.good and report.own_lateness > BUSY_SECONDS:
        tell(
            f"\nThe machine was busy: the phone itself was up to "
            f"{1000 * report.own_lateness:.0f} ms late. This alone can disturb a call."
        )
    verdict = "The call was good." if report.good else "The call had faults."
    tell(
        f"\n{verdict} Recording, picture and figures are in {folder}/: "
        "call.wav, call.png, call.json."
    )
