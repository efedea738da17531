"""When messages arrive, and what a bot's mouth makes of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from unittest.mock import patch

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load import mouth, protobuf
from pipecat_bridge.tools.load.mouth import Mouth, Said
from pipecat_bridge.tools.load.patterns import Pattern, Stall, repeated

pytestmark = pytest.mark.tools

RATE = 16000
FRAME = 0.02


class PatternTests(SynchronousTestCase):
    def arrivals(self, pattern: Pattern, count: int = 200) -> list[float]:
        return list(pattern.arrivals(count, Random(1)))

    def test_a_steady_one(self) -> None:
        self.assertEqual(self.arrivals(Pattern(), 3), [0.0, 0.04, 0.08])
        self.assertFalse(Pattern().delays)

    def test_faster_than_real_time(self) -> None:
        self.assertEqual(self.arrivals(Pattern(speed=2.0), 3), [0.0, 0.02, 0.04])

    def test_jitter_delays_and_nothing_overtakes(self) -> None:
        pattern = Pattern(jitter=0.05)
        times = self.arrivals(pattern)
        self.assertEqual(times, sorted(times))
        delays = [at - number * 0.04 for number, at in enumerate(times)]
        self.assertGreaterEqual(min(delays), 0.0)
        self.assertTrue(0.04 < sum(delays) / len(delays) < 0.12)
        self.assertTrue(pattern.delays)

    def test_a_stall_and_all_at_once_after_it(self) -> None:
        times = self.arrivals(Pattern(stalls=(Stall(1.0, 0.5),)), 50)
        self.assertFalse([at for at in times if 1.0 <= at < 1.5])
        self.assertEqual(times.count(1.5), 13)

    def test_stalls_again_and_again(self) -> None:
        self.assertEqual(repeated(0.5, 15.0, 31.0), (Stall(15.0, 0.5), Stall(30.0, 0.5)))
        self.assertEqual(repeated(0.0, 15.0, 31.0), ())

    def test_spurts_and_pauses(self) -> None:
        pattern = Pattern(spurt=1.0, pause=0.5)
        self.assertEqual([pattern.speaks(at) for at in (0, 0.99, 1.0, 1.49, 1.5)], [1, 1, 0, 0, 1])
        self.assertTrue(all(Pattern().speaks(number / 7) for number in range(100)))


class Jobs:
    """A loop whose time is turned."""

    def __init__(self) -> None:
        self.now = 100.0
        self._jobs: list[tuple[float, Callable[[], object]]] = []

    def at(self, due: float, job: Callable[[], object]) -> None:
        self._jobs.append((due, job))

    def turn(self, until: float) -> None:
        while due := [job for job in self._jobs if job[0] <= until]:
            first = min(due, key=lambda job: job[0])
            self._jobs.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = until


class MouthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.jobs = Jobs()
        clock = patch.object(mouth.time, "monotonic", lambda: self.jobs.now)
        clock.start()
        self.addCleanup(clock.stop)
        self.sent: list[tuple[float, bytes]] = []
        self.said: list[tuple[int, float]] = []

    def mouth(self, pattern: Pattern) -> Mouth:
        def send(frame: bytes) -> None:
            self.sent.append((round(self.jobs.now - 100.0, 6), frame))

        def marked(mark: Said, at: float) -> None:
            self.said.append((mark.number, round(at - 100.0, 6)))

        return Mouth(self.jobs, pattern, RATE, Random(1), send, marked)  # type: ignore[arg-type]

    def hear(self, one: Mouth, frames: int) -> None:
        """Frames of 20 ms come in real time; each has a mark in its first sample."""
        for number in range(frames):
            self.jobs.turn(100.0 + number * FRAME)
            one.say(bytes(640), [Said(number, self.jobs.now, number * 320)])
        self.jobs.turn(self.jobs.now + 5.0)

    def test_a_chunk_is_said_when_it_is_complete(self) -> None:
        self.hear(self.mouth(Pattern()), 6)
        self.assertEqual([at for at, _ in self.sent], [0.02, 0.06, 0.1])
        size = len(protobuf.audio_frame(bytes(1280), RATE))
        self.assertEqual({len(frame) for _, frame in self.sent}, {size + 8})
        self.assertEqual(self.said[:3], [(0, 0.02), (1, 0.04), (2, 0.06)])

    def test_what_comes_at_once_is_said_at_its_pace(self) -> None:
        self.mouth(Pattern()).say(bytes(4 * 1280), [])
        self.jobs.turn(101.0)
        self.assertEqual([at for at, _ in self.sent], [0.0, 0.04, 0.08, 0.12])

    def test_a_stall_and_then_everything(self) -> None:
        self.hear(self.mouth(Pattern(stalls=(Stall(0.1, 0.3),))), 20)
        times = [at for at, _ in self.sent]
        self.assertEqual(times, [0.02, 0.06, *[0.4] * 8])
        self.assertEqual(sorted(number for number, _ in self.said), list(range(20)))

    def test_after_the_loop_stood_still_nothing_overtakes(self) -> None:
        one = self.mouth(Pattern())
        one.say(bytes(2 * 1280), [])  # the second one waits for 40 ms
        self.jobs.now += 0.09  # its job is late
        one.say(b"\1" * 1280, [])
        self.jobs.turn(self.jobs.now + 1.0)
        first, second, third = (frame for _, frame in self.sent)
        self.assertEqual(first, second)
        self.assertNotEqual(second, third)

    def test_nothing_is_said_in_a_pause(self) -> None:
        self.hear(self.mouth(Pattern(spurt=0.1, pause=0.2)), 30)
        self.assertFalse([at for at, _ in self.sent if 0.12 <= at < 0.3])
        self.assertLess(len(self.said), 20)
