"""The process of a worker.

    python -m pipecat_bridge.workers

It is started by `pipecat_bridge.workers`, with its setup on standard input and its log, as JSON, on
standard output. It ends when its supervisor says so or has ended; signals are the supervisor's.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from importlib import import_module
from typing import Any, Final

import msgspec
from twisted.logger import globalLogBeginner

from pipecat_bridge.net.descriptors import raise_limit
from pipecat_bridge.net.reactor import keep_time, poll_in_batches
from pipecat_bridge.service import tune_collector
from pipecat_bridge.workers import commands
from pipecat_bridge.workers.bridge import WorkerBridge
from pipecat_bridge.workers.control import WorkerControl
from pipecat_bridge.workers.lines import LineWriter
from pipecat_bridge.workers.setup import Setup

LAST_SECONDS: Final = 10.0
"""Within which a worker that has lost its supervisor has ended, whatever it is at."""


def main() -> None:
    """Run until told to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    setup = msgspec.json.decode(sys.stdin.buffer.read(), type=Setup)
    raise_limit()
    globalLogBeginner.beginLoggingTo([LineWriter(sys.stdout)], redirectStandardIO=False)
    end_with_peer(commands.CONTROL_FD, LAST_SECONDS)
    import_module(setup.reactor).install()
    from twisted.internet import reactor

    run(reactor, setup)


def end_with_peer(descriptor: int, seconds: float) -> None:
    """When the other end of a socket is closed, end this process after `seconds`, even if it hangs.

    A thread waits for it, as the reactor of a process that hangs does not.
    """
    closed = select.poll()
    closed.register(os.dup(descriptor), select.POLLRDHUP)

    def wait() -> None:
        closed.poll()
        time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run(reactor: Any, setup: Setup) -> None:
    """A worker on a reactor that does not run yet."""
    keep_time(reactor)
    poll_in_batches(reactor, setup.options.service.poll_interval)
    bots = socket.socket(fileno=commands.BOTS_FD) if setup.listens else None
    bridge = WorkerBridge(reactor, setup, bots)
    control = WorkerControl(reactor, bridge, setup.proxied)
    reactor.addSystemEventTrigger("before", "shutdown", bridge.stopService)
    reactor.callWhenRunning(tune_collector)
    reactor.callWhenRunning(control.connect, commands.CONTROL_FD)
    bridge.startService()
    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
