"""The log as JSON: what a line holds, and where it is written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.application.service import Application
from twisted.logger import ILogObserver, Logger, LogPublisher, capturedLogs
from twisted.python import log as legacy
from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.events.kinds import CallReady
from pipecat_bridge.events.log import EventLog
from pipecat_bridge.net.daemon import Daemon
from pipecat_bridge.net.json_log import as_line, json_observer, write_json
from pipecat_bridge.workers.lines import LineWriter, relay
from tests.unit.files import scratch


class Word(str, Enum):  # noqa: UP042 - its str() is not its value
    """A subclass of str."""

    GOOD = "good"


class CallLess(Daemon):
    """A daemon without a call to end."""

    def end_calls(self) -> None:
        """There is none."""


def lines(say: Callable[[Logger], None]) -> list[dict[str, Any]]:
    """The JSON lines of what `say` logs."""
    out = io.StringIO()
    say(Logger(namespace="pipecat_bridge.call", observer=json_observer(out)))
    return [json.loads(line) for line in out.getvalue().splitlines()]


def through_worker(say: Callable[[Logger], None]) -> list[dict[str, Any]]:
    """The JSON lines of a supervisor, if `say` logs in its worker 2."""
    written: list[bytes] = []
    say(Logger(namespace="pipecat_bridge.call", observer=LineWriter(written.append)))
    with capturedLogs() as captured:
        for line in written:
            relay(2, line)
    return [json.loads(as_line(event) or "") for event in captured]


def fail(log: Logger) -> None:
    """Log an error with its traceback."""
    try:
        raise ValueError("boom")
    except ValueError:
        log.failure("{call_id} it failed", call_id="x")


def tell(log: Logger) -> None:
    """Log an event of a call."""
    told = EventLog()
    told._log = log
    told(CallEvent("x", 1.0, CallReady("audio", "", 1.5)))


class LineTests(SynchronousTestCase):
    def test_what_every_line_has(self) -> None:
        event = {"log_format": "{a} b", "a": 1, "log_time": 1767225600.0629, "log_namespace": "n"}
        self.assertEqual(
            json.loads(as_line(event) or ""),
            {"time": "2026-01-01T00:00:00.062Z", "level": "info", "logger": "n", "message": "1 b"}
            | {"a": 1},
        )

    def test_an_event_of_a_call(self) -> None:
        [line] = lines(tell)
        del line["time"]
        self.assertEqual(
            line,
            {
                "level": "info",
                "logger": "pipecat_bridge.call",
                "message": "x call.ready by=audio seconds=1.5",
                "call": "x",
                "kind": "call.ready",
                "by": "audio",
                "seconds": 1.5,
            },
        )

    def test_a_traceback(self) -> None:
        [line] = lines(fail)
        self.assertEqual((line["message"], line["level"]), ("x it failed", "critical"))
        self.assertIn("Traceback (most recent call last)", line["traceback"])
        self.assertIn("ValueError: boom", line["traceback"])

    def test_through_a_worker_it_is_the_same(self) -> None:
        for say in (tell, fail, lambda log: log.warn("{text}", text="odd", nan=float("nan"))):
            [own], [workers] = lines(say), through_worker(say)
            self.assertEqual(workers.pop("message"), f"worker 2: {own.pop('message')}")
            self.assertEqual(workers.pop("worker"), 2)
            del own["time"], workers["time"]
            self.assertEqual(workers, own)

    def test_one_line_whatever_is_in_it(self) -> None:
        text = 'a\nb\r\0\x1b[0m\x1e\x85\N{LINE SEPARATOR}"{x}\\ \N{SNOWMAN}'
        [line] = lines(lambda log: log.info("{x}", x=text))
        self.assertEqual((line["message"], line["x"]), (text, text))

    def test_values_of_all_kinds(self) -> None:
        values = {
            "yes": True,
            "half": 0.5,
            "nan": float("nan"),
            "endless": float("-inf"),
            "large": 1 << 70,
            "word": Word.GOOD,
            "lone": "\udc80",
            "nothing": None,
            "many": [1],
            "thing": object(),
        }
        expected = {
            "yes": True,
            "half": 0.5,
            "nan": "nan",
            "endless": "-inf",
            "large": str(1 << 70),
            "word": "good",
            "lone": "\\udc80",
        }
        for rendered in (lines, through_worker):
            [line] = rendered(lambda log: log.info("{lone} {thing}", **values))
            self.assertEqual({key: line[key] for key in values if key in line}, expected)

    def test_nothing_takes_the_place_of_what_every_line_has(self) -> None:
        [line] = lines(lambda log: log.info("x", time=1, logger="y", message="z", data={"call": 1}))
        self.assertNotIn("call", line)
        self.assertEqual((line["logger"], line["message"]), ("pipecat_bridge.call", "x"))
        self.assertIsInstance(line["time"], str)

    def test_the_older_way_of_logging(self) -> None:
        out = io.StringIO()
        publisher = LogPublisher(json_observer(out))
        old = legacy.LogPublisher(publisher, publisher)
        old.msg("said", "so", extra=5)
        old.msg("")
        [line] = [json.loads(one) for one in out.getvalue().splitlines()]
        self.assertEqual((line["message"], line["extra"], line["level"]), ("said so", 5, "info"))
        self.assertEqual(set(line), {"time", "level", "logger", "message", "extra"})


class CommandTests(SynchronousTestCase):
    def observer(self, **values: Any) -> Any:
        """The log observer of a daemon under twistd with these options."""
        command, daemon = Options(), CallLess(None)
        command.update(values)
        write_json(daemon, command)
        return daemon.observer

    def test_no_command(self) -> None:
        daemon = CallLess(None)
        write_json(daemon, None)
        self.assertIsNone(daemon.observer)

    def test_a_logger_of_ones_own_is_kept(self) -> None:
        self.assertIsNone(self.observer(logger="mine", logfile=None, nodaemon=True))

    def test_a_file(self) -> None:
        path = scratch(self)
        observer = self.observer(logfile=str(path), nodaemon=True)
        observer({"log_format": "\N{SNOWMAN}"})
        self.assertEqual(json.loads(path.read_text("utf-8"))["message"], "\N{SNOWMAN}")

    def test_twistd_finds_it(self) -> None:
        application, daemon = Application("x"), CallLess(None)
        daemon.observer = LogPublisher()
        daemon.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), daemon.observer)

    def test_what_cannot_be(self) -> None:
        with self.assertRaisesRegex(SystemExit, "is not for --syslog: expected --logfile"):
            self.observer(syslog=True)
        with self.assertRaisesRegex(SystemExit, "Daemons cannot log to stdout"):
            self.observer(logfile="-", nodaemon=False)
