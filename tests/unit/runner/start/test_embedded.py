"""The embedded runner's process, on a simulated clock. tests/e2e has real processes."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest import mock

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net.supervised import LAST_WORDS, LONGEST_LINE
from pipecat_bridge.options import EmbeddedOptions
from pipecat_bridge.runner.start.embedded import EmbeddedRunner, missing_extra
from tests.unit.bot_side import logged

LISTENS = b"listening on http://127.0.0.1:1234\n"


class Process:
    """A process that has been started; `end` lets it end."""

    def __init__(self, protocol: Any, arguments: list[str]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.pid: int | None = 4711
        self.signals: list[str] = []
        protocol.makeConnection(self)

    def closeStdin(self) -> None:
        self.signals.append("EOF")

    def signalProcess(self, name: str) -> None:
        assert self.pid, "signalled after its end"
        self.signals.append(name)

    def loseConnection(self) -> None:
        self.protocol.processEnded(self.reason)

    def say(self, data: bytes, fd: int = 1) -> None:
        self.protocol.childDataReceived(fd, data)

    def end(self, status: int = 0, pipes: bool = True) -> None:
        """End; `pipes`: all of them are closed with it."""
        self.pid = None
        self.reason = Failure(ProcessTerminated(status) if status else ProcessDone(0))
        self.protocol.processExited(self.reason)
        if pipes:
            self.protocol.processEnded(self.reason)


class Machine(Clock):
    """A clock that starts processes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.started_at: list[float] = []

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: Any) -> None:
        assert (executable, env) == (args[0], None)
        self.started_at.append(self.seconds())
        self.processes.append(Process(protocol, args))

    @property
    def last(self) -> Process:
        return self.processes[-1]


class EmbeddedCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Machine()
        self.runner = EmbeddedRunner(self.machine, EmbeddedOptions(arguments=["--verbose"]))
        self.runner.start()


class UrlTests(EmbeddedCase):
    def test_the_command(self) -> None:
        arguments = self.machine.last.arguments
        self.assertEqual(arguments[:3], [sys.executable, "-m", "pipecat_bridge.embedded"])
        self.assertEqual(arguments[-2:], ["--exit-with-parent", "--verbose"])

    def test_it_is_known_once_the_runner_says_so(self) -> None:
        waiting = [self.runner.url(), self.runner.url()]
        self.machine.last.say(b"loading\nlistening on http://127")
        self.assertNoResult(waiting[0])
        self.machine.last.say(b".0.0.1:1234\r\n")
        for each in [*waiting, self.runner.url()]:
            self.assertEqual(self.successResultOf(each), "http://127.0.0.1:1234")

    def test_what_only_looks_like_it(self) -> None:
        waiting = self.runner.url()
        self.machine.last.say(LISTENS, fd=2)
        self.machine.last.say(b"not listening on http://x\nlistening on http://x for now\n")
        self.assertNoResult(waiting)

    def test_who_waits_no_longer_is_not_told(self) -> None:
        waiting, other = self.runner.url(), self.runner.url()
        waiting.cancel()
        self.failureResultOf(waiting)
        self.machine.last.say(LISTENS)
        self.successResultOf(other)

    def test_after_a_crash_it_is_waited_for_again(self) -> None:
        self.machine.last.say(LISTENS)
        self.machine.last.end(1)
        waiting = self.runner.url()
        self.machine.advance(0.5)
        self.assertNoResult(waiting)
        self.machine.last.say(LISTENS.replace(b"1234", b"1235"))
        self.assertEqual(self.successResultOf(waiting), "http://127.0.0.1:1235")

    def test_after_a_refusal_it_is_waited_for_before_its_end_is_known(self) -> None:
        self.machine.last.say(LISTENS)
        self.assertTrue(self.runner.refused("http://127.0.0.1:1234"))
        waiting = self.runner.url()
        self.machine.last.end(1)
        self.machine.advance(0.5)
        self.assertNoResult(waiting)
        self.machine.last.say(LISTENS.replace(b"1234", b"1235"))
        self.assertEqual(self.successResultOf(waiting), "http://127.0.0.1:1235")


