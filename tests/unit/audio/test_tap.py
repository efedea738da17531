"""Both sides of a call on one grid, however the caller's audio comes."""

from __future__ import annotations

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.tap import Tap, interleaved

FRAME = 320


def numbered(number: int) -> bytes:
    return number.to_bytes(2, "little") * (FRAME // 2)


class Sides:
    """A tap, and what has come out of it, as the numbers of frames."""

    def __init__(self) -> None:
        self.caller: list[int] = []
        self.phone: list[int] = []
        self.sent = 0
        self.ticks = 0
        self.tap = Tap(8000, self.take)

    def take(self, caller: bytes, phone: bytes) -> None:
        for side, audio in ((self.caller, caller), (self.phone, phone)):
            side += np.frombuffer(audio, "<i2")[:: FRAME // 2].tolist()

    def send(self, frames: int = 1) -> None:
        for _ in range(frames):
            self.sent += 1
            self.tap.hear(numbered(self.sent))

    def tick(self) -> None:
        self.ticks += 1
        self.tap.tick(numbered(self.ticks))

    def apart(self) -> list[int]:
        """How many frames later the phone's side is, at each frame of the caller's that has one."""
        return [two - one for one, two in zip(self.caller, self.phone, strict=True) if one]


class TapTests(SynchronousTestCase):
    def test_in_step(self) -> None:
        sides = Sides()
        for _ in range(200):
            sides.send()
            sides.tick()
        self.assertEqual((sides.caller, sides.phone), (list(range(1, 201)), list(range(1, 201))))
        self.assertEqual((sides.tap.padded, sides.tap.left_out), (0, 0))

    def test_bursts_are_put_where_they_belong(self) -> None:
        for burst in (2, 10, 40):
            sides = Sides()
            for number in range(1, 401):
                if number % burst == 0:
                    sides.send(burst)
                sides.tick()
            sides.tap.close()
            self.assertEqual(set(sides.apart()), {0})
            self.assertEqual((sides.tap.padded, sides.tap.left_out), (0, 0))

    def test_a_stall_and_then_all_of_it(self) -> None:
        sides = Sides()
        for number in range(1, 301):
            if not 100 <= number < 120:
                sides.send(21 if number == 120 else 1)
            sides.tick()
        self.assertEqual(sides.caller, list(range(1, 301)))

    def test_what_is_lost_is_silence(self) -> None:
        sides = Sides()
        for number in range(1, 501):
            if number < 100 or number >= 250:
                sides.send()
            sides.tick()
        sides.tap.close()
        self.assertEqual(len(sides.caller), len(sides.phone))
        self.assertLessEqual(max(map(abs, (each - 150 for each in sides.apart()[-100:]))), 3)
        self.assertGreater(sides.tap.padded, 140)

    def test_clocks_that_differ(self) -> None:
        """By 0.2 %, for 20 minutes: 2.4 s."""
        for faster in (True, False):
            sides = Sides()
            for number in range(1, 60_001):
                extra = number % 500 == 0
                sides.send(2 if extra and faster else 0 if extra else 1)
                sides.tick()
            sides.tap.close()
            changed = sides.tap.left_out if faster else sides.tap.padded
            self.assertApproximates(changed, 120, 4)
            self.assertEqual(sides.tap.padded if faster else sides.tap.left_out, 0)
            self.assertLessEqual(len(sides.phone) - 60_000, 4)

    def test_any_length_of_frames(self) -> None:
        sides = Sides()
        stream = b"".join(map(numbered, range(1, 201)))
        at = 0
        for number in range(200):
            size = (150, 490)[number % 2]
            sides.tap.hear(stream[at : at + size])
            at += size
            sides.tick()
        sides.tap.close()
        self.assertEqual(sides.caller, list(range(1, 201)))

    def test_nothing_at_all(self) -> None:
        sides = Sides()
        sides.tap.close()
        self.assertEqual(sides.caller, [])
        sides.tap.tick(None)
        sides.tap.close()
        self.assertEqual((sides.caller, sides.phone), ([0], [0]))


class InterleavedTests(SynchronousTestCase):
    def test_left_and_right(self) -> None:
        self.assertEqual(interleaved(b"\1\0\2\0", b"\3\0\4\0"), b"\1\0\3\0\2\0\4\0")
