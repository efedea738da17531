"""Shows whether the daemon keeps memory or descriptors, in many short calls or in long ones.

All is kept and told of each call: record, recording, events in a file and to a webhook.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from pipecat_bridge.tools.load.bridge import Started, daemon
from pipecat_bridge.tools.load.callers import Callers, Plan
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.tools.load.runner import Runner
from pipecat_bridge.tools.load.worker import LoadProcess

AT_ONCE = 50
LENGTH = 0.5
"""Seconds that a call lasts, with its set-up."""

SAMPLES = 40

SECRET = "whsec_" + "AAAA" * 8

Row = dict[str, float]


class _Receiver(BaseHTTPRequestHandler):
    """Takes what a webhook is told."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing is printed."""


@contextmanager
def _receiver() -> Iterator[str]:
    """The URL of a receiver of events."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def _keeping(folder: Path, hook: str) -> tuple[str, ...]:
    """Options of a daemon that keeps and tells everything."""
    return (
        "recording.when=always",
        "recording.format=wav",
        "recording.max_bytes=100000000",
        f"store.events_file={folder}/churn-events",
        f'webhooks.hooks=[{{name = "churn", url = "{hook}", secrets = ["{SECRET}"]}}]',
    )


def measure(
    calls: int, folder: Path, cpus: tuple[int | None, int | None], report: Callable[[str], None]
) -> dict[str, Any]:
    """Place `calls` calls. Returns memory, blocks and descriptors of the daemon over time."""
    report(f"{calls} calls of {LENGTH:g} s, {AT_ONCE} at once")

    def short(callers: LoadProcess[Callers], row: Callable[[], Row]) -> Iterator[Row]:
        done = samples = 0
        while done < calls:
            time.sleep(1.0)
            done = callers.ask("status").get("dialled", 0)
            if done >= (samples + 1) * calls / SAMPLES:
                samples += 1
                yield row()

    rows = _watch(AT_ONCE, LENGTH, folder, cpus, short)
    return {"calls": calls, "rows": rows}


def talk(
    calls: int,
    seconds: float,
    folder: Path,
    cpus: tuple[int | None, int | None],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Let `calls` calls talk for `seconds`. Returns the same."""
    report(f"{calls} calls that talk for {seconds / 60:g} minutes")

    def long(callers: LoadProcess[Callers], row: Callable[[], Row]) -> Iterator[Row]:
        for _ in range(SAMPLES):
            time.sleep(seconds / SAMPLES)
            yield row()

    return {"calls": calls, "rows": _watch(calls, 0.0, folder, cpus, long)}


def _watch(
    at_once: int,
    length: float,
    folder: Path,
    cpus: tuple[int | None, int | None],
    rows: Callable[[LoadProcess[Callers], Callable[[], Row]], Iterator[Row]],
) -> list[Row]:
    """A row before the calls, those of `rows`, and one after the end of all calls."""
    with ExitStack() as stack:
        hook = stack.enter_context(_receiver())
        runner = LoadProcess(Runner, "127.0.0.1", 0, 2, Pattern(), cpu=cpus[1])
        stack.callback(runner.end)
        url = f"http://127.0.0.1:{runner.ask('port')}"
        bridge = daemon(url, folder / "churn.log", cpus[0], _keeping(folder, hook))
        stack.callback(bridge.stop)
        bridge.wait()
        plan = Plan(bridge.host, bridge.port, at_once, length=length)
        callers = LoadProcess(Callers, plan, cpu=cpus[1])
        stack.callback(callers.end)
        began = time.monotonic()

        def row() -> Row:
            return _row(callers.ask("status").get("dialled", 0), began, bridge)

        all_rows = [row()]
        callers.ask("dial")
        all_rows += rows(callers, row)
        callers.ask("hang_up")
        time.sleep(2.0)
        return [*all_rows, row()]


def _row(done: int, began: float, bridge: Started) -> Row:
    reading, metrics = bridge.read(), bridge.metrics()
    return {
        "minutes": round((reading.time - began) / 60, 1),
        "calls": done,
        "rss_mb": round(reading.rss / 1e6, 2),
        "descriptors": reading.descriptors,
        "blocks": metrics.get("pipecat_bridge_memory_blocks", 0.0),
        "ended": metrics.get("pipecat_bridge_calls_ended_total", 0.0),
        "waiting": metrics.get("pipecat_bridge_store_waiting", 0.0),
        "told": metrics.get("pipecat_bridge_webhook_attempts_total", 0.0),
    }


def table(result: dict[str, Any]) -> str:
    """A table in Markdown, with about ten of the rows."""
    rows = result["rows"]
    some = rows[:: max(1, len(rows) // 10)]
    if some[-1] is not rows[-1]:
        some.append(rows[-1])
    lines = [
        "| minutes | calls placed | ended | memory, MB | blocks | descriptors"
        " | entries that wait for the database | requests to the webhook |",
        "|---" * 8 + "|",
    ]
    lines += [
        f"| {row['minutes']:.0f} | {row['calls']:.0f} | {row['ended']:.0f} | {row['rss_mb']:.1f}"
        f" | {row['blocks']:.0f} | {row['descriptors']:.0f} | {row['waiting']:.0f}"
        f" | {row['told']:.0f} |"
        for row in some
    ]
    return "\n".join(lines)
