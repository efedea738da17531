"""The figures of a run: delays, gaps, pace, and the remarks."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load import figures, report
from pipecat_bridge.tools.load.bots import HeardByBot
from pipecat_bridge.tools.load.callers import HeardByCaller
from pipecat_bridge.tools.load.calls import Role, call_id, duties, read_id
from pipecat_bridge.tools.load.marks import EVERY, LEAD, NUMBERS

pytestmark = pytest.mark.tools


def bot(call: int, mark: int, time: float, sample: int = 0) -> HeardByBot:
    return HeardByBot(call, mark % NUMBERS, time, sample, time + 0.001)


class DelayTests(SynchronousTestCase):
    def test_to_the_bot_each_mark_by_its_number(self) -> None:
        sent = {1: [index * 0.1 for index in range(600)], 2: [0.05]}
        heard = [bot(1, 3, 0.3 + 0.005), bot(1, 300, 30.0 + 0.5), bot(2, 0, 0.06)]
        delays = [round(d.seconds + LEAD, 6) for d in figures.to_bot(sent, heard)]
        self.assertEqual(delays, [0.005, 0.5, 0.01])

    def test_a_mark_that_was_never_sent_counts_for_nothing(self) -> None:
        self.assertEqual(figures.to_bot({1: [0.0]}, [bot(1, 7, 0.5)]), [])

    def test_to_the_caller_from_the_latest_echo_of_that_number(self) -> None:
        echoed = [bot(1, 5, 1.0), bot(1, 5 + NUMBERS, 26.6), bot(2, 5, 1.5)]
        heard = [HeardByCaller(1, 5, 1.041, 0), HeardByCaller(1, 5, 26.7, 0)]
        delays = [round(d.seconds, 6) for d in figures.to_caller(echoed, heard)]
        self.assertEqual(delays, [0.04, 0.099])
        self.assertEqual(figures.to_caller(echoed, [HeardByCaller(1, 6, 2.0, 0)]), [])


D = EVERY * 320  # samples from one mark to the next, at 16 kHz


class GapTests(SynchronousTestCase):
    def stream(self, *samples: int) -> figures.Gaps:
        marks = [bot(1, number, 0.0, sample) for number, sample in enumerate(samples)]
        return figures.gaps(marks, 16000)

    def test_a_whole_stream_has_none(self) -> None:
        self.assertEqual(self.stream(36, 36 + D, 35 + 2 * D, 36 + 3 * D), (0, 0))

    def test_lost_and_repeated_do_not_cancel(self) -> None:
        self.assertEqual(self.stream(0, D - 320, 2 * D), (1, 1))
        self.assertEqual(self.stream(0, D + 160, 2 * D + 160), (0, 0.5))

    def test_numbers_go_round(self) -> None:
        marks = [bot(1, NUMBERS - 1, 0.0, 0), bot(1, NUMBERS, 0.0, D)]
        self.assertEqual(figures.gaps(marks, 16000), (0, 0))

    def test_streams_are_apart(self) -> None:
        marks = [bot(1, 0, 0.0, 0), bot(2, 0, 0.0, 5000), bot(1, 1, 0.0, D)]
        self.assertEqual(figures.gaps(marks, 16000), (0, 0))


class PaceTests(SynchronousTestCase):
    def test_of_ordinary_calls_only(self) -> None:
        intervals = {Role.STEADY: [0.02, 0.021, 0.016, 0.05], Role.DYING: [1.0]}
        pace = figures.pace(intervals)
        self.assertEqual(pace["late"], 1)
        self.assertEqual(pace["deviation_ms"]["max"], 30.0)

    def test_a_time_that_is_not_known_is_in_no_figure(self) -> None:
        pace = figures.pace({Role.STEADY: [0.02, nan, nan, 0.021]})
        self.assertEqual((pace["late"], pace["unknown"]), (0, 2))
        self.assertAlmostEqual(pace["deviation_ms"]["max"], 1.0)

    def test_nothing_measured_is_no_figure(self) -> None:
        self.assertEqual(figures.spread([]), {})
        self.assertEqual(figures.spread([0.001] * 9), dict.fromkeys(figures.spread([1]), 1.0))


class RoleTests(SynchronousTestCase):
    def test_the_id_says_role_and_number(self) -> None:
        for role, number in ((Role.STEADY, 1), (Role.DYING, 1 << 30)):
            self.assertEqual(read_id(str(call_id(role, number))), (role, number))
        self.assertNotEqual(call_id(Role.STEADY, 1), call_id(Role.STEADY, 1))
        self.assertRaises(ValueError, read_id, "ff000000-0000-0000-0000-000000000000")

    def test_duties(self) -> None:
        roles = duties(5, stalled=1, bursting=1, dying=1)
        self.assertEqual(sorted(roles), [0, 0, 1, 2, 3])


def result(**changes: Any) -> dict[str, Any]:
    """A run in which all was well."""
    spread = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0}
    whole: dict[str, Any] = {
        "calls": 2, "up": 2, "ended": {}, "plan": {"dying": 0, "length": 0.0},
        "set_up_ms": spread, "answer_ms": spread,
        "cpu_percent_per_call": {"median": 0.4, "min": 0.3, "max": 0.5},
        "cpu_percent_per_call_best": 0.35, "cpu_percent": 0.8, "waited_percent": 0.5,
        "rss_mb": {"before": 50.0, "load": 51.0, "after": 50.5}, "rss_mb_per_call": 0.5,
        "to_bot_ms": spread, "to_caller_ms": {},
        "pace": {"deviation_ms": spread, "late": 0, "unknown": 0},
        "to_bot_gaps": {"lost": 0.0, "repeated": 1.0}, "slowdown": 1.2, "work_us": 140.0,
        "to_caller_gaps": {"lost": 2.0, "repeated": 0.0},
        "loop_lag_ms": None, "gc": {"pauses": 3, "longest_ms": 1.5, "share_percent": 0.1},
        "generator": {"callers_busy": 0.1, "bots_busy": 0.2, "callers_late_ms": {}, "unsent": 0},
    }  # fmt: skip
    return {**whole, **changes}


class ReportTests(SynchronousTestCase):
    def test_a_column_for_each_run(self) -> None:
        lines = report.table([result(), result(name="other")]).splitlines()
        self.assertEqual(lines[0], "| | 2 calls | other |")
        self.assertEqual({line.count("|") for line in lines}, {4})
        self.assertIn("| delay bot -> caller, ms | - | - |", lines)

    def test_what_is_not_known_is_a_dash_and_null(self) -> None:
        nan = float("nan")
        unknown = result(cpu_percent=nan, waited_percent=nan, rss_mb_per_call=nan)
        text = report.table([unknown])
        self.assertIn("| CPU of the bridge, % | - |", text)
        self.assertNotIn("nan", text)
        self.assertEqual(report.remarks(unknown), [])
        self.assertEqual(report.for_json({"a": [1.5, nan], "b": (nan, "x")}),
                         {"a": [1.5, None], "b": [None, "x"]})  # fmt: skip

    def test_a_good_run_needs_no_remark(self) -> None:
        self.assertEqual(report.remarks(result()), [])

    def test_what_makes_a_run_doubtful(self) -> None:
        busy = {**result()["generator"], "bots_busy": 0.9, "unsent": 3}
        for changes, word in (
            ({"generator": busy}, "90%"),
            ({"generator": busy}, "did not take 3 frames"),
            ({"up": 1}, "1 calls were not set up"),
            ({"waited_percent": 30.0}, "30 %"),
            ({"ended": {"ended: broken": 2}}, "2 calls ended: broken"),
        ):
            text = "\n".join(report.remarks(result(**changes)))
            self.assertIn(word, text)

    def test_calls_that_shall_end_are_no_fault(self) -> None:
        plan = {"dying": 1, "length": 0.0}
        self.assertEqual(report.remarks(result(plan=plan, ended={"ended: x": 2})), [])
