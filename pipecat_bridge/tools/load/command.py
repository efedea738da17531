"""``pipecat-bridge load``: puts a load on a bridge, and measures cost and delay."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipecat_bridge.tools.load import plots, report
from pipecat_bridge.tools.load.bots import AGAIN
from pipecat_bridge.tools.load.bridge import BridgeStartError, MeasuredBridge, Remote, daemon
from pipecat_bridge.tools.load.busy import Busy
from pipecat_bridge.tools.load.callers import FRAME, Plan
from pipecat_bridge.tools.load.patterns import Pattern, repeated
from pipecat_bridge.tools.load.run import Course, run
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess, LoadProcessError

Address = Callable[[str], tuple[str, int]]


def add_arguments(parser: argparse.ArgumentParser, address: Address) -> None:
    """Add the arguments of this command. `address` parses HOST:PORT."""
    add = parser.add_argument
    for name, kind, least, default, metavar, text in _NUMBERS:
        add(name, type=_number(least, kind), default=default, metavar=metavar, help=text)
    add("--rate", type=int, default=8000, choices=[8000, 16000],
        help="samples per second on the phone lines (default: 8000)")  # fmt: skip
    add("--sockets", type=int, default=2, choices=[1, 2], help="WebSockets for a bot (default: 2)")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="settings",
        help="set an option of the daemon that this command starts; may be repeated")  # fmt: skip
    add("--address", type=address, metavar="HOST:PORT",
        help="address of a running daemon; its [runner] url must lead to --runner-port here"
        " (default: start a daemon and keep it on one processor)")  # fmt: skip
    add("--api", default="", metavar="URL", help="API of the running daemon, for CPU and memory")
    add("--runner-port", type=int, default=0, metavar="PORT",
        help="port of the runner that this command plays (default: any free port)")  # fmt: skip
    add("--runner-host", default="127.0.0.1", metavar="HOST",
        help="address on which this runner listens (default: 127.0.0.1)")  # fmt: skip
    add("--json", type=Path, metavar="FILE", help="file for all figures, as JSON")
    add("--plots", type=Path, metavar="FOLDER", help="folder for a picture of the figures")


_NUMBERS: tuple[tuple[str, type[float], float, float, str, str], ...] = (
    ("--calls", int, 1, 20, "N", "calls at once (default: 20)"),
    ("--duration", float, 0.5, 20.0, "S", "seconds measured (default: 20)"),
    ("--per-second", float, 0.1, 50.0, "N", "new calls each second (default: 50)"),
    ("--settle", float, 0, 3.0, "S", "seconds before the measurement (default: 3)"),
    ("--length", float, 0, 0.0, "S", "hang up each call after S seconds, place another; 0: never"),
    ("--stalled", int, 0, 0, "N", "number of bots that stop reading for 5 s, every 15 s"),
    ("--bursting", int, 0, 0, "N", "number of bots that send 10 s of audio at once, every 15 s"),
    ("--dying", int, 0, 0, "N", "number of bots that break off after one second of each call"),
    ("--chunk", float, 0, 0.04, "S", "seconds of audio in a message of a bot (default: 0.04, as"
     " Pipecat sends); 0: each bot sends back at once what it hears"),
    ("--jitter", float, 0, 0.0, "S", "mean delay of a bot's messages, exponentially distributed"),
    ("--stall", float, 0, 0.0, "S", "seconds without a message from a bot, every 15 s"),
    ("--spurt", float, 0.1, 4.0, "S", "seconds for which a bot speaks (default: 4)"),
    ("--pause", float, 0, 0.0, "S", "seconds of silence after that (default: 0, it never pauses)"),
    ("--phone-jitter", float, 0, 0.0, "S", "mean delay of a phone's frames"),
    ("--phone-stall", float, 0, 0.0, "S", "seconds without a frame from a phone, every 15 s"),
    ("--busy", float, 0, 0.0, "SHARE", "share of the bridge's processor that another program uses"),
    ("--nice", int, -20, 0, "N", "priority of the daemon that this command starts, -20 to 19"),
)  # fmt: skip


def _number(least: float, what: type[float] = float) -> Callable[[str], float]:
    """A parser for an argument: a number that is at least `least`."""

    def read(text: str) -> float:
        try:
            number = what(text)
        except ValueError:
            number = what(-1)
        if not least <= number < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least {least:g}")
        return number

    return read


def main(arguments: argparse.Namespace) -> int:
    """Run the command. Returns the exit status."""
    try:
        result = measure(arguments)
    except (BridgeStartError, LoadProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    print(report.table([result]))
    for remark in report.remarks(result):
        print(f"note: {remark}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report.for_json(result), indent=1))
    if arguments.plots:
        print(f"plots: {plots.draw([result], arguments.plots)}")
    return 0 if result["up"] else 1


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run."""
    bridge_cpu, cpu = (None, None) if arguments.address else processors()
    pattern = bot_pattern(arguments) if arguments.chunk else None
    runner = LoadProcess(
        Runner, arguments.runner_host, arguments.runner_port, arguments.sockets, pattern, cpu=cpu
    )
    busy = LoadProcess(Busy, arguments.busy, cpu=bridge_cpu) if arguments.busy else None
    try:
        port = runner.ask("port")
        with tempfile.TemporaryDirectory(prefix="pipecat-bridge-load-") as folder:
            bridge = _bridge(arguments, port, Path(folder) / "bridge.log", bridge_cpu)
            try:
                return run(bridge, runner, _plan(arguments, bridge), _course(arguments),
                           (bridge_cpu, cpu), _tell)  # fmt: skip
            finally:
                bridge.stop()
    finally:
        runner.end()
        if busy is not None:
            busy.end()


def bot_pattern(arguments: argparse.Namespace) -> Pattern:
    """How the bots send their audio."""
    stalls = repeated(arguments.stall, AGAIN, arguments.settle + arguments.duration + 60)
    return Pattern(arguments.chunk, 1.0, arguments.jitter, stalls, arguments.spurt, arguments.pause)


def processors() -> tuple[int | None, int | None]:
    """One processor for the bridge and one for the load; (None, None) if there are not two."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)


def _bridge(arguments: argparse.Namespace, port: int, log: Path, cpu: int | None) -> MeasuredBridge:
    if arguments.address:
        host, port = arguments.address
        return Remote(host, port, arguments.api)
    started = daemon(f"http://127.0.0.1:{port}", log, cpu, arguments.settings)
    if arguments.nice:
        os.setpriority(os.PRIO_PROCESS, started.pid, arguments.nice)
    started.wait()
    return started


def _plan(arguments: argparse.Namespace, bridge: MeasuredBridge) -> Plan:
    stalls = repeated(arguments.phone_stall, AGAIN, arguments.settle + arguments.duration + 60)
    pattern = Pattern(FRAME, 1.0, arguments.phone_jitter, stalls)
    return Plan(
        bridge.host, bridge.port, arguments.calls, arguments.per_second, arguments.rate,
        arguments.length, arguments.stalled, arguments.bursting, arguments.dying, pattern,
    )  # fmt: skip


def _course(arguments: argparse.Namespace) -> Course:
    return Course(arguments.duration, arguments.settle)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
