"""A soft phone with a scripted caller, who listens, speaks in turn, and reports each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np

from pipecat_bridge.tools.phone.microphone import Microphone, Samples
from pipecat_bridge.tools.phone.recording import Chunk, Recording
from pipecat_bridge.tools.phone.scenario import Scenario
from pipecat_bridge.tools.phone.script import Conversation, Cue, CueKind, HeardLine
from pipecat_bridge.tools.phone.softphone import SoftPhone
from pipecat_bridge.tools.phone.speech import SpeechDetector


class Talk:
    """One call that follows a scenario.

    `voices`: the caller's lines as samples at `rate`. `report`: gets a line of text for every turn.
    `problem`: why the caller gave up; "" if the caller did not.
    """

    def __init__(
        self,
        scenario: Scenario,
        voices: list[Samples],
        rate: int,
        call_id: UUID,
        clock: Any,
        report: Callable[[str], None],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        timing = scenario.timing
        self.problem = ""
        self.microphone = Microphone(scenario.caller.noise)
        self.recording = Recording(rate)
        self._scenario = scenario
        self._voices = voices
        self._report = report
        self._detector = SpeechDetector(timing.pause)
        self._conversation = Conversation(scenario.lines, timing.patience, timing.first_patience)
        self.phone = SoftPhone(
            call_id, self.microphone, self.recording, clock, seconds, self._tick, self._hear
        )

    def _hear(self, chunk: Chunk) -> None:
        samples = np.frombuffer(chunk.pcm, dtype="<i2").astype(np.int16)
        self._detector.feed(chunk.at, samples, chunk.rate)

    def _tick(self, at: float) -> None:
        bot = HeardLine(self._detector.speaking, self._detector.began, self._detector.ended)
        for cue in self._conversation.step(at, bot, self.microphone.speaking):
            self._follow(at, cue)
        longest = self._scenario.timing.longest_call
        if at >= longest and not self.problem:
            self._give_up(f"the call was not over after {longest:g} s")

    def _follow(self, at: float, cue: Cue) -> None:
        if cue.kind is CueKind.SAY:
            said = self._scenario.say[cue.line]
            how = "interrupts" if said.interrupt_after and self._detector.speaking else "says"
            self._tell(at, f"caller {how}: {said.text}")
            self.microphone.say(self._voices[cue.line], said.text)
        elif cue.kind is CueKind.GIVE_UP:
            self._give_up(cue.text)
        else:
            self._tell(at, cue.kind.value)

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self._tell(self.phone.now, f"caller gives up: {problem}")
        self.phone.hang_up()

    def _tell(self, at: float, text: str) -> None:
        self._report(f"{at:6.1f} s  {text}")
