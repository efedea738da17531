"""What is noticed when no file descriptor is left, and on whom it is blamed."""

from __future__ import annotations

import errno
import resource

from twisted.internet.error import ConnectBindError, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.descriptors import EPISODE, Descriptors, limit, raise_limit


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

    def test_what_twisted_says_when_it_cannot_accept(self) -> None:
        log = Logger(namespace="twisted.internet.tcp")
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
