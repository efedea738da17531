"""Ordinary calls on one core, and beside them one hostile peer after the other.

The peers are those of `make test-hostile`: each kind of bot that dials back, and each kind of
phone. Before each group of them the calls are measured alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, Final

from benchmarks.windows import Cpus, Load, Result
from pipecat_bridge.tools.load.bridge import daemon, free_ports
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess
from tests.hostile import bots, phones
from tests.hostile.line import SETTINGS, begin_attack
from tests.hostile.peer import HostilePeer, Ports
from tests.hostile.runner import Runner as HostileRunner

GROUP: Final = 10
SETTLE: Final = 1.0
"""Seconds after an attack, in which what was sent is worked off."""


class _BothRunners(HostileRunner):
    """The runner of ordinary bots while calls are set up, and then that of hostile ones."""

    def __init__(self, ordinary: LoadProcess[Runner]) -> None:
        self._ordinary: LoadProcess[Runner] | None = ordinary
        self._asking = Lock()  # each request has a thread
        super().__init__()

    def answer(self, target: str, body: bytes) -> Any:
        if self._ordinary is not None and target == "/run":
            with self._asking:
                status = self._ordinary.ask("answer", "POST", target, body)
            return {"status": "ok" if status == 200 else status}
        return super().answer(target, body)

    def all_up(self) -> None:
        """Bots that are asked for from now on are hostile."""
        self._ordinary = None


def measure(
    calls: int,
    seconds: float,
    every: int,
    folder: Path,
    cpus: Cpus,
    tell: Callable[[str], None],
) -> list[Result]:
    """`calls` calls, and each hostile peer for so many seconds; only one of `every` peers."""
    with ExitStack() as stack:
        ordinary = LoadProcess(Runner, "127.0.0.1", 0, 1, Pattern(), cpu=cpus[1])
        stack.callback(ordinary.end)
        runner = _BothRunners(ordinary)
        stack.callback(runner.server_close)
        stack.callback(runner.shutdown)
        dialback = free_ports(1)[0]
        listen = f"runner.listen=tcp:{dialback}:interface=127.0.0.1:backlog=1024"
        bridge = daemon(runner.url, folder / "hostile.log", cpus[0], [*SETTINGS, listen])
        stack.callback(bridge.stop)
        bridge.wait()
        plan = Plan(bridge.host, bridge.port, calls)
        callers = LoadProcess(Callers, plan, cpu=cpus[1])
        stack.callback(callers.end)
        tell(f"{calls} calls")
        callers.ask("dial")
        time.sleep(calls / 50 + 3.0)
        runner.all_up()
        ports = Ports(bridge.port, dialback, int(bridge.api.rpartition(":")[2]), runner.url)
        it = Load(bridge, ordinary, callers, plan)
        results = []
        for peer in _peers(every):
            tell(peer.name if peer else "alone")
            results.append(_window(peer, ports, seconds, it))
        return results


def _peers(every: int) -> Iterator[HostilePeer | None]:
    """The peers, and None where the calls are alone: before each group, and at the end."""
    dialled_back = [peer for peer in bots.PEERS if peer.mode == "dialback"]
    for number, peer in enumerate([*dialled_back, *phones.PEERS][::every]):
        if number % GROUP == 0:
            yield None
        yield peer
    yield None


def _window(peer: HostilePeer | None, ports: Ports, seconds: float, it: Load) -> Result:
    process = begin_attack(peer, seconds + 1.0, ports) if peer else None
    time.sleep(1.0)  # it has begun
    measured = it.window(seconds)
    if process is not None:
        process.communicate(timeout=seconds + 20.0)
        time.sleep(SETTLE)
    return {"peer": peer.name if peer else "", **measured}


def table(results: Sequence[Result]) -> str:
    """A table in Markdown. The rows of the calls alone are first, as one."""
    alone = [result for result in results if not result["peer"]]
    lines = [
        "| beside the calls | up | frames to the phones: distance from 20 ms, p99, ms | late frames"
        " | delay to the bot, p50 / p99, ms | processor, % of the core |",
        "|---" * 6 + "|",
        _row("nothing", alone),
    ]
    lines += [_row(result["peer"], [result]) for result in results if result["peer"]]
    return "\n".join(lines)


def _row(name: str, results: Sequence[Result]) -> str:
    def span(values: Sequence[float], digits: int) -> str:
        low, high = min(values), max(values)
        return f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} .. {high:.{digits}f}"

    delays = [span([result["to_bot_ms"][part] for result in results], 1) for part in ("p50", "p99")]
    cells = (
        name,
        span([result["up"] for result in results], 0),
        span([result["pace"]["deviation_ms"]["p99"] for result in results], 1),
        span([result["pace"]["late"] for result in results], 0),
        " / ".join(delays),
        span([result["cpu_percent"] for result in results], 0),
    )
    return f"| {' | '.join(cells)} |"
