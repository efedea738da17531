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
    @given(st.lists(st.integers(0, 1000).map(lambda half: 2 * half), max_size=20))
    def test_what_is_added_is_all_there(self, sizes: list[int]) -> None:
        queue, written = queue_of(*((size, float(n)) for n, size in enumerate(sizes)))
        self.assertEqual(b"".join(queue.frames) + queue.rest, written)
        self.assertEqual({len(frame) for frame in queue.frames} - {FRAME}, set())
        self.assertEqual(len(queue.frames), len(queue.arrivals))
        self.assertApproximates(queue.seconds, len(written) / 16000, 1e-9)
        self.assertEqual(queue.end, -(-len(written) // FRAME))
        self.assertEqual(queue.take_all(), written)
        self.assertFalse(queue)

    def test_the_time_of_a_frame_is_the_mean_of_its_samples(self) -> None:
        queue, _ = queue_of((240, 1.0), (240, 2.0), (320, 4.0))
        self.assertEqual(list(queue.arrivals), [1.25, 3.0])
        self.assertEqual((len(queue.rest), queue.rest_arrival), (160, 4.0))
        queue.append(bytes(80), 7.0)
        self.assertEqual(queue.rest_arrival, 5.0)

    def test_another_head(self) -> None:
        """The head becomes shorter or longer. What follows stays, and keeps its time."""
        for old, new in ((960, 800), (960, 958), (960, 962), (960, 1120), (400, 200), (0, 160)):
            with self.subTest(old=old, new=new):
                queue, written = queue_of((640, 1.0), (640, 2.0), (640, 3.0), (100, 4.0))
                head = bytes(new)
                queue.replace_head(old, head)
                self.assertEqual(b"".join(queue.frames) + queue.rest, head + written[old:])
                self.assertEqual(len(queue.frames), len(queue.arrivals))
                last = (len(written) - old + new) // FRAME - 1
                self.assertApproximates(queue.arrivals[last], 3.0, 0.55)
                self.assertEqual(list(queue.arrivals), sorted(queue.arrivals))
                self.assertEqual(queue.arrivals[0] < 1.6, True)

    def test_the_mean_of_the_times_stays_if_half_a_frame_goes(self) -> None:
        queue, _ = queue_of((640, 1.0), (640, 2.0))
        queue.replace_head(160, b"")
        self.assertEqual(list(queue.arrivals), [1.0, 1.5, 2.0])

    def test_the_head_is_what_is_there(self) -> None:
        queue, written = queue_of((700, 1.0))
        self.assertEqual(queue.head(1), written[:320])
        self.assertEqual(queue.head(3), written)
        self.assertEqual(b"".join(queue.frames) + queue.rest, written)
