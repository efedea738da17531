"""The time line of a call: gaps, bursts, jitter, rates."""

from __future__ import annotations

import numpy as np
import pytest
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.tools.phone.measure import own_lateness, pace_of
from pipecat_bridge.tools.phone.recording import Chunk, Recording, Timeline

pytestmark = pytest.mark.tools

RATE = 8000


def ramp(number: int, rate: int = RATE) -> bytes:
    """20 ms of samples. They differ from the samples for any other number."""
    count = rate // 50
    return (np.arange(count) + 1 + number * count).astype("<i2").tobytes()


def played(arrivals: list[tuple[float, int]]) -> tuple[Recording, Timeline]:
    """A recording of 20 ms messages that arrived at these times with these numbers."""
    recording = Recording(RATE)
    for at, number in arrivals:
        recording.received(Chunk(at, RATE, ramp(number)))
    return recording, recording.timeline()


class TimelineTests(SynchronousTestCase):
    def test_even_arrivals_are_one_piece(self) -> None:
        _, timeline = played([(0.5 + n * 0.02, n) for n in range(100)])
        np.testing.assert_array_equal(timeline.bot[:4000], 0)
        np.testing.assert_array_equal(timeline.bot[4000:], np.arange(16000) + 1)
        self.assertEqual(timeline.gaps, [])

    def test_jitter_and_stalls_leave_no_hole(self) -> None:
        random = np.random.default_rng(3)
        arrivals = [(n * 0.02 + float(random.uniform(0, 0.008)), n) for n in range(100)]
        arrivals[50:52] = [(52 * 0.02, 50), (52 * 0.02, 51)]  # 40 ms in which nothing was read
        recording, timeline = played(arrivals)
        pace = pace_of(recording, timeline)
        self.assertEqual((timeline.gaps, pace.missing), ([], 0))
        first = int(np.flatnonzero(timeline.bot)[0])
        np.testing.assert_array_equal(timeline.bot[first:], np.arange(16000) + 1)
        self.assertLess(abs(pace.latest - 0.04), 0.009)

    def test_missing_messages_are_silence_in_their_place(self) -> None:
        arrivals = [(n * 0.02, n) for n in range(100) if n not in (40, 70, 71)]
        recording, timeline = played(arrivals)
        self.assertEqual([round(gap.start, 6) for gap in timeline.gaps], [0.8, 1.4])
        self.assertEqual([round(gap.seconds, 6) for gap in timeline.gaps], [0.02, 0.04])
        pace = pace_of(recording, timeline)
        self.assertEqual((pace.missing, round(pace.dry, 6)), (3, 0.06))
        whole = np.arange(16000) + 1
        np.testing.assert_array_equal(timeline.bot[:6400], whole[:6400])
        np.testing.assert_array_equal(timeline.bot[6400:6560], 0)
        np.testing.assert_array_equal(timeline.bot[6560:11200], whole[6560:11200])

    def test_late_messages_that_come_after_all_are_not_missing(self) -> None:
        # 300 ms of nothing; what is due then comes at half the spacing until it has caught up.
        arrivals = [(n * 0.02, n) for n in range(50)]
        arrivals += [(1.3 + n * 0.01, 50 + n) for n in range(30)]
        arrivals += [(n * 0.02, n) for n in range(80, 150)]
        recording, timeline = played(arrivals)
        pace = pace_of(recording, timeline)
        self.assertEqual((pace.messages, pace.missing), (150, 0))
        self.assertLess(abs(pace.dry - 0.26), 0.011)

    def test_the_message_that_answers_the_call_is_off_the_clock(self) -> None:
        arrivals = [(0.0, 0), *((0.006 + (n - 1) * 0.02, n) for n in range(1, 100))]
        recording, timeline = played(arrivals)
        pace = pace_of(recording, timeline)
        self.assertEqual((pace.messages, pace.missing), (100, 0))
        self.assertLess(pace.latest, 1e-9)

    def test_one_late_message_at_the_end_is_not_a_gap(self) -> None:
        arrivals = [(n * 0.02, n) for n in range(100)]
        arrivals[-1] = (99 * 0.02 + 0.03, 99)
        recording, timeline = played(arrivals)
        self.assertEqual(pace_of(recording, timeline).missing, 0)

    def test_a_burst_is_played_in_full_and_its_lead_told(self) -> None:
        arrivals = [(n * 0.02, n) for n in range(50)]
        arrivals += [(1.0, n) for n in range(50, 100)]  # a second of audio at once
        arrivals += [(n * 0.02, n) for n in range(100, 150)]
        recording, timeline = played(arrivals)
        np.testing.assert_array_equal(timeline.bot, np.arange(24000) + 1)
        self.assertEqual(pace_of(recording, timeline).missing, 0)
        self.assertLess(abs(timeline.lead - 0.98), 0.03)

    def test_both_tracks_are_of_one_length(self) -> None:
        recording = Recording(RATE)
        recording.sent(0.0, ramp(0))
        recording.received(Chunk(0.1, RATE, ramp(0)))
        timeline = recording.timeline()
        self.assertEqual((timeline.caller.size, timeline.bot.size), (960, 960))
        self.assertAlmostEqual(timeline.seconds, 0.12)

    def test_nothing_received(self) -> None:
        recording = Recording(RATE)
        recording.sent(0.0, ramp(0))
        timeline = recording.timeline()
        np.testing.assert_array_equal(timeline.bot, np.zeros(160))
        self.assertEqual(pace_of(recording, timeline).messages, 0)

    def test_other_rates_keep_their_time(self) -> None:
        recording = Recording(RATE)
        for n in range(50):
            tone = np.sin(2 * np.pi * 1000 * (np.arange(320) + n * 320) / 16000) * 8000
            recording.received(Chunk(n * 0.02, 16000, tone.astype("<i2").tobytes()))
        timeline = recording.timeline()
        self.assertEqual(timeline.bot.size, RATE)
        spectrum = np.abs(np.fft.rfft(timeline.bot[400:7600].astype(float) * np.hanning(7200)))
        self.assertEqual(int(spectrum.argmax()) * RATE / 7200, 1000.0)


class OwnLatenessTests(SynchronousTestCase):
    def test_the_worst_of_the_phones_own_frames(self) -> None:
        recording = Recording(RATE)
        for at in (0.0, 0.021, 0.047, 0.06):
            recording.sent(at, ramp(0))
        self.assertAlmostEqual(own_lateness(recording), 0.007)
