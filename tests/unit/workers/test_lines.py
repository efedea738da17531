"""A worker's log, as its supervisor logs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net.supervised import LONGEST_LINE
from pipecat_bridge.workers.lines import LineWriter, lost, relay


class LineTests(SynchronousTestCase):
    def relayed(self, say: Callable[[Logger], None]) -> list[dict[str, Any]]:
        """The supervisor's events for what `say` logs in worker 2."""
        lines: list[bytes] = []
        say(Logger(namespace="pipecat_bridge.call", observer=LineWriter(lines.append)))
        with capturedLogs() as captured:
            for line in lines:
                self.assertLessEqual(len(line), LONGEST_LINE)
                self.assertNotIn(b"\n", line)
                relay(2, line)
        return list(captured)

    def test_text_level_and_namespace(self) -> None:
        [event] = self.relayed(lambda log: log.warn("{call_id} is {what}", call_id="x", what="odd"))
        self.assertEqual(formatEvent(event), "worker 2: x is odd")
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(event["log_namespace"], "pipecat_bridge.call")
        self.assertEqual((event["worker"], event["call_id"]), (2, "x"))

    def test_data_of_events(self) -> None:
        [event] = self.relayed(lambda log: log.info("x", data={"digit": "5", "n": [1, None]}))
        self.assertEqual(event["data"], {"digit": "5", "n": [1, None]})
        [event] = self.relayed(lambda log: log.info("x {data[a]}", data={"a": object}))
        self.assertNotIn("data", event)
        self.assertIn("object", formatEvent(event))

    def test_braces_and_line_ends_stay_in_one_event(self) -> None:
        [event] = self.relayed(lambda log: log.info("{said}", said='{"a": 1}\nsecond {line}'))
        self.assertEqual(formatEvent(event), 'worker 2: {"a": 1}\nsecond {line}')

    def test_a_traceback(self) -> None:
        def fail(log: Logger) -> None:
            try:
                raise ValueError("boom")
            except ValueError:
                log.failure("it failed")

        [event] = self.relayed(fail)
        self.assertIn("it failed", formatEvent(event))
        self.assertIn("ValueError: boom", formatEvent(event))
        self.assertEqual(event["log_level"], LogLevel.critical)

    def test_what_is_too_long_is_shortened(self) -> None:
        [event] = self.relayed(
            lambda log: log.info("{x}", x='"' * 50_000, data={"y": "z" * 50_000})
        )
        self.assertTrue(formatEvent(event).endswith('""..'))

    def test_what_is_too_long_in_other_letters(self) -> None:
        for letter in ("\N{GRINNING FACE}", "\x01", "\N{SNOWMAN}"):

            def fail(log: Logger, text: str = letter * 50_000) -> None:
                try:
                    raise ValueError(text)
                except ValueError:
                    log.failure("{x}", x=text)

            [event] = self.relayed(fail)
            self.assertIn(letter * 500, event["log_line"])
            self.assertTrue(event["log_line"].endswith(".."))
            self.assertIn(letter * 500, event["traceback"])

    def test_how_many_are_missing(self) -> None:
        with capturedLogs() as captured:
            relay(2, lost(17))
        [event] = captured
        self.assertIn("worker 2: 17 lines of this log are missing", formatEvent(event))

    def test_lines_of_others(self) -> None:
        with capturedLogs() as captured:
            for line in (b"Segmentation {fault}", b'{"level": "loud"}', b"\xff", b"[]"):
                relay(1, line)
        texts = [formatEvent(event) for event in captured]
        expected = ["Segmentation {fault}", '{"level": "loud"}', "\N{REPLACEMENT CHARACTER}", "[]"]
        self.assertEqual(texts, [f"worker 1: {text}" for text in expected])
        self.assertEqual({event["log_level"] for event in captured}, {LogLevel.warn})
