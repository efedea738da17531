"""The daemon's command line, its parts in memory, and its end within the deadlines."""

from __future__ import annotations

import gc
import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge import __version__, native, service
from pipecat_bridge.bridge import Bridge
from pipecat_bridge.config.load import load_options
from pipecat_bridge.net import process
from pipecat_bridge.net.daemon import STOP_GRACE
from pipecat_bridge.options import Options as BridgeOptions
from pipecat_bridge.service import Options, make_bridge, makeService
from tests.doubles.link import turn


class CommandLineTests(SynchronousTestCase):
    def parse(self, *arguments: str, **environment: str) -> Options:
        options = Options()
        with patch.dict(os.environ, environment):
            options.parseOptions(list(arguments))
        return options

    def ends(self, *arguments: str, **environment: str) -> tuple[Any, str]:
        """What the process would exit with, and its standard output."""
        out = io.StringIO()
        with redirect_stdout(out), self.assertRaises(SystemExit) as caught:
            self.parse(*arguments, **environment)
        return caught.exception.code, out.getvalue()

    def file(self, text: str) -> str:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "bridge.toml"
        path.write_text(text)
        return str(path)

    def test_nothing_given(self) -> None:
        with patch.dict(os.environ, clear=True):
            self.assertEqual(self.parse()["options"], BridgeOptions())

    def test_file_environment_and_command_line(self) -> None:
        path = self.file("[calls]\nmax_calls = 1\nkeep_ended = 1\nmax_duration = 1.0")
        environment = {
            "PIPECAT_BRIDGE_CALLS__MAX_CALLS": "2",
            "PIPECAT_BRIDGE_CALLS__KEEP_ENDED": "2",
        }
        for arguments in (
            ("--config", path, "--set", "calls.max_calls=3", "--set", "runner.mode=dialback"),
            ("-c", path, "-s", "calls.max_calls=3", "-s", "runner.mode=dialback"),
            (f"--config={path}", "--set=calls.max_calls=3", "--set=runner.mode=dialback"),
        ):
            options = self.parse(*arguments, **environment)["options"]
            calls = options.calls
            self.assertEqual((calls.max_calls, calls.keep_ended, calls.max_duration), (3, 2, 1.0))
            self.assertEqual(options.runner.mode, "dialback")

    def test_check(self) -> None:
        path = self.file("[calls]\nmax_calls = 1")
        self.assertEqual(self.ends("--config", path, "--check"), (0, f"{path}: good\n"))
        self.assertEqual(self.ends("--check"), (0, "configuration: good\n"))

    def test_version(self) -> None:
        self.assertEqual(self.ends("--version"), (0, f"pipecat-bridge {__version__}\n"))

    def test_faults(self) -> None:
        path = self.file("[calls]\nmax_call = 1\n[runner]\nmode = 'x'")
        for arguments in (("--config", path), ("--config", path, "--check")):
            code, out = self.ends(*arguments, PIPECAT_BRIDGE_API__LISTEN="x")
            self.assertEqual(out, "")
            first, second, third = str(code).splitlines()
            self.assertEqual(
                first, f"{path}: [calls] unknown key max_call (did you mean max_calls?)"
            )
            self.assertIn(f'{path}: [runner] mode = "x": expected one of', second)
            self.assertIn('environment PIPECAT_BRIDGE_API__LISTEN: [api] listen = "x"', third)

    def test_arguments_that_are_unknown(self) -> None:
        for arguments in (("--nonsense",), ("nonsense",), ("--config",)):
            with self.assertRaises(UsageError):
                self.parse(*arguments)

    def test_the_extra_that_is_missing(self) -> None:
        with (
            patch.object(service, "missing_extra", lambda: "install it"),
            self.assertRaises(SystemExit) as caught,
        ):
            makeService(self.parse(), MemoryReactorClock())
        self.assertEqual(caught.exception.code, "install it")
        with patch.object(service, "missing_extra", lambda: "install it"):
            makeService(self.parse("--set", "runner.mode=dialback"), MemoryReactorClock())


class Reactor(MemoryReactorClock):
    """One whose ports know where they listen; all are taken if `taken`."""

    taken = False

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        listening = super().listenTCP(port, factory, backlog, interface)
        kind = IPv6Address if ":" in interface else IPv4Address
        listening.getHost = lambda: kind("TCP", interface or "0.0.0.0", port)
        return listening


def bridge(*settings: str, reactor: Any = None) -> Bridge:
    """A daemon on a reactor in memory, not started."""
    reactor = reactor or Reactor()
    settings = ("runner.mode=dialback", "store.url=none", *settings)
    return make_bridge(load_options(overrides=settings), reactor, reactor.seconds)


