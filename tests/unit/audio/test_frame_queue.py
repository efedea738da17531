"""Audio in frames: every byte in its place, with the time when it came."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.frame_queue import FrameQueue

FRAME = 320


def queue_of(*pieces: tuple[int, float]) -> tuple[FrameQueue, bytes]:
    """A queue at 8 kHz to which pieces of so many bytes were added at so many seconds."""
    queue, written = FrameQueue(8000), b""
    for size, at in pieces:
        piece = np.random.default_rng(len(written)).bytes(size)
        written += piece
        queue.append(piece, at)
    return queue, written


class FrameQueueTests(SynchronousTestCase):
    @given(
        st.lists(st.integers(0, 1000), max_size=20),
        st.lists(st.tuples(st.integers(0, 400), st.integers(0, 700)), max_size=30),
    )
    def test_what_is_added_comes_out_in_order(
        self, sizes: list[int], steps: list[tuple[int, int]]
    ) -> None:
        """A step takes some bytes, and looks at the head and puts another in its place."""
        queue, left = queue_of(*((size, 0.0) for size in sizes))
        for taken, head in steps:
            self.assertEqual(queue.take(taken), left[:taken])
            left = left[taken:]
            self.assertEqual(queue.head(head), left[:head])
            new = bytes([head % 256]) * (head // 2)
            queue.replace_head(len(queue.head(head)), new)
            left = new + left[head:]
            self.assertEqual(queue.waiting, len(left))
            self.assertEqual(queue.frames * FRAME + queue.rest, len(left))
            self.assertEqual(queue.end, queue.frames + bool(queue.rest))
            self.assertApproximates(queue.seconds, len(left) / 16000, 1e-9)
        self.assertEqual(queue.take_all(), left)
        self.assertEqual((queue.waiting, queue.take(FRAME), queue.head(FRAME)), (0, b"", b""))

    def test_the_time_of_a_frame_is_the_mean_of_its_samples(self) -> None:
        queue, _ = queue_of((240, 1.0), (240, 2.0), (320, 4.0))
        times = []
        while queue.frames:
            queue.take(FRAME)
            times.append(queue.came)
        self.assertEqual(times, [1.25, 3.0])
        queue.append(bytes(80), 7.0)
        queue.take_all()
        self.assertEqual(queue.came, 5.0)

    def test_the_smallest_pieces_cost_no_more_memory_than_frames(self) -> None:
        queue, written = queue_of(*((2, float(number)) for number in range(3200)))
        self.assertLessEqual(len(queue._pieces), 3200 * 2 // FRAME + 1)
        self.assertEqual(queue.take(FRAME), written[:FRAME])
        self.assertApproximates(queue.came, 79.5, 1e-9)
        self.assertEqual(queue.take_all(), written[FRAME:])

    def test_what_has_been_played_is_not_kept(self) -> None:
        for size in (FRAME, 1_000_000):
            queue, _ = queue_of((1_000_000, 0.0))
            while queue.take(size):
                pass
            self.assertEqual((queue._piece, len(queue._pieces)), (b"", 0))

    def test_another_head_has_the_time_of_what_it_replaces(self) -> None:
        queue, _ = queue_of((320, 1.0), (320, 2.0), (320, 4.0))
        queue.take(160)
        queue.replace_head(480, bytes(320))
        self.assertEqual(queue.came, 1.0)
        queue.take(FRAME)
        self.assertApproximates(queue.came, (160 * 1.0 + 320 * 2.0) / 480, 1e-9)
        queue.take(FRAME)
        self.assertEqual(queue.came, 4.0)

    def test_a_whole_piece_is_not_copied(self) -> None:
        queue = FrameQueue(8000)
        piece = bytes(range(160)) * 2
        queue.append(piece, 0.0)
        self.assertIs(queue.take(FRAME), piece)

    def test_cleared_it_is_empty(self) -> None:
        queue, _ = queue_of((1000, 1.0), (1000, 2.0))
        queue.take(FRAME)
        queue.clear()
        self.assertEqual((queue.waiting, queue.take_all()), (0, b""))
