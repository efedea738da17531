"""The command line: what it accepts, and how it reports errors."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge import __version__, cli
from pipecat_bridge.tools.phone import call
from pipecat_bridge.tools.phone.daemon import configuration, free_ports
from tests.unit.files import scratch

pytestmark = pytest.mark.tools


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = cli.main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


class CommandTests(SynchronousTestCase):
    def test_version(self) -> None:
        self.assertEqual(run("version"), (0, __version__ + "\n", ""))
        self.assertEqual(run("--version"), (0, f"pipecat-bridge {__version__}\n", ""))

    def test_help_names_every_command(self) -> None:
        status, out, _ = run("--help")
        self.assertEqual(status, 0)
        for command in cli.COMMANDS:
            self.assertIn(command.name, out)

    def test_no_command_is_an_error(self) -> None:
        status, _, err = run()
        self.assertEqual(status, 2)
        self.assertIn("COMMAND", err)

    def test_help_of_call_tells_the_statuses(self) -> None:
        status, out, _ = run("call", "--help")
        self.assertEqual(status, 0)
        self.assertIn("exit status: 0 when the bot was heard; 1 when", " ".join(out.split()))

    def test_call_passes_everything_on(self) -> None:
        taken: list[call.PlacedCall] = []
        identity = "00112233-4455-6677-8899-aabbccddeeff"
        words = f"call [::1]:7 --uuid {identity} --wav a.wav --out b.wav --rate 16000 --duration 3"
        with patch.object(call, "run", lambda options: taken.append(options) or 0):
            self.assertEqual(run(*words.split())[0], 0)
            self.assertEqual(run("call")[0], 0)
        self.assertEqual(
            taken[0],
            call.PlacedCall("::1", 7, UUID(identity), 16000, Path("a.wav"), Path("b.wav"), 3.0),
        )
        self.assertEqual(taken[1][:2], ("127.0.0.1", 9092))
        self.assertEqual(taken[1][3:], (8000, None, None, None))

    def test_bad_arguments(self) -> None:
        for words, message in (
            ("call 9092", "'9092' is not an address, expected HOST:PORT"),
            ("call host:0", "is not an address"),
            ("call http://127.0.0.1:9092", "is not an address"),
            ("call --duration never", "'never' is not a duration, expected seconds above 0"),
            ("call --duration -1", "is not a duration"),
            ("call --rate 8001", "8001"),
            ("call --uuid 12", "invalid UUID value: '12'"),
        ):
            with self.subTest(words=words):
                status, _, err = run(*words.split())
                self.assertEqual(status, 2)
                self.assertIn(message, err)

    def test_check(self) -> None:
        good, bad = scratch(self), scratch(self)
        good.write_text(configuration(free_ports(), Path("/nowhere")), "utf-8")
        bad.write_text("[runner]\nmode = 3\n", "utf-8")
        self.assertEqual(run("check", str(good)), (0, f"{good} is good\n", ""))
        status, out, err = run("check", str(bad))
        self.assertEqual((status, out), (1, ""))
        self.assertIn("mode", err)

    def test_check_reads_the_environment_as_the_daemon_does(self) -> None:
        path = scratch(self)
        path.write_text('[runner]\nurl = "nonsense"\n', "utf-8")
        with patch.dict(os.environ, PIPECAT_BRIDGE_RUNNER__URL="http://127.0.0.1:1"):
            self.assertEqual(run("check", str(path))[0], 0)
        path.write_text("", "utf-8")
        with patch.dict(os.environ, PIPECAT_BRIDGE_RUNNER_URL="http://127.0.0.1:1"):
            status, _, err = run("check", str(path))
        self.assertEqual(status, 1)
        self.assertIn("did you mean PIPECAT_BRIDGE_RUNNER__URL?", err)


class PortsTests(SynchronousTestCase):
    def test_three_different_ports(self) -> None:
        self.assertEqual(len(set(free_ports())), 3)
