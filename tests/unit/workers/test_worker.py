"""A worker in the supervisor: a process that stands still. tests/e2e has real processes."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.config.load import load_options
from pipecat_bridge.workers.heartbeat import INTERVAL, MISSED
from pipecat_bridge.workers.setup import Setup
from pipecat_bridge.workers.worker import Worker


class Process:
    """What `spawnProcess` returns."""

    pid = 4711

    def __init__(self) -> None:
        self.signals: list[str] = []

    def write(self, data: bytes) -> None:
        pass

    def closeStdin(self) -> None:
        pass

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)


class Transport(StringTransport):
    """The supervisor's end of the pair of sockets. Descriptors are not really sent."""

    def abortConnection(self) -> None:
        super().abortConnection()
        self.control.connectionLost()

    def sendFileDescriptor(self, fileno: int) -> None:
        pass

    control: Any = None


class Reactor(MemoryReactorClock):
    def __init__(self) -> None:
        super().__init__()
        self.process = Process()
        self.transport = Transport()

    def spawnProcess(self, protocol: Any, *_: Any, **__: Any) -> Any:
        protocol.transport = self.process
        return self.process

    def adoptStreamConnection(self, fileno: int, family: int, factory: Any) -> None:
        self.transport.control = factory.buildProtocol(None)
        self.transport.control.makeConnection(self.transport)


class SilentWorkerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        self.told: list[str] = []
        setup = Setup(1, load_options(), "", listens=False, proxied=False)
        self.worker = Worker(self.reactor, setup, None, self)
        self.worker.start()
        self.worker.became_ready()

    def worker_ready(self, worker: Worker) -> None:
        self.told.append("ready")

    def worker_lost(self, worker: Worker) -> None:
        self.told.append("lost")

    def call_ended(self, phone: int) -> None:
        pass

    def answer(self) -> None:
        """Answer all commands that were sent."""
        sent = self.reactor.transport.value()
        self.reactor.transport.clear()
        for box in amp.parseString(sent):
            answer = amp.AmpBox({amp.ANSWER: box[amp.ASK]})
            self.reactor.transport.control.dataReceived(answer.serialize())

    def test_one_that_answers_stays(self) -> None:
        for _ in range(3 * MISSED):
            self.answer()
            self.reactor.advance(INTERVAL)
        self.assertEqual((self.told, self.reactor.process.signals), (["ready"], []))

    def test_it_is_killed_and_its_phones_fail(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            taking: Deferred[bool] = self.worker.take_phone(ours, 1, b"", 0)
        self.reactor.pump([INTERVAL] * MISSED)
        self.failureResultOf(taking)
        self.assertEqual((self.told, self.worker.ready), (["ready", "lost"], False))
        self.assertEqual(self.reactor.process.signals, ["KILL"])
