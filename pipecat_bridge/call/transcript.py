"""The transcript of a call: the turns of caller and bot, out of what the bot tells.

A turn is all that one side says until the other one speaks. Bots tell the words of the caller as
final transcriptions. They tell their own words in up to four ways, from the sentences that were
spoken to the tokens of the language model; the best way of a turn is taken, and the others are its
doubles. Of a turn that was cut short, some ways tell also what was never said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from msgspec import UNSET, Struct, UnsetType

from pipecat_bridge.events.kinds import Speaker, Turn
from pipecat_bridge.events.record import TranscriptPart
from pipecat_bridge.wire import rtvi

MAX_CHARACTERS: Final = 1 << 18
"""Characters of all turns. Over it the oldest turns are dropped. People speak some 60,000 in an
hour."""

MAX_TURN: Final = 1 << 14
"""Characters of one turn. What comes beyond is left out."""

NOTHING_TOLD: Final = "the bot tells nothing of what is said"
"""Why there is no transcript. Twilio's protocol has no words for it."""


class Voice(NamedTuple):
    """Seconds of voice that the bots of a call have sent so far, and that the phone got of it."""

    sent: float
    played: float


_SPOKEN: Final = 0
_SENTENCES: Final = 1
_OUTPUT: Final = 2
_TOKENS: Final = 3

_BEST: Final = (_SPOKEN, _SENTENCES, _OUTPUT, _TOKENS)
"""The ways, the best one first."""

_CUT_SHORT: Final = (_SPOKEN, _OUTPUT, _SENTENCES, _TOKENS)
"""The same for a turn that was cut short. Pipecat tells a sentence as output when it begins to be
said, and as a transcription when the language model has written it."""


class _Words:
    """The words of one turn, by the way in which they came."""

    def __init__(self) -> None:
        self._ways: dict[int, list[str]] = {}
        self._left = MAX_TURN

    def add(self, way: int, text: str) -> None:
        text = text[: self._left]
        self._left -= len(text)
        self._ways.setdefault(way, []).append(text)

    def text(self, cut_short: bool = False) -> str:
        """The words of the best way that there is."""
        for way in _CUT_SHORT if cut_short else _BEST:
            if way in self._ways:
                between = "" if way == _TOKENS else " "
                return " ".join(between.join(self._ways[way]).split())
        return ""


class _Open(Struct):
    """A turn that goes on. `stopped`: when its speaker fell silent, 0 while it speaks. `voiced`:
    the speaker was heard, and not only read."""

    start: float
    words: _Words
    stopped: float = 0.0
    interrupted: bool = False
    voiced: bool = False


