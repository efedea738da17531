"""What a phone of the load makes of the frames that it reads."""

from __future__ import annotations

import time
from math import isnan

import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.load.callers import PROMPT, Callers, LoadCaller, Plan
from pipecat_bridge.tools.load.calls import Role
from pipecat_bridge.tools.load.loop import Loop
from pipecat_bridge.wire.audiosocket import audio_header

pytestmark = pytest.mark.tools

FRAME = audio_header(8000, 320) + bytes(320)


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop = Loop()
        self.callers = Callers(self.loop, Plan("127.0.0.1", 1, 1))
        self.callers.recording = True
        self.caller = LoadCaller(self.callers, Role.STEADY)
        self.at = time.monotonic()

    def read(self, frames: int, after: float, unread_for: float = 0.0) -> None:
        """So many frames are read at once, with one time stamp."""
        self.at += after
        self.loop.unread_for = unread_for
        self.caller._listen(FRAME * frames, self.at)

    @property
    def pace(self) -> list[float | None]:
        """Distances in ms; None if one is not known."""
        every = self.callers.pace[Role.STEADY]
        return [None if isnan(each) else round(1000 * each) for each in every]

    def test_each_read_at_once(self) -> None:
        for _ in range(3):
            self.read(1, 0.02)
        self.assertEqual(self.pace, [20, 20])

    def test_two_that_the_bridge_sent_together(self) -> None:
        self.read(1, 0.0)
        self.read(2, 0.04, unread_for=PROMPT)
        self.read(1, 0.02)
        self.assertEqual(self.pace, [40, 0, 20])

    def test_two_that_the_generator_read_too_late(self) -> None:
        """Only of the second one the time is known."""
        self.read(1, 0.0)
        self.read(2, 0.04, unread_for=0.03)
        self.read(1, 0.02)
        self.assertEqual(self.pace, [None, None, 20])

    def test_a_single_frame_is_known_however_late_it_is_read(self) -> None:
        self.read(1, 0.0)
        self.read(1, 0.02, unread_for=1.0)
        self.assertEqual(self.pace, [20])
