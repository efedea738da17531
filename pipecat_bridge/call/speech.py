"""Who speaks when, and how long answers take: measured at the phone, from the sound alone.

What bots tell of speech is told by some bots only, and by each in its own way. So this hears both
sides, on the grid of the frames that the phone gets: what it has sent, and what it is sent.
"""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

from msgspec import UNSET, UnsetType

from pipecat_bridge.audio.frame import FRAME
from pipecat_bridge.events.record import AnswerTimes, Talk

QUIETEST: Final = 150.0
"""Mean absolute sample, of 16 bits, below which nothing is speech: 47 dB below the loudest."""

ABOVE_NOISE: Final = 3.0
"""How many times as loud as the background speech is."""

RISE: Final = 1.008
"""How fast the background may become louder, for each frame: half as loud again in a second."""

BEGIN: Final = 3
"""Frames in a row that are loud, before it is speech: a click is shorter."""

PAUSE: Final = 20
"""Frames of silence that end an utterance: 0.4 s. Pauses between words are shorter."""

MOST_ANSWERS: Final = 2000
"""Answers whose time is kept. A call of a day has about so many."""


class Speaker:
    """One side. Frame numbers count from 0.

    `speaking`: it is in an utterance, in the short pauses as well. `frames`: loud frames within
    utterances. `utterances`: how many have begun. `began`: the first frame of the last one.
    `last_loud`: the last loud frame of it, -1 before the first.
    """

    __slots__ = ("_floor", "_loud", "began", "frames", "last_loud", "speaking", "utterances")

    def __init__(self) -> None:
        self._floor = 1.0  # the level of the background
        self._loud = 0  # frames in a row
        self.speaking = False
        self.frames = 0
        self.utterances = 0
        self.began = -1
        self.last_loud = -1

    def hear(self, level: float, frame: int) -> bool:
        """Take the level of a frame. True if an utterance has begun, at `began`."""
        floor = self._floor
        self._floor = floor + (level - floor) * 0.2 if level < floor else max(floor * RISE, 1.0)
        if level < QUIETEST or level < ABOVE_NOISE * floor:
            self._loud = 0
            if self.speaking and frame - self.last_loud >= PAUSE:
                self.speaking = False
            return False
        self._loud += 1
        if self.speaking:
            self.frames += 1
            self.last_loud = frame
            return False
        if self._loud < BEGIN:
            return False
        self.speaking = True
        self.utterances += 1
        self.frames += BEGIN
        self.began, self.last_loud = frame - BEGIN + 1, frame
        return True


class Conversation:
    """Both sides of a call."""

    __slots__ = ("_answers", "_frame", "_longest", "_waits_since", "bot", "caller", "first_answer")

    def __init__(self) -> None:
        self.caller = Speaker()
        self.bot = Speaker()
        self.first_answer = -1  # a frame
        self._frame = 0
        self._waits_since = -1  # the last loud frame of the caller that has no answer yet
        self._answers: list[int] = []  # frames
        self._longest = -1

    def hear(self, caller: float, bot: float) -> None:
        """Take the levels of a frame of both sides, as mean absolute samples of 16 bits."""
        frame, caller_side, bot_side = self._frame, self.caller, self.bot
        self._frame = frame + 1
        last = max(caller_side.last_loud, bot_side.last_loud)
        if caller_side.hear(caller, frame):
            self._note_silence(last, caller_side.began)
        if caller_side.last_loud == frame:
            self._waits_since = frame
        if bot_side.hear(bot, frame):
            self._note_silence(last, bot_side.began)
            self._note_answer(bot_side.began)

    def _note_silence(self, last: int, began: int) -> None:
        if last >= 0:
            self._longest = max(self._longest, began - last - 1)

    def _note_answer(self, began: int) -> None:
        if self.first_answer < 0:
            self.first_answer = began
        if 0 <= self._waits_since < began and len(self._answers) < MOST_ANSWERS:
            self._answers.append(began - self._waits_since - 1)
        self._waits_since = -1

    def talk(self, interruptions: int, turns: int | UnsetType) -> Talk:
        """What was measured so far, for the record."""
        return Talk(
            caller_talk=_seconds(self.caller.frames),
            bot_talk=_seconds(self.bot.frames),
            caller_utterances=self.caller.utterances,
            bot_utterances=self.bot.utterances,
            interruptions=interruptions,
            turns=turns,
            first_answer=_seconds(self.first_answer) if self.first_answer >= 0 else UNSET,
            answers=self._answer_times(),
            longest_silence=_seconds(self._longest) if self._longest >= 0 else UNSET,
        )

    def one_way(self, seconds: float) -> Literal["caller", "bot"] | UnsetType:
        """The side of which nothing was heard while the other one spoke for so many seconds."""
        caller, bot = (_seconds(side.frames) for side in (self.caller, self.bot))
        if not caller and bot >= seconds:
            return "caller"
        return "bot" if not bot and caller >= seconds else UNSET

    def _answer_times(self) -> AnswerTimes | UnsetType:
        if not self._answers:
            return UNSET
        ordered = sorted(self._answers)
        p50, p95 = (ordered[ceil(len(ordered) * part) - 1] for part in (0.5, 0.95))
        return AnswerTimes(
            count=len(ordered), p50=_seconds(p50), p95=_seconds(p95), max=_seconds(ordered[-1])
        )


def _seconds(frames: int) -> float:
    return round(frames * FRAME, 2)
