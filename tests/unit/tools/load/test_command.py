"""`pipecat-bridge load` as a user runs it: it starts a daemon, or uses one that does not run."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load.bridge import BridgeStartError, scrape
from pipecat_bridge.tools.load.command import add_arguments

pytestmark = pytest.mark.tools


def load(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipecat_bridge.cli", "load", *words]
    root = Path(__file__).resolve().parents[4]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=root, env={**os.environ}
    )


class LoadTests(SynchronousTestCase):
    def test_calls_through_a_daemon_and_what_they_cost(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.json"
            words = ["--calls", "3", "--duration", "1.5", "--settle", "0.5", "--json", str(path)]
            done = load(*words, "--dying", "1")
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(path.read_text())
        self.assertIn("| CPU per call, % of a core", done.stdout)
        # Two calls stay, and marks come each 0.2 s; the third begins anew each second.
        self.assertGreater(result["marks"]["to_bot"], 10)
        self.assertGreater(result["marks"]["to_caller"], 10)
        self.assertGreater(result["cpu_percent"], 0)
        self.assertGreater(result["rss_mb"]["load"], 10)
        self.assertGreater(result["gc"]["pauses"], -1)
        self.assertIn("ended: ended by the bridge with an error", result["ended"])

    def test_bots_and_phones_that_are_not_ideal_and_a_busy_core(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.json"
            words = ["--calls", "2", "--duration", "2", "--settle", "0.5", "--json", str(path)]
            words += ["--chunk", "0.06", "--jitter", "0.01", "--spurt", "1", "--pause", "0.5"]
            words += ["--phone-jitter", "0.005", "--busy", "0.3", "--nice", "1"]
            done = load(*words)
            self.assertEqual(done.returncode, 0, done.stderr)
            result = json.loads(path.read_text())
        self.assertEqual(result["up"], 2)
        self.assertEqual(result["plan"]["pattern"][:3], [0.02, 1.0, 0.005])
        # Of 20 marks in two seconds, those in a bot's pauses are not said.
        for direction in ("to_bot", "to_caller"):
            self.assertTrue(5 < result["marks"][direction] < 18, result["marks"])

    def test_the_bridge_does_not_start(self) -> None:
        done = load("--calls", "1", "--set", "calls.max_calls=many")
        self.assertEqual(done.returncode, 1)
        self.assertIn("the bridge did not start", done.stderr)
        self.assertIn("max_calls", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = load("--runner-port", str(taken.getsockname()[1]))
        self.assertEqual(done.returncode, 1)
        self.assertIn("in use", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_an_api_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
        with self.assertRaisesRegex(BridgeStartError, f"{port}/metrics"):
            scrape(f"http://127.0.0.1:{port}")


class ArgumentTests(SynchronousTestCase):
    def test_numbers_that_cannot_be(self) -> None:
        parser = argparse.ArgumentParser(prog="load")
        add_arguments(parser, lambda text: (text, 1))
        for words in (["--calls", "0"], ["--calls", "x"], ["--duration", "0"],
                      ["--per-second", "0"], ["--stalled", "-1"], ["--length", "inf"]):  # fmt: skip
            with self.subTest(words=words), contextlib.redirect_stderr(io.StringIO()) as said:
                self.assertRaises(SystemExit, parser.parse_args, words)
                self.assertIn("expected a number", said.getvalue())
