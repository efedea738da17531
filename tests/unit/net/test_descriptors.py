"""What the bridge does if no file descriptor is left, and whom it blames."""

from __future__ import annotations

import errno
import resource
from typing import Any

from twisted.internet.error import ConnectBindError, ConnectionDone, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.testing import MemoryReactor
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.net.descriptors import EPISODE, Descriptors, limit, raise_limit


class NoneLeft:
    """A listening socket of a process without descriptors."""

    def __init__(self, error: int) -> None:
        self.error = error

    def accept(self) -> None:
        raise OSError(self.error, "")


class LimitTests(SynchronousTestCase):
    def test_the_soft_limit_is_raised_to_the_hard_one(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        self.assertEqual(limit(), 512)
        self.assertEqual(raise_limit(), hard)
        self.assertEqual(limit(), hard)


class DescriptorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.descriptors = Descriptors(self.clock)
        self.descriptors.startService()
        self.addCleanup(self.descriptors.stopService)

    def test_an_episode_is_one_line(self) -> None:
        with capturedLogs() as captured:
            for _ in range(3):
                self.descriptors.wanted()
                self.clock.advance(EPISODE - 0.1)
                self.assertTrue(self.descriptors.none_left)
            self.clock.advance(0.2)
            self.assertFalse(self.descriptors.none_left)
            self.descriptors.wanted()
        self.assertEqual(self.descriptors.exhausted, 4)
        lines = [formatEvent(event) for event in captured]
        self.assertEqual(len(lines), 2)
        self.assertIn(f"no file descriptors are left of {limit()}", lines[0])

    def test_a_port_that_cannot_accept(self) -> None:
        """Twisted reports a failed accept only in the log."""
        for error in (errno.EMFILE, errno.ENFILE):
            port: Any = Port(0, Factory(), interface="127.0.0.1", reactor=MemoryReactor())
            port.startListening()
            self.addCleanup(port.connectionLost, Failure(ConnectionDone()))
            real, port.socket = port.socket, NoneLeft(error)
            before = self.descriptors.exhausted
            port.doRead()
            port.socket = real
            self.assertGreater(self.descriptors.exhausted, before, errno.errorcode[error])

    def test_what_twisted_says_of_it(self) -> None:
        log = Logger(namespace="twisted.internet.tcp.Port")
        log.info("EMFILE encountered; releasing reserved file descriptor.")
        log.info("Could not accept new connection ({acceptError})", acceptError="ENFILE")
        self.assertEqual(self.descriptors.exhausted, 2)
        log.info("Could not accept new connection ({acceptError})", acceptError="ECONNABORTED")
        log.info("EMFILE recovery: Closed socket from {address}", address="x")
        Logger(namespace="other").info("EMFILE encountered;")
        self.assertEqual(self.descriptors.exhausted, 2)

    def test_the_cause_of_a_connection_that_failed(self) -> None:
        self.assertTrue(self.descriptors.is_cause(ConnectBindError(errno.EMFILE, "")))
        self.assertTrue(self.descriptors.is_cause(ConnectBindError(errno.ENFILE, "")))
        self.assertEqual(self.descriptors.exhausted, 2)
        for other in (Refused(), ConnectBindError(errno.EADDRINUSE, ""), DNSLookupError("x")):
            self.assertFalse(self.descriptors.is_cause(other), other)
        self.assertEqual(self.descriptors.exhausted, 2)