class Transcript:
    """The turns of one call.

    Times are in seconds since the epoch. `voice` tells the bot's voice so far, and `after_voice`
    calls a function when what waits of it has been played or dropped. `done` is called with each
    turn when it has ended.
    """

    def __init__(
        self,
        voice: Callable[[], Voice],
        after_voice: Callable[[Callable[[], None]], None],
        now: Callable[[], float],
        done: Callable[[Turn], None],
    ) -> None:
        self.omitted = 0  # turns that were dropped
        self._has_told = False  # the bot, anything of speech
        self._voice = voice
        self._after_voice = after_voice
        self._now = now
        self._done = done
        self._turns: deque[Turn] = deque()
        self._characters = 0
        self._caller: _Open | None = None
        self._bot: _Open | None = None
        self._told = Voice(0.0, 0.0)  # of the bot's voice, in its turns until now
        self._takes: dict[type[rtvi.Event], Callable[[Any], None]] = {
            rtvi.UserStartedSpeaking: self._caller_speaks,
            rtvi.UserStoppedSpeaking: self._caller_stops,
            rtvi.UserTranscription: self._hear_caller,
            rtvi.BotStartedSpeaking: self._bot_speaks,
            rtvi.BotStoppedSpeaking: self._bot_stops,
            rtvi.BotOutput: self._hear_output,
            rtvi.BotTranscription: lambda said: self._hear_bot(_SENTENCES, said.text),
            rtvi.BotLLMText: lambda said: self._hear_bot(_TOKENS, said.text),
        }

    def __iter__(self) -> Iterator[Turn]:
        return iter(self._turns)

    def __len__(self) -> int:
        return len(self._turns)

    def hear(self, event: rtvi.Event) -> None:
        """Take what the bot tells. Most events are none of speech."""
        take = self._takes.get(type(event))
        if take is not None:
            self._has_told = True
            take(event)

    @property
    def part(self) -> TranscriptPart:
        """How much there is, for the record."""
        none = UNSET if self._has_told else NOTHING_TOLD
        return TranscriptPart(turns=len(self) + self.omitted, omitted=self.omitted, none=none)

    def interrupted(self) -> bool:
        """The caller speaks, and the bot's turn is over. False if nothing of one was heard."""
        if self._bot is None:
            return False
        self._bot.interrupted = True
        return self._end_bot()

    def bot_gone(self) -> None:
        """The bot is lost: what it has said is over."""
        self._end_bot()

    def close(self) -> None:
        """The call is over. Drop the references to it: it refers to this object."""
        self._end_bot()
        self._end_caller()
        self._takes.clear()
        del self._voice, self._after_voice, self._done

    # The caller

    def _caller_speaks(self, _: rtvi.Event) -> None:
        if self._caller is None:
            self._caller = _Open(self._now(), _Words())
        self._caller.stopped = 0.0

    def _caller_stops(self, _: rtvi.Event) -> None:
        if self._caller is not None:
            self._caller.stopped = self._now()

    def _hear_caller(self, said: rtvi.UserTranscription) -> None:
        """Take a transcription if it is final. It may come when the bot already answers."""
        if not said.final:
            return
        if self._caller is None:
            self._caller = _Open(self._now(), _Words(), self._now())
        self._caller.words.add(_SPOKEN, said.text)
        if self._bot is not None and self._caller.start < self._bot.start:
            self._end_caller()

    def _end_caller(self) -> None:
        turn, self._caller = self._caller, None
        if turn is not None and (text := turn.words.text()):
            self._add("caller", turn, text, turn.stopped or self._now())

    # The bot

    def _bot_speaks(self, _: rtvi.Event) -> None:
        """The bot begins to speak. If the words of the caller are still to come, they belong to the
        turn before."""
        if self._caller is not None:
            self._caller.stopped = self._caller.stopped or self._now()
            if self._caller.words.text():
                self._end_caller()
        self._begin_bot()
        assert self._bot is not None
        if not self._bot.voiced:  # its words came first
            self._bot.start, self._bot.voiced = self._now(), True
        self._bot.stopped = 0.0

    def _begin_bot(self) -> None:
        if self._bot is None:
            self._bot = _Open(self._now(), _Words())

    def _hear_output(self, said: rtvi.BotOutput) -> None:
        self._hear_bot(_SPOKEN if said.spoken else _OUTPUT, said.text)

    def _hear_bot(self, way: int, text: str) -> None:
        self._begin_bot()
        assert self._bot is not None
        self._bot.words.add(way, text)

    def _bot_stops(self, _: rtvi.Event) -> None:
        """The bot has sent the last of its voice, and the phone gets it a little later."""
        turn = self._bot
        if turn is not None:
            stopped = turn.stopped = self._now()
            self._after_voice(lambda: self._played_out(turn, stopped))

    def _played_out(self, turn: _Open, stopped: float) -> None:
        """End a turn, if it has not gone on since `stopped`."""
        if turn is self._bot and turn.stopped == stopped:
            self._end_bot()

    def _end_bot(self) -> bool:
        """End the bot's turn. False if there is none; one that was interrupted before anything of
        it was heard is none."""
        turn, self._bot = self._bot, None
        if turn is None:
            return False
        before, self._told = self._told, self._voice()
        audio = round(max(0.0, self._told.sent - before.sent), 3)
        played = round(max(0.0, self._told.played - before.played), 3)
        if turn.interrupted and not played:
            return False
        if text := turn.words.text(cut_short=turn.interrupted or not turn.stopped):
            self._add("bot", turn, text, self._now(), audio, played)
        return True

    def _add(
        self,
        speaker: Speaker,
        spoken: _Open,
        text: str,
        end: float,
        audio: float | UnsetType = UNSET,
        played: float | UnsetType = UNSET,
    ) -> None:
        start, end = round(spoken.start, 3), round(end, 3)
        turn = Turn(speaker, text, start, end, spoken.interrupted, audio, played)
        self._turns.append(turn)
        self._characters += len(turn.text)
        while self._characters > MAX_CHARACTERS:
            self._characters -= len(self._turns.popleft().text)
            self.omitted += 1
        self._done(turn)
