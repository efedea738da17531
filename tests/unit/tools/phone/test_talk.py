"""A whole scripted call on a fake clock, with a bot of tones: talked, measured, judged."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone import present
from pipecat_bridge.tools.phone.microphone import Samples
from pipecat_bridge.tools.phone.report import Check, Material, Report, report_on
from pipecat_bridge.tools.phone.scenario import Caller, ExpectedAnswer, Said, Scenario, Timing
from pipecat_bridge.tools.phone.softphone import Ending
from pipecat_bridge.tools.phone.speech import SpeechDetector
from pipecat_bridge.tools.phone.talk import Talk
from pipecat_bridge.wire.audiosocket import AUDIO_RATES, HANGUP, Decoder, encode

pytestmark = pytest.mark.tools

RATE = 8000
EPOCH = 1_700_000_000.0

# A sentence is a tone: its frequency is all that the recogniser of this test understands.
SENTENCES = {500: "welcome", 700: "open from nine", 900: "at oak street", 1100: "goodbye"}
WRONG = 1300


def tone(frequency: float, seconds: float) -> Samples:
    times = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(np.sin(2 * np.pi * frequency * times) * 8000).astype(np.int16)


def recognise(pcm: bytes, rate: int, _grammar: str) -> str:
    """The sentence whose tone is the loudest."""
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, dtype="<i2").astype(float)))
    frequency = float(spectrum.argmax()) * rate / (len(pcm) // 2)
    return SENTENCES[min(SENTENCES, key=lambda one: abs(one - frequency))] * (frequency < 1200)


def scenario(longest_call: float) -> Scenario:
    return Scenario(
        "A call of tones",
        Caller("", 150, 0.4, 10.0),
        Timing(patience=5.0, first_patience=5.0, pause=0.7, longest_call=longest_call),
        "greeting",
        [Said("hours?", "hours"), Said("address?", "address", 1.5), Said("bye", "bye")],
        {
            "greeting": ExpectedAnswer(["welcome"], ["welcome"]),
            "hours": ExpectedAnswer(["open from nine"], ["open", "nine"], ["open"]),
            "address": ExpectedAnswer(["at oak street"], ["oak"]),
            "bye": ExpectedAnswer(["goodbye"], ["goodbye"]),
        },
    )


class ToneBot:
    """Answers 0.5 s after the caller has ended, stops 0.3 s after the caller has begun.

    `answers` are its tones in order, the greeting first; after the last one it hangs up. The rest
    are its faults.
    """

    def __init__(self, answers: list[int]) -> None:
        self.answers = list(answers)
        self.deaf = False
        self.stays = False
        self.skipped_at = -1.0
        self._caller = SpeechDetector(pause=0.3)
        self._decoder = Decoder()
        self._queue = tone(self.answers.pop(0), 2.0)
        self._wait = 0.5
        self._answered = True
        self._left = 1.0

    def hear(self, at: float, data: bytes) -> None:
        for message in self._decoder.feed(data):
            if message.kind in AUDIO_RATES:
                samples = np.frombuffer(message.payload, dtype="<i2").astype(np.int16)
                self._caller.feed(at, samples, RATE)

    def frame(self, at: float) -> bytes:
        """What it sends for the 20 ms at `at`."""
        if self._caller.speaking:
            self._answered = False
            if at - self._caller.began > 0.3 and not self.deaf:
                self._queue = self._queue[:0]
        elif not self._answered:
            self._answered, self._wait = True, 0.2
            self._queue = tone(self.answers.pop(0), 3.0) if self.answers else self._queue
        if abs(at - self.skipped_at) < 0.01:
            return b""
        return self._next(at)

    def _next(self, at: float) -> bytes:
        if self._wait > 0:
            self._wait -= 0.02
            return encode(0x10, bytes(320))
        spoken, self._queue = self._queue[:160], self._queue[160:]
        if not spoken.size and not self.answers:
            self._left -= 0.02
            if self._left < 0 and not self.stays:
                return HANGUP
        return encode(0x10, spoken.tobytes().ljust(320, b"\0"))


class TCPTransport(StringTransport):
    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


def carried(
    bot: ToneBot, events: list[dict[str, Any]] | None = None, longest_call: float = 60.0
) -> tuple[Report, list[str]]:
    """The report on a call with this bot, and the lines that were printed in the call."""
    clock, transport, lines, endings = Clock(), TCPTransport(), [], []
    played = scenario(longest_call)
    voices = [tone(frequency, 1.0) for frequency in (300, 350, 400)]
    talk = Talk(played, voices, RATE, UUID(int=1), clock, lines.append, clock.seconds)
    talk.phone.finished.addCallback(endings.append)
    talk.phone.makeConnection(transport)
    while not transport.disconnecting and clock.seconds() < 100:
        bot.hear(clock.seconds(), transport.value())
        transport.clear()
        talk.phone.dataReceived(bot.frame(clock.seconds()))
        clock.advance(0.02)
    talk.phone.connectionLost(Failure(ConnectionDone()))
    ending: Ending = endings[0]
    record = {"outcome": "bot-hangup", "quality": {"underruns": 2}}
    spoken = talk.microphone.utterances
    material = Material(talk.recording, spoken, ending, talk.problem, EPOCH, record, events or [])
    return report_on(material, played, recognise), lines


def wrong(report: Report) -> list[Check]:
    return [check for check in report.checks if not check.good]


class TalkTests(SynchronousTestCase):
    def test_a_good_call(self) -> None:
        report, lines = carried(ToneBot([500, 700, 900, 1100]))
        self.assertEqual(wrong(report), [])
        self.assertTrue(report.good)
        self.assertEqual(report.heard, ["welcome", "open from nine", "at oak street", "goodbye"])
        self.assertEqual([turn.interrupted for turn in report.turns], [False, True, False, False])
        for turn in report.turns[1:]:
            assert turn.answered_after is not None
            self.assertLess(abs(turn.answered_after - 0.5), 0.05)
        self.assertEqual(
            [line.split("s  ", 1)[1] for line in lines],
            [
                "bot speaks",
                "bot finished",
                "caller says: hours?",
                "bot speaks",
                "caller interrupts: address?",
                "bot speaks",
                "bot finished",
                "caller says: bye",
                "bot speaks",
                "bot finished",
            ],
        )

    def test_the_interruption_is_measured(self) -> None:
        report, _ = carried(ToneBot([500, 700, 900, 1100]))
        assert report.barge_in is not None
        began = report.barge_in.began
        events = [
            {"kind": "interrupted", "time": EPOCH + 1.0, "data": {}},
            {"kind": "interrupted", "time": EPOCH + began + 0.28, "data": {}},
        ]
        report, _ = carried(ToneBot([500, 700, 900, 1100]), events)
        assert report.barge_in is not None
        assert report.barge_in.after_signal is not None
        self.assertLess(abs(report.barge_in.after_speech - 0.32), 0.03)
        self.assertLess(abs(report.barge_in.after_signal - 0.04), 0.03)

    def test_what_the_bot_says_of_itself_stands_beside(self) -> None:
        events = [
            {
                "kind": "turn",
                "time": EPOCH + end,
                "data": {
                    "speaker": speaker,
                    "text": text,
                    "start": EPOCH + start,
                    "end": EPOCH + end,
                },
            }
            for speaker, start, end, text in (
                ("bot", 0.5, 1.5, "Welcome!"),
                ("caller", 3.0, 4.7, "hours"),
                ("bot", 4.8, 4.9, "Open"),
                ("bot", 4.9, 5.5, "from nine."),
            )
        ]
        report, _ = carried(ToneBot([500, 700, 900, 1100]), events)
        self.assertEqual(report.told, ["Welcome!", "Open from nine.", "", ""])
        self.assertEqual(report.understood, ["", "hours", "", ""])
        text = "\n".join(present.transcript(report))
        self.assertIn("the bot's own text: Open from nine.", text)
        self.assertIn("the bot understood: hours", text)

    def test_wrong_and_missing_answers(self) -> None:
        for answers, name in (
            ([WRONG, 700, 900, 1100], "the greeting"),
            ([500, WRONG, 900, 1100], "the answer to 'hours?'"),
            ([500, 700, 700, 1100], "the answer to 'address?'"),
            ([500, 700, 900, 900], "the answer to 'bye'"),
        ):
            with self.subTest(name=name):
                report, _ = carried(ToneBot(answers))
                self.assertEqual([check.name for check in wrong(report)], [name])

    def test_a_bot_that_talks_on(self) -> None:
        bot = ToneBot([500, 700, 900, 1100])
        bot.deaf = True
        report, _ = carried(bot)
        self.assertIn("the interruption", [check.name for check in wrong(report)])

    def test_a_bot_that_stays(self) -> None:
        bot = ToneBot([500, 700, 900, 1100])
        bot.stays = True
        report, lines = carried(bot)
        self.assertEqual([check.name for check in wrong(report)], ["the bot hung up"])
        self.assertIn("gives up: the bot did not hang up within 5 s", lines[-1])

    def test_a_call_without_end(self) -> None:
        bot = ToneBot([500, 700, 900, 1100])
        bot.deaf = True
        report, lines = carried(bot, longest_call=6.0)
        self.assertIn("gives up: the call was not over after 6 s", lines[-1])
        self.assertLess(report.timeline.seconds, 6.1)

    def test_a_bot_that_falls_silent(self) -> None:
        report, _ = carried(ToneBot([500]))
        names = [check.name for check in wrong(report)]
        self.assertIn("the answer to 'hours?'", names)
        self.assertIn("the answer to 'bye'", names)
        self.assertFalse(report.good)

    def test_a_missing_frame(self) -> None:
        bot = ToneBot([500, 700, 900, 1100])
        bot.skipped_at = 5.0
        report, _ = carried(bot)
        (check,) = wrong(report)
        self.assertEqual(check.name, "no frame missing")
        self.assertRegex(check.found, r"^1 missing of \d+; nothing to play at 5.0 s$")


class PresentTests(SynchronousTestCase):
    def test_figures_are_the_measured_ones(self) -> None:
        report, _ = carried(ToneBot([500, 700, 900, 1100]))
        data = json.loads(json.dumps(present.as_json(report, "some-id")))
        self.assertEqual((data["good"], data["rate"], data["pace"]["missing"]), (True, RATE, 0))
        self.assertEqual([one["bot_recognised"] for one in data["turns"]], report.heard)
        text = "\n".join(present.figures(report))
        self.assertIn("0 missing", text)
        self.assertIn("delay caller to bot     not in the bridge's record", text)
        self.assertIn("underruns               2, ", text)

    def test_transcript_and_sketch_name_every_phrase(self) -> None:
        report, _ = carried(ToneBot([500, 700, 900, 1100]))
        text = "\n".join(present.transcript(report))
        for phrase in ("hours?", "address?", "bye", "welcome", "open from nine [interrupted]"):
            self.assertIn(phrase, text)
        sketch = present.sketch(report, "title")
        self.assertEqual(len(sketch.phrases), 7)
        self.assertEqual(sorted(sketch.phrases, key=lambda one: one.span.start), sketch.phrases)
        self.assertEqual(len(sketch.waits), 3)

    def test_verdicts_say_what_was_wrong(self) -> None:
        report, _ = carried(ToneBot([500, 700, 700, 1100]))
        lines = present.judgement(report)
        self.assertIn(
            "WRONG  the answer to 'address?': heard 'open from nine', without 'oak'", lines
        )
