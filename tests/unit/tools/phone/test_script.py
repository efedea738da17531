"""The caller with a script: whose turn it is."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.script import Conversation, Cue, CueKind, HeardLine, ScriptLine

pytestmark = pytest.mark.tools

SAY, SPEAKS, FINISHED = CueKind.SAY, CueKind.BOT_SPEAKS, CueKind.BOT_FINISHED


class Room:
    """A conversation, with a bot and a caller that speak when the test says so."""

    def __init__(self, *lines: ScriptLine) -> None:
        self.conversation = Conversation(list(lines), patience=5.0, first_patience=10.0)
        self.now = 0.0
        self.bot = HeardLine(False, 0.0, 0.0)
        self.caller = False

    def run(self, seconds: float) -> list[Cue]:
        """Let time pass in steps of 20 ms; what happened."""
        cues = []
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            if self.bot.speaking:
                self.bot = self.bot._replace(last=self.now)
            found = self.conversation.step(self.now, self.bot, self.caller)
            self.caller = self.caller or any(cue.kind is SAY for cue in found)
            cues += found
        return cues

    def bot_speaks(self, seconds: float) -> list[Cue]:
        """The bot speaks and stops; what happened in that time and right after."""
        self.bot = HeardLine(True, self.now, self.now)
        cues = self.run(seconds)
        self.bot = self.bot._replace(speaking=False)
        return cues + self.run(0.02)

    def caller_ends(self) -> list[Cue]:
        """The caller has said the line."""
        self.caller = False
        return self.run(0.02)


def kinds(cues: list[Cue]) -> list[CueKind]:
    return [cue.kind for cue in cues]


class ConversationTests(SynchronousTestCase):
    def test_line_after_line(self) -> None:
        room = Room(ScriptLine("one"), ScriptLine("two"))
        self.assertEqual(room.run(3.0), [])
        self.assertEqual(room.bot_speaks(2.0), [Cue(SPEAKS), Cue(FINISHED), Cue(SAY, 0)])
        self.assertEqual(room.run(2.0), [])
        room.caller_ends()
        self.assertEqual(room.run(1.0), [])
        self.assertEqual(room.bot_speaks(2.0), [Cue(SPEAKS), Cue(FINISHED), Cue(SAY, 1)])
        room.caller_ends()
        self.assertEqual(kinds(room.bot_speaks(1.0)), [SPEAKS, FINISHED])
        self.assertEqual(room.run(4.0), [])

    def test_interrupts_while_the_bot_speaks(self) -> None:
        room = Room(ScriptLine("wait", 2.0))
        room.bot = HeardLine(True, room.now, room.now)
        self.assertEqual(kinds(room.run(1.9)), [SPEAKS])
        self.assertEqual(room.run(0.2), [Cue(SAY, 0)])

    def test_a_bot_that_is_too_brief_is_answered_after_it(self) -> None:
        room = Room(ScriptLine("wait", 2.0))
        self.assertEqual(kinds(room.bot_speaks(1.0)), [SPEAKS, FINISHED, SAY])

    def test_the_rest_of_the_interrupted_answer_is_no_answer(self) -> None:
        room = Room(ScriptLine("wait", 1.0), ScriptLine("next"))
        room.bot = HeardLine(True, room.now, room.now)
        room.run(1.1)
        # The bot falls silent while the caller talks; the detector says so only later.
        silent_since = room.now + 0.2
        for _ in range(50):
            room.now += 0.02
            room.bot = room.bot._replace(last=min(room.now, silent_since))
            self.assertEqual(room.conversation.step(room.now, room.bot, True), [])
        room.now += 0.02
        self.assertEqual(room.conversation.step(room.now, room.bot, False), [])
        room.now += 0.02
        self.assertEqual(room.conversation.step(room.now, room.bot, False), [])

    def test_gives_up_once_with_the_reason(self) -> None:
        room = Room(ScriptLine("one"))
        cues = room.run(30.0)
        self.assertEqual([cue.text for cue in cues], ["no greeting within 10 s"])
        room = Room(ScriptLine("one"))
        room.bot_speaks(1.0)
        room.caller_ends()
        self.assertEqual([cue.text for cue in room.run(30.0)], ["no answer within 5 s to 'one'"])
        room = Room(ScriptLine("one"))
        room.bot_speaks(1.0)
        room.caller_ends()
        room.bot_speaks(1.0)
        (cue,) = room.run(30.0)
        self.assertEqual(cue.text, "the bot did not hang up within 5 s of its last word")
