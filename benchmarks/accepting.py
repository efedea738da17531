"""How connections spread over two processes: `python -m benchmarks.accepting`.

The kernel has three ways to share one port, and calls stay with their process. `reuseport`: each
process has a listening socket (SO_REUSEPORT). `shared`: both processes wait for one socket, with
epoll as Twisted uses it. `exclusive`: both processes wait for one socket with EPOLLEXCLUSIVE. The
fourth way, that of `[service] workers`, spreads evenly and is not measured: the supervisor accepts,
and gives each call to the process with the fewest calls.

A process is idle, or works for 40 us per call every 20 ms. A futile wakeup found no connection.
"""

from __future__ import annotations

import multiprocessing
import random
import select
import socket
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

PROCESSES = 2
REPEATS = 5
GAP = 0.01
"""Mean seconds between calls."""

FRAME = 0.02
BUSY = 40e-6
"""Processor seconds for each call, every 20 ms, if the processes are busy."""


class Counts(NamedTuple):
    """Counts of one process: calls, wakeups for the port, and wakeups that found no call."""

    calls: int
    wakeups: int
    futile: int


def serve(pipe: Connection, port: int, shared: socket.socket | None, how: str, busy: float) -> None:
    """Run one process: accept until a message comes on the pipe, and answer with the counts."""
    listening = shared or bound(port)
    listening.listen(1024)
    listening.setblocking(False)
    poll = select.epoll()
    exclusive = select.EPOLLEXCLUSIVE if how == "exclusive" else 0
    poll.register(listening.fileno(), select.EPOLLIN | exclusive)
    poll.register(pipe.fileno(), select.EPOLLIN)
    pipe.send("ready")
    calls: list[socket.socket] = []
    wakeups = futile = 0
    due = time.monotonic()
    while True:
        ready = poll.poll(max(0.0, due - time.monotonic()) if busy else -1)
        if any(descriptor == pipe.fileno() for descriptor, _ in ready):
            pipe.send(Counts(len(calls), wakeups, futile))
            return
        if ready:
            before = len(calls)
            accept(listening, calls)
            wakeups += 1
            futile += len(calls) == before
        if busy and time.monotonic() >= due:
            end = time.process_time() + busy * len(calls)
            while time.process_time() < end:
                pass
            due = max(due + FRAME, time.monotonic())


def bound(port: int) -> socket.socket:
    """A socket on a port of the loopback interface. Other sockets may share the port."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def accept(listening: socket.socket, calls: list[socket.socket]) -> None:
    """Accept all connections that wait."""
    while True:
        try:
            calls.append(listening.accept()[0])
        except BlockingIOError:
            return


def spread(how: str, count: int, busy: float) -> list[Counts]:
    """Place `count` calls. Returns the counts of each process."""
    first = bound(0)  # with SO_REUSEPORT it only reserves the port, and must not listen
    port = first.getsockname()[1]
    shared = None if how == "reuseport" else first
    sides = []
    for _ in range(PROCESSES):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=serve, args=(theirs, port, shared, how, busy))
        process.start()
        ours.recv()
        sides.append((ours, process))
    first.close()
    calls = []
    for _ in range(count):
        calls.append(socket.create_connection(("127.0.0.1", port)))
        time.sleep(random.expovariate(1 / GAP))
    time.sleep(0.2)
    counts = []
    for ours, process in sides:
        ours.send("end")
        counts.append(ours.recv())
        process.join()
    for call in calls:
        call.close()
    return counts


def main() -> None:
    """Print a table."""
    print("| way | calls | processes | on each process, by run | futile wakeups |")
    print("|---" * 5 + "|")
    for how in ("reuseport", "shared", "exclusive"):
        for count, busy in ((20, 0.0), (100, 0.0), (100, BUSY)):
            runs = [spread(how, count, busy) for _ in range(REPEATS)]
            each = ", ".join(" + ".join(str(one.calls) for one in run) for run in runs)
            wakeups = sum(one.wakeups for run in runs for one in run)
            futile = sum(one.futile for run in runs for one in run) / wakeups
            state = "busy" if busy else "idle"
            print(f"| {how} | {count} | {state} | {each} | {futile:.0%} |", flush=True)


if __name__ == "__main__":
    main()
