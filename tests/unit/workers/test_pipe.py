"""A log whose reader stands still. The pipe is a real one; the reactor is not."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.workers.pipe import LinePipe


def lost(lines: int) -> bytes:
    return b"lost %d" % lines


class PipeTests(SynchronousTestCase):
    room = 1000

    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.addCleanup(self.close)
        self.reactor: Any = MemoryReactor()
        self.pipe = LinePipe(self.writer, lost, self.room)
        self.pipe.attach(self.reactor)

    def close(self) -> None:
        for end in {self.reader, self.writer}:
            os.close(end)

    def fill(self) -> int:
        """Fill the pipe itself. Returns how many bytes it holds."""
        size = 0
        try:
            while True:
                size += os.write(self.writer, b"x")
        except BlockingIOError:
            return size

    def read(self) -> bytes:
        """All that can be read, while the reactor writes what waits."""
        data = b""
        while True:
            try:
                data += os.read(self.reader, 1 << 16)
            except BlockingIOError:
                if self.pipe not in self.reactor.writers:
                    return data
                self.pipe.doWrite()

    def test_lines_go_through_at_once(self) -> None:
        self.pipe.write(b"one")
        self.pipe.write(b"two")
        self.assertEqual(os.read(self.reader, 100), b"one\ntwo\n")
        self.assertNotIn(self.pipe, self.reactor.writers)

    def test_lines_wait_for_a_reader(self) -> None:
        size = self.fill()
        self.pipe.write(b"one")
        self.pipe.write(b"two")
        self.assertIn(self.pipe, self.reactor.writers)
        self.assertEqual(self.read()[size:], b"one\ntwo\n")

    def test_the_oldest_are_dropped_and_counted(self) -> None:
        size = self.fill()
        for number in range(300):
            self.pipe.write(b"%09d" % number)
        lines = self.read()[size:].splitlines()
        # The first one was taken from the queue before the pipe was known to be full.
        kept = [0, *range(200, 300)]
        self.assertEqual(lines, [*(b"%09d" % number for number in kept), b"lost 199"])
        self.pipe.write(b"more")
        self.assertEqual(self.read(), b"more\n")

    def test_a_line_that_is_partly_written_stays_whole(self) -> None:
        size = self.fill()
        os.read(self.reader, 4096)
        line = bytes(range(65, 91)) * 400  # more than fits, and more than the queue may hold
        self.pipe = LinePipe(self.writer, lost, len(line) + 1)
        self.pipe.attach(self.reactor)
        self.pipe.write(line)
        for number in range(1100):
            self.pipe.write(b"%09d" % number)
        written = self.read()[size - 4096 :].splitlines()
        self.assertEqual((written[0], written[-2]), (line, b"%09d" % 1099))
        self.assertTrue(written[-1].startswith(b"lost "))

    def test_the_end_waits_for_the_reader_but_not_long(self) -> None:
        self.fill()
        self.pipe.write(b"one")
        self.pipe.end(0.0)
        self.assertFalse(self.read().endswith(b"two\n"))
        self.fill()
        self.pipe.write(b"two")
        os.read(self.reader, 4096)
        self.pipe.end(60.0)
        self.assertTrue(self.read().endswith(b"two\n"))

    def test_the_end_writes_what_waits_when_the_reactor_stops(self) -> None:
        size = self.fill()
        self.pipe.write(b"one")
        self.pipe.write(b"two")
        self.reactor.removeAll()
        self.pipe.connectionLost(Failure(ConnectionLost()))
        written = os.read(self.reader, size)
        self.pipe.end(60.0)
        self.assertEqual(written + os.read(self.reader, 100), b"x" * size + b"one\ntwo\n")

    def test_nobody_reads_any_more(self) -> None:
        self.fill()
        self.pipe.write(b"one")
        os.close(self.reader)
        self.reader = self.writer
        self.pipe.doWrite()
        self.pipe.write(b"two")
        self.assertNotIn(self.pipe, self.reactor.writers)