class BuildTests(SynchronousTestCase):
    def test_building_starts_nothing(self) -> None:
        reactor = MemoryReactorClock()
        for mode in ("dialback", "embedded"):
            make_bridge(load_options(overrides=[f"runner.mode={mode}", "store.url=none"]), reactor)
        self.assertEqual((reactor.tcpServers, reactor.getDelayedCalls()), ([], []))
        self.assertEqual(reactor.whenRunningHooks, [])

    def test_the_ports(self) -> None:
        reactor = Reactor()
        it = bridge("api.listen=tcp:80:interface=127.0.0.3", reactor=reactor)
        it.privilegedStartService()
        it.startService()
        ports = {(port, interface) for port, _, _, interface in reactor.tcpServers}
        wanted = {(9092, "127.0.0.1"), (8001, "127.0.0.1"), (80, "127.0.0.3")}
        self.assertEqual((ports, len(reactor.tcpServers)), (wanted, 3))

    def test_where_runners_dial_back(self) -> None:
        for settings, url in (
            ((), "ws://127.0.0.1:8001"),
            (("runner.listen=tcp:7000:interface=10.0.0.1",), "ws://10.0.0.1:7000"),
            (("runner.listen=tcp:7000",), "ws://127.0.0.1:7000"),
            ((r"runner.listen=tcp:7000:interface=\:\:1",), "ws://[::1]:7000"),
            ((r"runner.listen=tcp:7000:interface=\:\:",), "ws://127.0.0.1:7000"),
            (("runner.dialback_url=wss://bots.example/x",), "wss://bots.example/x"),
        ):
            it = bridge(*settings)
            it.startService()
            self.assertEqual(it.runner.dialback_url(), url)

    def test_a_runner_elsewhere_that_cannot_dial_back_is_warned_of(self) -> None:
        for settings, warned in (
            (("runner.url=http://10.0.0.5:8000",), True),
            (("runner.url=http://runner.example",), True),
            (("runner.url=http://10.0.0.5:8000", "runner.dialback_url=ws://10.0.0.1:1"), False),
            (("runner.url=http://localhost:8000",), False),
            (("runner.url=http://127.0.0.9:8000",), False),
            (("runner.url=http://[::1]:8000",), False),
        ):
            it = bridge(*settings)
            with capturedLogs() as captured:
                it.startService()
            lines = [formatEvent(entry) for entry in captured]
            told = any("set [runner] dialback_url to a URL" in line for line in lines)
            self.assertEqual(told, warned, settings)
            self.assertTrue(any("AudioSocket on 127.0.0.1:9092" in line for line in lines))

    def test_a_port_that_is_taken(self) -> None:
        reactor = Reactor()
        reactor.taken = True
        for start in ("privilegedStartService", "startService"):
            with self.assertRaises(SystemExit) as caught:
                getattr(bridge(reactor=reactor), start)()
            self.assertIn("127.0.0.1:8001", str(caught.exception.code))
            self.assertIn("listen", str(caught.exception.code))


class StopTests(SynchronousTestCase):
    """Without calls; tests/e2e/test_drain.py has some."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.bridge = bridge("calls.drain_timeout=1", reactor=self.reactor)
        self.bridge.startService()

    def test_nothing_runs(self) -> None:
        stopped = self.bridge.stopService()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_twice(self) -> None:
        for _ in range(2):
            self.successResultOf(self.bridge.stopService())

    def test_what_never_goes_is_waited_for_within_the_grace_only(self) -> None:
        for tally in (self.bridge.phones.open, self.bridge.runner.bots.stopping):
            tally.enter()
            stopped = self.bridge.stopService()
            turn(self.reactor, STOP_GRACE - 0.1, 0.01)
            self.assertNoResult(stopped)
            turn(self.reactor, 0.2, 0.01)
            self.successResultOf(stopped)
        gc.collect()  # what nobody handled is logged when it is collected
        self.assertEqual(self.flushLoggedErrors(), [])


class CollectorTests(SynchronousTestCase):
    def test_it_is_tuned_once_the_daemon_runs(self) -> None:
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        process.tune_collector()
        self.assertEqual(gc.get_threshold(), process.COLLECTOR)
        self.assertGreater(gc.get_freeze_count(), 10_000)


class CompiledTests(SynchronousTestCase):
    def test_without_the_compiled_loops_it_says_how_to_get_them(self) -> None:
        for compiled in (True, False):
            self.patch(native, "COMPILED", compiled)
            self.patch(native, "MISSING", "No module named 'pipecat_bridge._native'")
            with capturedLogs() as captured:
                process.warn_if_not_compiled(Logger())
            said = [formatEvent(event) or "" for event in captured]
            self.assertEqual(len(said), 0 if compiled else 1)
        for words in ("C compiler", "--no-cache-dir", "No module named"):
            self.assertIn(words, said[0])
