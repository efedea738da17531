"""The bots of a call in the record: in order, with those that never came."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call.bot_log import MOST, BotLog
from pipecat_bridge.events.record import BotRecord

A, B = "http://a:8000", "http://b:8000"


class BotLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.log = BotLog(lambda: self.now)

    def test_nothing_before_a_runner_has_answered(self) -> None:
        self.log.asked()
        self.assertEqual(self.log.bots, ())
        self.log.ended()
        self.assertEqual(self.log.bots, ())

    def test_a_bot_from_its_start_to_the_end_of_the_call(self) -> None:
        self.log.asked()
        self.now = 100.5
        self.log.ready(A, "bot-ready")
        bot = BotRecord(runner=A, asked_at=100.0, ready_at=100.5, ready_by="bot-ready")
        self.assertEqual(self.log.bots, (bot,))
        self.now = 130.0
        self.log.ended()
        [bot] = self.log.bots
        self.assertEqual(
            msgspec.to_builtins(bot),
            {
                "runner": A,
                "asked_at": 100.0,
                "ready_at": 100.5,
                "ready_by": "bot-ready",
                "ended_at": 130.0,
            },
        )

    def test_a_runner_that_gives_none_and_the_one_that_is_asked_then(self) -> None:
        self.log.asked()
        self.now = 101.0
        self.log.failed(A, "503")
        self.now = 101.2
        self.log.ready(B, "audio")
        failed = BotRecord(runner=A, asked_at=100.0, ended_at=101.0, fault="503")
        bot = BotRecord(runner=B, asked_at=101.0, ready_at=101.2, ready_by="audio")
        self.assertEqual(self.log.bots, (failed, bot))

    def test_a_lost_bot_and_the_one_in_its_place(self) -> None:
        self.log.asked()
        self.log.ready(A, "audio")
        self.now = 110.0
        self.log.ended("reset by peer")
        self.now = 110.1
        self.log.asked()
        self.now = 111.0
        self.log.ready(B, "audio")
        lost, bot = self.log.bots
        self.assertEqual((lost.ended_at, lost.fault), (110.0, "reset by peer"))
        self.assertEqual((bot.asked_at, bot.ready_at), (110.1, 111.0))

    def test_who_has_ended_is_not_ended_again(self) -> None:
        self.log.asked()
        self.log.failed(A, "503")
        self.now = 120.0
        self.log.ended("the end of the call")
        [failed] = self.log.bots
        self.assertEqual((failed.ended_at, failed.fault), (100.0, "503"))

    def test_the_last_ones_are_kept(self) -> None:
        for number in range(MOST + 10):
            self.log.asked()
            self.log.failed(str(number), "503")
        self.assertEqual([bot.runner for bot in self.log.bots], [str(n) for n in range(10, 60)])
