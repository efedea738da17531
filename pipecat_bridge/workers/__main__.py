"""The process of a worker.

    python -m pipecat_bridge.workers

The supervisor starts it, writes its setup to standard input, and reads its log from standard
output, as JSON. The worker ends when the supervisor tells it to, or when the supervisor has ended.
It ignores SIGTERM, SIGINT and SIGHUP: the supervisor handles them.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from functools import partial
from importlib import import_module
from typing import Any, Final

import msgspec
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import globalLogBeginner

from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.asterisk.server import AudioSocketServer
from pipecat_bridge.bridge import Bridge
from pipecat_bridge.contracts import AnswerCall
from pipecat_bridge.events.events import Events
from pipecat_bridge.net.listener import HandedOver, Listen, Listener
from pipecat_bridge.net.process import set_up
from pipecat_bridge.records import Records
from pipecat_bridge.runner.pool.announced import AnnouncedAddress
from pipecat_bridge.store.scribe import Snapshot
from pipecat_bridge.workers import commands
from pipecat_bridge.workers.control import HandedPhones, WorkerControl
from pipecat_bridge.workers.lines import LineWriter, lost
from pipecat_bridge.workers.pipe import LinePipe
from pipecat_bridge.workers.setup import Setup

LAST_SECONDS: Final = 10.0
"""Seconds until a worker without a supervisor ends, even if it hangs."""

LAST_LINES: Final = 1.0
"""Seconds in which the supervisor must take the last lines of the log."""


def main() -> None:
    """Run the worker until it is told to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    setup = msgspec.json.decode(sys.stdin.buffer.read(), type=Setup)
    log = LinePipe(sys.stdout.fileno(), lost)
    globalLogBeginner.beginLoggingTo([LineWriter(log.write)], redirectStandardIO=False)
    end_with_peer(commands.CONTROL_FD, LAST_SECONDS)
    import_module(setup.reactor).install()
    from twisted.internet import reactor

    log.attach(reactor)
    run(reactor, setup)
    log.end(LAST_LINES)


def end_with_peer(descriptor: int, seconds: float) -> None:
    """End this process `seconds` after the peer has closed the socket `descriptor`.

    A thread waits for the close, because the reactor may hang.
    """
    closed = select.poll()
    closed.register(os.dup(descriptor), select.POLLRDHUP)

    def wait() -> None:
        closed.poll()
        time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _node(setup: Setup) -> str:
    return f"{setup.options.service.node or socket.gethostname()}/{setup.number}"


def _records(reactor: Any, setup: Setup, events: Events, snapshot: Snapshot) -> Records:
    part = str(setup.number)
    return Records(reactor, setup.options, os.environ, _node(setup), events, snapshot, part)


def run(reactor: Any, setup: Setup) -> None:
    """Build the worker, and run `reactor` until it ends."""
    set_up(reactor, setup.options.service.poll_interval)
    handed = HandedPhones(reactor, setup.proxied)
    address = AnnouncedAddress()

    def phones(answer: AnswerCall, clock: FrameClock) -> AudioSocketServer:
        return AudioSocketServer(
            reactor, setup.options, answer, clock, time.monotonic, handed.listen
        )

    bridge = Bridge(
        setup.options,
        reactor,
        phones,
        _inherited(reactor, setup) if setup.listens else HandedOver,
        HandedOver,
        runner_address=address,
        handles_signals=False,
        make_records=partial(_records, reactor, setup),
    )
    control = WorkerControl(reactor, bridge, handed, address)
    reactor.addSystemEventTrigger("before", "shutdown", bridge.stopService)
    reactor.callWhenRunning(control.connect, commands.CONTROL_FD)
    bridge.startService()
    reactor.run(installSignalHandlers=False)


def _inherited(reactor: Any, setup: Setup) -> Listen:
    """Makes the port for the bots of this worker, from the socket that the supervisor has bound."""

    def listen(factory: IProtocolFactory) -> Listener:
        bots = socket.socket(fileno=commands.BOTS_FD)
        family = bots.family
        endpoint = AdoptedStreamServerEndpoint(reactor, bots.detach(), family)
        return Listener(reactor, setup.options.runner.listen, factory, endpoint)

    return listen


if __name__ == "__main__":
    main()