class RestartTests(EmbeddedCase):
    def crash(self, after: float) -> float:
        """Run and crash. Returns the seconds until the process is started again."""
        count = len(self.machine.processes)
        self.machine.last.say(LISTENS)
        self.machine.advance(after)
        self.machine.last.end(1)
        waited = 0.0
        while len(self.machine.processes) == count:
            self.machine.advance(0.125)
            waited += 0.125
        return waited

    def test_the_delay_doubles_up_to_its_limit(self) -> None:
        delays = [self.crash(after=0.0) for _ in range(9)]
        self.assertEqual(delays, [0.5, 1, 2, 4, 8, 16, 30, 30, 30])

    def test_a_stable_run_makes_it_short_again(self) -> None:
        delays = [self.crash(after) for after in (0, 0, 0, 29, 31, 0)]
        self.assertEqual(delays, [0.5, 1, 2, 4, 0.5, 1])

    def test_its_end_is_logged_with_the_delay(self) -> None:
        with logged() as said:
            self.machine.last.end(3)
        self.assertEqual(
            said,
            [
                "embedded runner ended (A process has ended with a probable error condition:"
                " process ended with exit code 3.), starts again in 0.5 s"
            ],
        )

    def test_exit_status_0_is_no_reason_to_stay_away(self) -> None:
        with logged() as said:
            self.machine.last.end(0)
        self.assertEqual(said, ["embedded runner ended (exit status 0), starts again in 0.5 s"])
        self.machine.advance(0.5)
        self.assertEqual(len(self.machine.processes), 2)

    def test_one_that_never_listens_is_ended_and_started_again(self) -> None:
        self.machine.advance(59.9)
        self.assertEqual(self.machine.last.signals, [])
        with logged() as said:
            self.machine.advance(0.2)
        self.assertEqual(self.machine.last.signals, ["KILL"])
        self.assertEqual(said, ["embedded runner is not ready after 60 s and is killed"])
        self.machine.last.end(9)
        self.machine.advance(0.5)
        self.assertEqual(len(self.machine.processes), 2)

    def test_one_that_listens_is_left_alone(self) -> None:
        self.machine.last.say(LISTENS)
        self.machine.advance(3600)
        self.assertEqual(self.machine.last.signals, [])
        self.assertEqual(self.machine.getDelayedCalls(), [])


class StopTests(EmbeddedCase):
    def test_its_input_is_closed_and_that_is_all(self) -> None:
        self.machine.last.say(LISTENS)
        stopping = self.runner.stop()
        self.assertEqual(self.machine.last.signals, ["EOF"])
        self.assertNoResult(stopping)
        self.machine.last.end(0)
        self.successResultOf(stopping)
        self.machine.advance(100)
        self.assertEqual((len(self.machine.processes), self.machine.getDelayedCalls()), (1, []))

    def test_one_that_does_not_listen_yet_is_killed(self) -> None:
        stopping = self.runner.stop()
        self.assertEqual(self.machine.last.signals, ["KILL"])
        self.machine.last.end(9)
        self.successResultOf(stopping)

    def test_sigkill_for_one_that_does_not_obey(self) -> None:
        self.machine.last.say(LISTENS)
        stopping = self.runner.stop()
        self.assertIs(self.runner.stop(), stopping)
        self.machine.advance(7.9)
        self.assertEqual(self.machine.last.signals, ["EOF"])
        self.machine.advance(0.2)
        self.assertEqual(self.machine.last.signals, ["EOF", "KILL"])
        self.machine.last.end(9)
        self.successResultOf(stopping)

    def test_before_it_is_started_again(self) -> None:
        self.machine.last.end(1)
        self.successResultOf(self.runner.stop())
        self.machine.advance(100)
        self.assertEqual((len(self.machine.processes), self.machine.getDelayedCalls()), (1, []))

    def test_a_child_of_its_own_that_holds_the_pipes_does_not_hold_us(self) -> None:
        stopping = self.runner.stop()
        self.machine.last.end(0, pipes=False)
        self.machine.advance(LAST_WORDS - 0.1)
        self.assertNoResult(stopping)
        self.machine.advance(0.2)
        self.successResultOf(stopping)
        self.assertEqual(self.machine.getDelayedCalls(), [])


