"""A caller with a script, who reacts to the bot's speech. No I/O, no clock."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class ScriptLine(NamedTuple):
    """One thing that the caller says.

    `interrupt_after`: the caller begins after so many seconds of the bot's speech. None: the caller
    begins when the bot has finished.
    """

    text: str
    interrupt_after: float | None = None


class HeardLine(NamedTuple):
    """The bot as the caller hears it. `speaking`: the bot speaks. `began`: when the speech began.
    `last`: when it was last heard."""

    speaking: bool
    began: float
    last: float


class CueKind(Enum):
    """The kinds of cues."""

    SAY = "say"
    BOT_SPEAKS = "bot speaks"
    BOT_FINISHED = "bot finished"
    GIVE_UP = "give up"


class Cue(NamedTuple):
    """Something to do or to report. `line` belongs to SAY, `text` to GIVE_UP."""

    kind: CueKind
    line: int = -1
    text: str = ""


class _Stage(Enum):
    LISTENING = "waiting for the bot to speak"
    HEARING = "the bot speaks"
    TALKING = "the caller speaks"
    LEAVING = "waiting for the bot to hang up"


class Conversation:
    """Listens to the greeting, says every line in its turn, and waits for the bot to hang up.

    `patience`: seconds that the caller waits for an answer. `first_patience`: seconds that the
    caller waits for the greeting. Times are in seconds from the start of the call.
    """

    def __init__(self, lines: list[ScriptLine], patience: float, first_patience: float) -> None:
        self._lines = lines
        self._patience = patience
        self._first_patience = first_patience
        self._stage = _Stage.LISTENING
        self._since = 0.0
        self._next = 0
        self._over = False

    def step(self, now: float, bot: HeardLine, caller_speaking: bool) -> list[Cue]:
        """The cues at the time `now`. Must be called every few milliseconds, until GIVE_UP."""
        if self._over:
            return []
        if self._stage is _Stage.TALKING:
            if not caller_speaking:
                self._enter(_Stage.LISTENING, now)
            return []
        if self._stage is _Stage.HEARING:
            return self._hearing(now, bot)
        if bot.speaking and bot.last > self._since:
            self._enter(_Stage.HEARING, max(bot.began, self._since))
            return [Cue(CueKind.BOT_SPEAKS)]
        return self._waiting(now)

    def _hearing(self, now: float, bot: HeardLine) -> list[Cue]:
        finished = not bot.speaking
        cues = [Cue(CueKind.BOT_FINISHED)] if finished else []
        if self._next == len(self._lines):
            if finished:
                self._enter(_Stage.LEAVING, now)
            return cues
        after = self._lines[self._next].interrupt_after
        if finished or (after is not None and now - self._since >= after):
            cues.append(Cue(CueKind.SAY, self._next))
            self._next += 1
            self._enter(_Stage.TALKING, now)
        return cues

    def _waiting(self, now: float) -> list[Cue]:
        waited = now - self._since
        patience = self._patience if self._next else self._first_patience
        if waited <= patience:
            return []
        self._over = True
        if self._stage is _Stage.LEAVING:
            text = f"the bot did not hang up within {patience:g} s of its last word"
        elif not self._next:
            text = f"no greeting within {patience:g} s"
        else:
            said = self._lines[self._next - 1].text
            text = f"no answer within {patience:g} s to {said!r}"
        return [Cue(CueKind.GIVE_UP, text=text)]

    def _enter(self, stage: _Stage, since: float) -> None:
        self._stage, self._since = stage, since
