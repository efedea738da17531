"""Requests to workers that do not answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.config.load import load_options
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.rate_limit import BURST
from pipecat_bridge.workers.api import WorkersApi
from pipecat_bridge.workers.client import MERGED_TIMEOUT, TIMEOUT, WorkerError, ask
from pipecat_bridge.workers.own_metrics import own_registry
from pipecat_bridge.workers.switchboard import Switchboard


class Reactor(MemoryReactorClock):
    """Its adopted connections lead nowhere."""

    def adoptStreamConnection(self, fileno: int, family: int, factory: IProtocolFactory) -> None:
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())


class Still:
    """A worker that takes a request and does not answer."""

    number = 2
    restarts = 0
    ready = True

    def serve_api(self, sock: Any) -> Deferred[Any]:
        return Deferred()


class NoAnswerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        self.worker: Any = Still()

    def ask(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(ask(self.reactor, self.worker, b"GET", b"/"))

    def test_the_sentence(self) -> None:
        asking = self.ask()
        self.reactor.advance(TIMEOUT)
        error = self.failureResultOf(asking, WorkerError).value
        self.assertEqual(str(error), "worker 2 does not answer")

    def test_one_that_has_ended_meanwhile(self) -> None:
        asking = self.ask()
        self.worker.ready = False
        self.reactor.advance(TIMEOUT)
        error = self.failureResultOf(asking, WorkerError).value
        self.assertEqual(str(error), "worker 2 has ended")


class MergedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = Reactor()
        options = load_options()
        board: Any = Switchboard(self.reactor, options, lambda *_: Deferred())
        board.workers = [Still()]
        descriptors = Descriptors(self.reactor)
        own = own_registry(board, descriptors, None, tuple)
        self.api = WorkersApi(self.reactor, board, descriptors, options, own)

    def answer_to(self, path: bytes) -> Deferred[Any]:
        """The answer, when the workers were asked for long enough."""
        request: Any = AskedRequest(path)
        answering = Deferred.fromCoroutine(self.api._answer(request))
        self.assertNoResult(answering)
        self.reactor.advance(MERGED_TIMEOUT)
        return answering

    def test_readyz_says_which(self) -> None:
        answer = self.successResultOf(self.answer_to(b"readyz"))
        self.assertEqual(answer.status, 503)
        self.assertIn(b"worker 2 does not answer", answer.body)

    def test_metrics_of_the_others(self) -> None:
        answer = self.successResultOf(self.answer_to(b"metrics"))
        self.assertEqual(answer.status, 200)
        self.assertIn(b"pipecat_bridge_workers 1.0", answer.body)

    def test_a_format_of_the_metrics_that_is_none(self) -> None:
        self.patch(AskedRequest, "accept", b"application/openmetrics-text;version=a")
        self.assertEqual(self.successResultOf(self.answer_to(b"metrics")).status, 200)

    def test_faults_without_end_are_told_a_few_times(self) -> None:
        request: Any = AskedRequest(b"metrics")
        for _ in range(100):
            answer = self.api._failed(Failure(ZeroDivisionError()), request)
            self.assertEqual(answer.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), BURST)

    def test_calls(self) -> None:
        error = self.failureResultOf(self.answer_to(b"v1/calls"), WorkerError).value
        self.assertEqual(str(error), "worker 2 does not answer")


class AskedRequest:
    """A GET."""

    method = b"GET"
    prepath: tuple[bytes, ...] = ()
    accept: bytes | None = None

    def __init__(self, path: bytes) -> None:
        self.uri = b"/" + path
        self.postpath = path.split(b"/")

    def getHeader(self, name: bytes) -> bytes | None:
        return self.accept if name == b"accept" else None