class LineTests(EmbeddedCase):
    def said(self, *pieces: bytes, fd: int = 1) -> list[str]:
        with logged() as said:
            for piece in pieces:
                self.machine.last.say(piece, fd)
        return said

    def test_each_line_once_whole(self) -> None:
        self.assertEqual(
            self.said(b"one\ntw", b"o\r\n\n", b"   \nthr", b"ee\n"),
            ["runner: one", "runner: two", "runner: three"],
        )

    def test_the_two_streams_are_not_mixed_up(self) -> None:
        self.said(b"out")
        self.assertEqual(self.said(b"err\n", fd=2), ["runner: err"])
        self.assertEqual(self.said(b"put\n"), ["runner: output"])

    def test_what_is_no_text(self) -> None:
        self.assertEqual(self.said(b"\xff{x}\n"), ["runner: \N{REPLACEMENT CHARACTER}{x}"])

    def test_control_characters_are_escaped(self) -> None:
        self.assertEqual(self.said(b"a\x1b[2Jb\x00\n"), [r"runner: a\x1b[2Jb\x00"])

    def test_a_line_without_an_end_does_not_grow_without_end(self) -> None:
        said = self.said(*[b"x" * 1000] * 100)
        self.assertLessEqual(max(map(len, said)), LONGEST_LINE + 1100)
        self.assertGreaterEqual(sum(map(len, said)), 90_000)

    def test_last_words(self) -> None:
        self.machine.last.say(b"Segmentation fault", fd=2)
        with logged() as said:
            self.machine.last.end(11)
        self.assertEqual(said[0], "runner: Segmentation fault")


class ExtraTests(SynchronousTestCase):
    def test_installed(self) -> None:
        module = ModuleType("pipecat")
        module.__spec__ = ModuleSpec("pipecat", None)
        with mock.patch.dict(sys.modules, pipecat=module):
            self.assertEqual(missing_extra(), "")

    def test_missing_it_names_both_ways_out(self) -> None:
        with mock.patch.dict(sys.modules, pipecat=None):
            said = missing_extra()
        for way in ('pip install ".[bot]"', "[runner] mode and url"):
            self.assertIn(way, said)


class SupervisedTests(EmbeddedCase):
    """Functions that only workers need, not the embedded runner."""

    def test_one_that_was_seen_to_end_and_does_not_is_killed(self) -> None:
        self.machine.last.say(LISTENS)
        self.runner._process.expect_exit()
        self.machine.advance(7.9)
        self.assertEqual(self.machine.last.signals, [])
        self.machine.advance(0.2)
        self.assertEqual(self.machine.last.signals, ["KILL"])
        self.machine.last.end(9)
        self.machine.advance(0.5)
        self.assertEqual(len(self.machine.processes), 2)

    def test_one_that_does_is_not(self) -> None:
        self.runner._process.expect_exit()
        self.machine.last.end(0)
        self.machine.advance(10.0)
        self.assertEqual([process.signals for process in self.machine.processes], [[], []])

    def test_it_can_be_told_to_end_in_another_way(self) -> None:
        told: list[str] = []
        stopping = self.runner._process.stop(lambda: told.append("end"))
        self.assertEqual((told, self.machine.last.signals), (["end"], []))
        self.machine.advance(8.1)
        self.assertEqual(self.machine.last.signals, ["KILL"])
        self.machine.last.end(9)
        self.successResultOf(stopping)
