"""The window of pings, alone and with the queue before it."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.runner.link.caller_stream import PING_EVERY, CallerStream
from tests.unit.runner.link.socket_side import SocketSide, stream_to

LIMIT = 25


def payload(count: int) -> bytes:
    return b"flow" + count.to_bytes(8, "big")


class WindowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pings: list[bytes] = []
        self.sent: list[bytes] = []
        self.window = self.stream(LIMIT / 50)

    def stream(self, seconds: float) -> CallerStream:
        socket = SocketSide(self.sent.append, self.pings.append)
        return stream_to(socket, Clock(), in_flight=seconds, queue_frames=1000)

    def send(self, frames: int) -> None:
        for _ in range(frames):
            self.window.push(b"")

    def test_a_ping_follows_every_tenth_frame(self) -> None:
        self.send(35)
        self.assertEqual(self.pings, [payload(10), payload(20), payload(30)])
        self.assertEqual(self.window.progress, payload(35))

    def test_a_ping_is_no_longer_than_a_control_frame_may_be(self) -> None:
        self.assertLessEqual(len(self.window.progress), 125)

    def test_a_bot_that_never_answers_is_not_held_up(self) -> None:
        self.send(100_000)
        self.assertEqual((self.window.window_closed, self.window.in_flight), (False, 0))

    def test_it_closes_at_the_limit_and_a_pong_opens_it(self) -> None:
        self.send(10)
        self.assertTrue(self.window.pong(self.pings[-1]))
        self.send(LIMIT - 1)
        self.assertEqual((self.window.window_closed, self.window.in_flight), (False, 24))
        self.send(1)
        self.assertEqual((self.window.window_closed, self.window.in_flight), (True, 25))
        self.assertTrue(self.window.pong(payload(20)))
        self.assertEqual((self.window.window_closed, self.window.in_flight), (False, 15))

    def test_pongs_that_lie(self) -> None:
        self.send(10)
        self.window.pong(payload(10))
        self.send(LIMIT)
        for lie in (
            payload(9),  # from the past
            payload(36),  # from the future
            payload(2**64 - 1),
            payload(0),
            b"",
            b"alive",
            b"flow",
            payload(30)[:-1],
            payload(30) + b"\0",
            b"FLOW" + payload(30)[4:],
        ):
            with self.subTest(lie=lie):
                self.assertFalse(self.window.pong(lie))
                self.assertEqual((self.window.window_closed, self.window.in_flight), (True, LIMIT))

    def test_a_lie_about_the_first_pong_does_not_close_it(self) -> None:
        self.send(100)
        self.assertFalse(self.window.pong(payload(101)))
        self.assertFalse(self.window.window_closed)

    def test_a_repeated_pong_changes_nothing(self) -> None:
        self.send(10)
        self.window.pong(payload(10))
        self.send(LIMIT)
        self.window.pong(payload(10))
        self.assertEqual((self.window.window_closed, self.window.in_flight), (True, LIMIT))

    def test_asked_before_the_first_frame_it_limits_from_the_first_frame_on(self) -> None:
        self.window.ask()
        self.assertTrue(self.window.pong(payload(0)))
        self.send(LIMIT)
        self.assertEqual((self.window.window_closed, self.window.in_flight), (True, LIMIT))

    def test_the_newest_pong_stands_for_those_before_it(self) -> None:
        self.send(30)
        self.assertTrue(self.window.pong(payload(30)))
        self.assertFalse(self.window.pong(payload(20)))
        self.assertEqual(self.window.in_flight, 0)

    def test_a_narrow_window_is_still_as_wide_as_two_pings(self) -> None:
        window = self.stream(0.01)
        for number in range(1, 200):
            window.push(b"")
            if number % PING_EVERY == 0:
                window.pong(payload(number))
            self.assertFalse(window.window_closed)


class Peer:
    """A bot that answers pings as RFC 6455 lets it, behind a wire with a delay both ways."""

    def __init__(self, newest_only: bool) -> None:
        self.clock = Clock()
        self.newest_only = newest_only
        self.congested = False
        self.wire: deque[bytes | int] = deque()  # pings and audio
        self.pongs: deque[bytes] = deque()
        self.read: list[int] = []
        self.pushed = 0
        self.window = self.queue = stream_to(self, self.clock, catch_up=1e9, in_flight=LIMIT / 50)

    @property
    def outlet(self) -> Peer:
        return self

    def send(self, frame: bytes) -> None:
        self.wire.append(int(frame))

    def ping(self, payload: bytes) -> None:
        self.wire.append(payload)

    @property
    def unread(self) -> int:
        return sum(1 for each in self.wire if isinstance(each, int))

    def push(self, frames: int) -> None:
        for _ in range(frames):
            self.queue.push(b"%d" % self.pushed)
            self.pushed += 1
            self.clock.advance(0.02)

    def take(self, messages: int) -> None:
        """Read, and answer all pings, or only the newest one."""
        pings = []
        for _ in range(min(messages, len(self.wire))):
            message = self.wire.popleft()
            if isinstance(message, int):
                self.read.append(message)
            else:
                pings.append(message)
        self.pongs.extend(pings[-1:] if self.newest_only else pings)

    def hear(self, pongs: int) -> None:
        for _ in range(min(pongs, len(self.pongs))):
            self.window.pong(self.pongs.popleft())

    def jam(self, turns: int) -> None:
        """The kernel takes nothing for some time."""
        self.congested = True
        self.push(turns)
        self.congested = False
        self.queue.drain()

    def keep_alive(self, _: int) -> None:
        self.wire.append(self.window.progress)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "take", "take", "hear", "hear", "jam", "keep_alive"]),
        st.integers(1, 60),
    ),
    max_size=60,
)


class NoDeadlockTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=100)
    @given(steps=STEPS, newest_only=st.booleans(), asked=st.booleans())
    def test_a_bot_that_reads_on_gets_all_that_was_not_dropped(
        self, steps: list[tuple[str, int]], newest_only: bool, asked: bool
    ) -> None:
        peer = Peer(newest_only)
        if asked:
            peer.window.ask()
        for name, number in steps:
            getattr(peer, name)(number)
        # Nothing is pushed any more: what waits must go out by what the bot reads alone.
        for _ in range(100):
            peer.take(7)
            peer.hear(1)
        peer.take(10_000)
        peer.hear(10_000)
        peer.take(10_000)
        self.assertEqual((peer.queue.depth, peer.unread), (0, 0))
        self.assertEqual(len(peer.read) + peer.queue.stats.dropped, peer.pushed)
        self.assertEqual(peer.read, sorted(peer.read))
        self.assertLess(peer.window.in_flight, PING_EVERY)

    @settings(deadline=None, max_examples=100)
    @given(steps=STEPS, newest_only=st.booleans())
    def test_what_is_late_anywhere_is_bounded(
        self, steps: list[tuple[str, int]], newest_only: bool
    ) -> None:
        peer = Peer(newest_only)
        peer.window.ask()
        peer.take(1)
        peer.hear(1)
        for name, number in steps:
            getattr(peer, name)(number)
            self.assertLessEqual(peer.unread, LIMIT)
            # Three more for the 50 ms in which frames wait for room.
            self.assertLessEqual(peer.queue.depth + peer.unread, 153)

    def test_a_ping_of_another_kind_could_swallow_the_answer(self) -> None:
        """Why every ping carries `progress`: a bot may answer only the newest."""
        for keep_alive, stuck in ((b"alive", True), (None, False)):
            with self.subTest(keep_alive=keep_alive):
                peer = Peer(newest_only=True)
                peer.push(10)
                peer.take(100)
                peer.hear(1)
                peer.push(40)
                peer.wire.append(keep_alive or peer.window.progress)
                for _ in range(10):
                    peer.take(100)
                    peer.hear(100)
                self.assertEqual(peer.queue.depth > 0, stuck)
