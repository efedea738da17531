"""The queue to a slow bot, on a simulated clock."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.runner.link.caller_stream import CAUGHT_UP, CallerStream
from tests.unit.runner.link.socket_side import stream_to

FRAME = 0.02


class Bot:
    """Takes frames while it is told to; `left` of them, if that is not None. It answers pings
    while it `answers`."""

    def __init__(self) -> None:
        self.takes = True
        self.left: int | None = None
        self.got: list[int] = []
        self.answers = False
        self.stream: CallerStream | None = None

    @property
    def congested(self) -> bool:
        return not self.takes or self.left == 0

    @property
    def outlet(self) -> Bot:
        return self

    def send(self, frame: bytes) -> None:
        if self.congested:
            raise AssertionError("a frame was sent to a bot that takes none")
        if self.left is not None:
            self.left -= 1
        self.got.append(int(frame))

    def ping(self, payload: bytes) -> None:
        if self.answers and self.stream is not None:
            self.stream.pong(payload)


class QueueCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.bot = Bot()
        self.numbers = count()

    def queue(self, **options: Any) -> CallerStream:
        self.bot.stream = stream_to(self.bot, self.clock, **options)
        return self.bot.stream

    def push(self, queue: CallerStream, frames: int) -> None:
        """Frames 20 ms apart, numbered from 0."""
        for _ in range(frames):
            queue.push(b"%d" % next(self.numbers))
            self.clock.advance(FRAME)

    def release(self, queue: CallerStream, frames: int | None = None) -> None:
        self.bot.takes, self.bot.left = True, frames
        queue.drain()


class PassingTests(QueueCase):
    def test_a_bot_that_takes_gets_each_frame_in_the_turn_of_its_push(self) -> None:
        queue = self.queue()
        queue.push(b"7")
        self.assertEqual(self.bot.got, [7])
        self.push(queue, 100)
        self.assertEqual((len(self.bot.got), queue.depth, queue.stats.sent), (101, 0, 101))
        self.assertEqual((queue.stats.waits.count, queue.stats.dropped), (0, 0))

    def test_order_is_kept_over_a_stall(self) -> None:
        queue = self.queue()
        self.push(queue, 3)
        self.bot.takes = False
        self.push(queue, 20)
        self.release(queue)
        self.push(queue, 3)
        self.assertEqual(self.bot.got, list(range(26)))

    def test_a_frame_never_overtakes_those_that_wait(self) -> None:
        queue = self.queue()
        self.bot.takes = False
        self.push(queue, 5)
        self.bot.takes = True  # and nobody has said so by drain yet
        self.push(queue, 1)
        queue.drain()
        self.assertEqual(self.bot.got, list(range(6)))

    def test_waits_are_counted(self) -> None:
        queue = self.queue()
        self.bot.takes = False
        self.push(queue, 10)
        self.release(queue)
        waits = queue.stats.waits
        self.assertEqual((waits.count, queue.stats.sent), (10, 10))
        self.assertApproximates(waits.longest, 0.2, 1e-9)
        self.assertApproximates(waits.total, sum(range(1, 11)) * FRAME, 1e-9)
        self.assertEqual(queue.stats.depth_max, 10)


class FullTests(QueueCase):
    def full(self, **options: Any) -> CallerStream:
        queue = self.queue(**options)
        self.bot.takes = False
        for _ in range(options.get("queue_frames", 150)):
            queue.push(b"%d" % next(self.numbers))
        self.assertEqual((queue.depth, self.clock.getDelayedCalls()), (150, []))
        return queue

    def test_nothing_is_dropped_before_the_push_timeout_and_one_frame_at_it(self) -> None:
        queue = self.full()
        queue.push(b"150")
        self.clock.advance(0.0499)
        self.assertEqual((queue.stats.dropped, queue.depth), (0, 151))
        self.clock.advance(0.0002)
        self.assertEqual((queue.stats.dropped, queue.depth), (1, 150))
        self.release(queue)
        self.assertEqual(self.bot.got, list(range(1, 151)))

    def test_newest(self) -> None:
        queue = self.full(drop="newest")
        queue.push(b"150")
        self.clock.advance(0.051)
        self.assertEqual((queue.stats.dropped, queue.depth), (1, 150))
        self.release(queue)
        self.assertEqual(self.bot.got, list(range(150)))

    def test_the_push_timeout_is_an_option(self) -> None:
        for seconds in (0.0, 2.0):
            with self.subTest(seconds=seconds):
                self.setUp()
                queue = self.full(push_timeout=seconds)
                queue.push(b"150")
                self.clock.advance(max(0.0, seconds - 0.001))
                self.assertEqual(queue.stats.dropped, 0 if seconds else 1)
                self.clock.advance(0.002)
                self.assertEqual(queue.stats.dropped, 1)

    def test_room_within_the_timeout_drops_nothing(self) -> None:
        queue = self.full()
        self.push(queue, 2)
        self.release(queue, 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1)
        self.assertEqual((queue.stats.dropped, queue.depth), (0, 142))
        self.release(queue)
        self.assertEqual(self.bot.got, list(range(152)))

    def test_only_the_first_frame_of_a_stall_waits(self) -> None:
        queue = self.full()
        self.push(queue, 100)
        self.assertEqual((queue.stats.dropped, queue.depth), (100, 150))
        self.assertEqual(queue.stats.depth_max, 153)
        self.release(queue, 1)
        self.bot.takes = False
        self.push(queue, 3)  # one finds room, two wait anew
        self.assertEqual((queue.stats.dropped, queue.depth), (100, 152))
        self.clock.advance(0.02)
        self.assertEqual((queue.stats.dropped, queue.depth), (102, 150))

    def in_flight(self, frames: int, **options: Any) -> CallerStream:
        """A bot that answers pings has been sent `frames` which it has not read."""
        queue = self.queue(in_flight=1.0, **options)
        self.bot.answers = True
        queue.ask()
        self.bot.answers = False
        self.push(queue, frames)
        self.assertEqual((queue.in_flight, queue.depth), (frames, 0))
        return queue

    def test_what_is_in_flight_counts_against_the_bound(self) -> None:
        queue = self.in_flight(30)
        self.bot.takes = False
        self.push(queue, 200)
        self.assertEqual((queue.depth, queue.stats.dropped), (120, 80))

    def test_a_bound_below_what_is_in_flight_leaves_room_for_one(self) -> None:
        queue = self.in_flight(20, queue_frames=10)
        self.assertTrue(queue.window_closed)
        self.push(queue, 20)
        self.assertEqual((queue.depth, queue.stats.dropped), (1, 19))
        queue.pong(queue.progress)
        self.assertEqual(self.bot.got[20:], [39])

    def test_what_waited_for_room_goes_out_with_the_rest(self) -> None:
        """A frame that came into the queue after it was emptied would never be sent."""
        queue = self.full()
        self.push(queue, 2)
        self.release(queue)
        self.assertEqual((len(self.bot.got), queue.depth), (152, 0))

    def test_closed_it_forgets_all_and_leaves_no_timer(self) -> None:
        queue = self.full()
        self.push(queue, 2)
        queue.close()
        self.push(queue, 2)
        self.release(queue)
        self.assertEqual(self.bot.got, [])
        self.assertEqual((queue.depth, queue.stats.dropped), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StallTests(QueueCase):
    def test_memory_is_bounded_and_the_delay_is_normal_after_five_seconds(self) -> None:
        queue = self.queue()
        self.push(queue, 50)
        self.bot.takes = False
        self.push(queue, 250)
        self.assertEqual((queue.depth, queue.stats.dropped), (150, 100))
        self.release(queue)
        self.assertEqual(self.bot.got[-150:], list(range(150, 300)))
        waited = queue.stats.waits.count
        self.push(queue, 50)
        self.assertEqual((queue.stats.waits.count, self.bot.got[-1]), (waited, 349))

    def test_a_stall_of_an_hour_keeps_three_seconds(self) -> None:
        queue = self.queue()
        self.bot.takes = False
        for _ in range(3600):
            self.push(queue, 50)
            self.assertLessEqual(queue.depth, 153)
        self.assertEqual(queue.stats.dropped, 3600 * 50 - 150)
        self.assertLessEqual(len(self.clock.getDelayedCalls()), 1)

    def run_slow(self, queue: CallerStream, speed: float, frames: int) -> list[int]:
        """Run a bot that takes `speed` frames for each new one. Returns how far it was behind."""
        behind, credit = [], 0.0
        self.bot.left = 0
        for _ in range(frames):
            self.push(queue, 1)
            credit += speed
            if credit >= 1:
                credit -= 1
                self.release(queue, 1)
            behind.append(queue.depth)
        return behind

    def test_a_slow_bot_is_brought_back_to_the_present(self) -> None:
        for speed in (0.9, 0.5):
            with self.subTest(speed=speed):
                self.setUp()
                queue = self.queue()
                behind = self.run_slow(queue, speed, 1500)
                # In a second it falls behind by (1 - speed) seconds, and then all but 0.1 s goes.
                worst = CAUGHT_UP + round(50 * (1 - speed)) + 2
                self.assertLessEqual(max(behind), worst)
                self.assertApproximates(queue.stats.dropped, 1500 * (1 - speed), worst)
                self.assertEqual(self.bot.got, sorted(self.bot.got))
                self.release(queue)
                self.push(queue, 1)
                self.assertEqual((queue.depth, self.bot.got[-1]), (0, 1500))

    def test_without_catching_up_it_would_stay_three_seconds_behind(self) -> None:
        behind = self.run_slow(self.queue(catch_up=1e9), 0.9, 3000)
        self.assertGreaterEqual(min(behind[-500:]), 149)

    def test_a_stall_alone_is_no_reason_to_drop(self) -> None:
        """Within `catch_up` seconds after it reads again, the bot reads the 3 s."""
        queue = self.queue()
        self.bot.takes = False
        self.push(queue, 150)
        for _ in range(25):
            self.release(queue, 10)
            self.push(queue, 1)
        self.assertEqual((queue.stats.dropped, queue.depth), (0, 0))
        self.assertEqual(self.bot.got, list(range(175)))
