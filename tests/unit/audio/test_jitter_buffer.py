"""The jitter buffer: audio waits as long as it must, no longer, and nothing clicks."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.gaps import PAUSE
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.tools.load.patterns import Pattern, Stall
from tests.unit.audio.hearing import Heard, Samples, hear, noise, voice
from tests.unit.audio.test_playout import MS, Line, loud

JITTER = 3 * MS
TALK = voice(60.0) + noise(60.0, 40.0)
"""A minute of a voice over background sound: a bot that never pauses."""


def untouched(sound: Samples, heard: Heard) -> bool:
    """True if `sound` was heard as it is, after silence, and before silence or a fade."""
    begin = int(np.flatnonzero(heard.samples)[0] - np.flatnonzero(sound)[0])
    return np.array_equal(heard.samples[begin : begin + sound.size], sound)


def holes(heard: Heard) -> int:
    """How often 5 ms of digital silence were heard within the sound."""
    sounding = np.flatnonzero(heard.samples)
    return int(np.count_nonzero(np.diff(sounding) > 40))


class BeginTests(SynchronousTestCase):
    """When the first audio of an utterance is played."""

    def test_it_is_played_within_30_ms(self) -> None:
        for before, ticks in ((0, 1), (1, 1), (5, 1), (9, 1), (10, 0), (19, 0)):
            with self.subTest(before=before):
                line = Line()
                line.write(loud(320), before=before * MS)
                line.drain()
                self.assertEqual(line.played, [None] * ticks + [loud(160), loud(160, 160)])

    def test_that_is_an_option(self) -> None:
        for prebuffer, ticks in ((0.0, 0), (0.02, 0), (0.04, 1), (0.1, 4), (1.0, 49)):
            line = Line(prebuffer=prebuffer, max_prebuffer=1.0)
            line.write(loud(160))
            line.drain()
            self.assertEqual(line.played, [None] * ticks + [loud(160)])
            told = line.playout.stats.prebuffer_ms
            self.assertApproximates(told, max(prebuffer, 0.02) * 1000, 1e-6)

    def test_what_is_sent_far_ahead_begins_at_once(self) -> None:
        line = Line()
        line.write(loud(8000), before=1 * MS)
        self.assertEqual(line.tick(), [loud(160)])

    def test_each_utterance_waits_anew(self) -> None:
        line = Line()
        for _ in range(3):
            line.write(loud(160))
            self.assertEqual(line.tick(3), [None, loud(160), None])
            line.pause()
        self.assertEqual(line.playout.stats.underruns, 0)

    def test_when_the_first_audio_is_due_is_told_once_and_only_if_it_waits(self) -> None:
        line = Line()
        self.assertIsNone(line.playout.first_due())
        line.write(loud(160), before=2 * MS)
        due = line.playout.first_due()
        assert due is not None
        self.assertApproximates(due, line.now + 8 * MS, 1e-9)
        self.assertIsNone(line.playout.first_due())
        line.drain()
        line.pause()
        line.write(loud(160))
        self.assertIsNone(line.playout.first_due())  # only of the first utterance
        line.drain()
        line.playout.new_bot()
        line.write(loud(8000))
        line.tick()  # sent ahead: it begins at once
        self.assertIsNone(line.playout.first_due())


class UnderrunTests(SynchronousTestCase):
    def test_audio_that_comes_within_a_short_time_was_missing(self) -> None:
        for gap, underruns in (
            (0.001, 1),
            (0.1, 1),
            (PAUSE - 0.001, 1),
            (PAUSE + 0.001, 0),
            (60, 0),
        ):
            with self.subTest(gap=gap):
                line = Line(prebuffer=0.0)
                line.write(loud(1600), before=1 * MS)
                line.drain()
                ticks = int(gap / 0.02) + 1
                line.tick(ticks)
                line.write(loud(1600), before=ticks * 0.02 - gap)
                line.tick()
                stats = line.playout.stats
                self.assertEqual(stats.underruns, underruns)
                self.assertApproximates(stats.underrun_ms, underruns * ticks * 20, 1e-6)

    def test_what_follows_a_flush_is_none(self) -> None:
        line = Line()
        line.write(loud(1600))
        line.tick(3)
        line.playout.flush()
        line.tick(2)
        line.write(loud(1600))
        line.drain()
        self.assertEqual(line.playout.stats.underruns, 0)

    def test_nothing_written_ends_none(self) -> None:
        line = Line()
        line.write(loud(1600), before=1 * MS)
        line.drain()
        line.tick()
        line.write(b"")
        self.assertEqual(line.playout.stats.underruns, 0)

    def test_a_long_stall_is_one_if_the_bot_is_known_to_send_in_real_time(self) -> None:
        for length in (0.4, 1.0, 3.0):
            heard = hear(TALK, Pattern(stalls=(Stall(10.0, length),)))
            self.assertEqual(heard.stats.underruns, 1)
            self.assertApproximates(heard.stats.underrun_ms, length * 1000, 40)
            self.assertApproximates(heard.stats.concealed_ms, 45, 1e-9)

    def test_a_long_pause_of_such_a_bot_is_none(self) -> None:
        """Its audio comes later by the pause, and so does all that follows."""
        line = Line()
        pcm = TALK[:16000].tobytes()
        at = line.now
        for pause in (0.4, 1.0, 5.0):
            for chunk in range(0, len(pcm), 640):
                while line.now < at:
                    line.tick()
                line.playout.write(pcm[chunk : chunk + 640], 8000, 1, at)
                at += 0.04
            at += pause
        line.drain()
        stats = line.playout.stats
        self.assertEqual((stats.underruns, stats.shortened_ms), (0, 0))

    def test_a_tick_before_the_end_of_what_was_played_is_no_time_without_audio(self) -> None:
        playout = Playout(prebuffer=0.0)
        pcm = bytes(2 * 81)  # 10.125 ms
        playout.write(pcm, 8000, 1, 0.0)
        playout.read(0.0)
        playout.read(0.02)
        playout.write(pcm, 8000, 1, 0.03)
        playout.read(0.03)  # half a frame after the last one, as when ticks catch up
        self.assertGreaterEqual(playout.stats.underrun_ms, 0)


class DelayTests(SynchronousTestCase):
    """The delay of a bot that sends in real time and never pauses."""

    def test_without_jitter_nothing_is_touched(self) -> None:
        for phase in (0, 1, 7, 19):
            heard = hear(TALK, Pattern(), phase=phase * MS)
            self.assertTrue(untouched(TALK, heard))
            self.assertLess(heard.delay(1, 59), 0.045)
            self.assertEqual((heard.stats.underruns, heard.stats.scaled_ms), (0, 0))

    def test_jitter(self) -> None:
        for seed in range(8):
            with self.subTest(seed=seed):
                heard = hear(TALK, Pattern(jitter=JITTER), seed=seed)
                self.assertLess(heard.delay(5, 59), 0.045)
                self.assertLessEqual(heard.stats.underruns, 2)
                self.assertEqual(holes(heard), 0)

    def test_a_stall_is_forgotten(self) -> None:
        for length, limit in ((0.3, 5.0), (1.0, 10.0)):
            for seed in range(4):
                with self.subTest(length=length, seed=seed):
                    pattern = Pattern(jitter=JITTER, stalls=(Stall(20.0, length),))
                    heard = hear(TALK, pattern, seed=seed)
                    self.assertLess(heard.settled(20.0 + length, 0.06), limit)
                    self.assertGreater(heard.stats.shortened_ms, length * 1000 - 60)

    def test_many_stalls_make_it_wait_longer(self) -> None:
        """After some seconds it waits so long that the stalls are not heard, and at last less."""
        stalls = tuple(Stall(1.0 + 0.8 * number, 0.1) for number in range(40))
        heard = hear(TALK, Pattern(stalls=stalls))
        sounding = Heard(heard.samples[8000 * 8 : 8000 * 33], [], heard.stats)
        self.assertEqual(holes(sounding), 0)
        self.assertLessEqual(heard.stats.underruns, 5)
        self.assertLess(heard.delay(50, 59), 0.07)

    def test_jitter_that_grows_stretches_before_it_runs_dry(self) -> None:
        calm = list(Pattern().arrivals(500, Random(1)))
        rough = list(Pattern(jitter=8 * MS).arrivals(1000, Random(1)))
        heard = hear(TALK, _Times(calm + [20.0 + at for at in rough]))
        self.assertGreater(heard.stats.stretched_ms, 0)
        self.assertLessEqual(heard.stats.underruns, 3)

    def test_chunks_of_an_uneven_bot(self) -> None:
        """As an echo of Pipecat 1.3 sends them. If one more frame must wait, time is stretched
        once, and what was too much is taken back."""
        uneven = (0.08, 0.08, 0.14, 0.16, 0.22, 0.28, 0.28)
        chance = Random(1)
        for phase in range(20):
            with self.subTest(phase=phase):
                times = [uneven[n % 7] + 0.28 * (n // 7) for n in range(500)]
                pattern = _Times([at + chance.uniform(0.0, 2 * MS) for at in times])
                heard = hear(TALK[:160_000], pattern, phase=phase * MS)
                stats = heard.stats
                self.assertLess(stats.stretched_ms, 36)
                self.assertLess(stats.stretched_ms - stats.shortened_ms, 24)
                self.assertEqual(stats.underruns, 0)

    def test_clocks_that_differ(self) -> None:
        sound = np.tile(TALK, 5)
        for ppm in (-200, 200):
            with self.subTest(ppm=ppm):
                heard = hear(sound, Pattern(jitter=1 * MS), ppm=ppm)
                self.assertLessEqual(heard.stats.underruns, 1)
                self.assertLess(heard.delay(250, 299), 0.045)
                moved = heard.stats.shortened_ms - heard.stats.stretched_ms
                self.assertApproximates(moved, ppm * 300 / 1000, 40)

    def test_time_scaling_can_be_turned_off(self) -> None:
        pattern = Pattern(stalls=(Stall(20.0, 0.3),))
        heard = hear(TALK, pattern, playout=Playout(time_scaling=False))
        self.assertEqual(heard.stats.scaled_ms, 0)
        self.assertGreater(heard.delay(50, 59), 0.3)

    def test_an_early_stall(self) -> None:
        """The lead that follows looks like audio that is sent ahead, until it stays for 10 s."""
        heard = hear(TALK, Pattern(stalls=(Stall(0.02, 0.3),)))
        self.assertGreater(heard.delay(2, 8), 0.25)
        self.assertLess(heard.settled(0.32, 0.06), 16)


class ToneTests(SynchronousTestCase):
    def test_what_waited_for_tones_is_shortened_and_never_stretched(self) -> None:
        """A bot that never pauses, and tones of 0.6 s that are played before what it says."""
        line = Line()
        begin = line.now
        for chunk in range(500):
            at = begin + chunk * 0.04
            while line.now <= at:
                line.tick()
            line.playout.write(TALK[chunk * 320 : (chunk + 1) * 320].tobytes(), 8000, 1, at)
            if chunk == 200:
                line.playout.interject(bytes(320 * 30))
        stats = line.playout.stats
        self.assertEqual((stats.underruns, stats.stretched_ms), (0, 0))
        self.assertApproximates(stats.shortened_ms, 600, 40)


class AheadTests(SynchronousTestCase):
    """A bot that sends faster than real time: what it has said ahead waits, and is never cut."""

    def test_from_5_percent_on_it_is_ahead(self) -> None:
        for speed in (1.05, 1.3, 2.0, 100.0):
            with self.subTest(speed=speed):
                heard = hear(TALK, Pattern(speed=speed))
                self.assertTrue(untouched(TALK, heard))
                self.assertEqual((heard.stats.underruns, heard.stats.scaled_ms), (0, 0))

    def test_up_to_2_percent_its_clock_is_fast(self) -> None:
        heard = hear(TALK, Pattern(speed=1.02))
        self.assertLess(heard.delay(30, 58), 0.07)
        self.assertApproximates(heard.stats.shortened_ms, 1176, 60)

    def test_each_of_its_utterances_begins_at_once(self) -> None:
        """That one is ever earlier is no jitter, for which the next ones would have to wait."""
        for speed in (1.1, 1.3, 2.0, 4.0):
            with self.subTest(speed=speed):
                line, at = Line(), 0.0
                for _ in range(8):
                    line.pause(2.0)
                    begin = line.now + 3 * MS
                    before = len(line.played)
                    for chunk, late in enumerate(Pattern(speed=speed).arrivals(75, Random(1))):
                        at = begin + late
                        while line.now < at:
                            line.tick()
                        pcm = TALK[chunk * 320 : (chunk + 1) * 320].tobytes()
                        line.playout.write(pcm, 8000, 1, at)
                    line.drain()
                    heard = [frame is not None for frame in line.played[before:]]
                    self.assertLessEqual(heard.index(True), 3)
                self.assertEqual(line.playout.stats.underruns, 0)

    def test_what_is_known_of_jitter_outlives_a_pause(self) -> None:
        rough = Pattern(jitter=8 * MS)
        line = Line()
        for _ in range(6):
            line.pause(2.0)
            begin = line.now
            for chunk, late in enumerate(rough.arrivals(100, Random(2))):
                while line.now < begin + late:
                    line.tick()
                pcm = TALK[chunk * 320 : (chunk + 1) * 320].tobytes()
                line.playout.write(pcm, 8000, 1, begin + late)
            line.drain()
        self.assertGreater(line.playout.stats.prebuffer_ms, 50)
        self.assertLess(line.playout.stats.prebuffer_ms, 120)

    def test_a_lead_is_kept(self) -> None:
        """It sends 3 s at once, and goes on in real time."""
        times = [max(0.0, number * 0.04 - 3.0) for number in range(250)]
        sound = TALK[:80000]
        heard = hear(sound, _Times(times))
        self.assertTrue(untouched(sound, heard))
        self.assertEqual(heard.stats.scaled_ms, 0)

    def test_utterances_that_are_sent_at_once(self) -> None:
        line = Line()
        pcm = TALK[:24000].tobytes()
        for _ in range(10):
            line.write(pcm)
            line.pause(4.0)
        self.assertEqual(line.heard.replace(bytes(320), b""), (pcm * 10).replace(bytes(320), b""))
        self.assertEqual((line.playout.stats.underruns, line.playout.stats.scaled_ms), (0, 0))


class MarkTests(SynchronousTestCase):
    def test_a_mark_keeps_its_place_while_time_is_scaled(self) -> None:
        """A mark after each second of a bot that stalls: it is called when that second is over."""
        playout = Playout()
        click = np.full(160, 12000, np.int16)
        pcm = np.concatenate([np.concatenate((TALK[:7840], click)) for _ in range(40)])
        times = list(Pattern(stalls=(Stall(10.0, 0.8),)).arrivals(1000, Random(1)))
        called: list[int] = []
        heard: list[bytes] = []
        written = 0
        for tick in range(2100):
            now = tick * 0.02
            while written < 1000 and times[written] <= now:
                chunk = pcm[written * 320 : (written + 1) * 320]
                playout.write(chunk.tobytes(), 8000, 1, times[written])
                written += 1
                if written % 25 == 0:
                    playout.mark(lambda: called.append(len(heard)))
            heard.append(playout.read(now) or bytes(320))
        samples = np.frombuffer(b"".join(heard), "<i2")
        self.assertGreater(playout.stats.shortened_ms, 700)
        self.assertEqual(len(called), 40)
        for place in called:
            last = samples[place * 160 - 640 : place * 160]
            self.assertGreater(np.count_nonzero(last == 12000), 20, place)  # it may be shortened


class RobustnessTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.floats(0, 0.5),
                st.integers(0, 1000),
                st.sampled_from(["write", "write", "write", "flush", "new", "tone", "rate"]),
            ),
            max_size=120,
        ),
        st.randoms(use_true_random=False),
    )
    def test_whatever_happens_frames_are_whole(
        self, plan: list[tuple[float, int, str]], random: Random
    ) -> None:
        playout = Playout(prebuffer=random.choice([0.0, 0.04, 0.2]))
        now = tick = read = 0.0
        for wait, samples, what in plan:
            now += wait if random.random() < 0.2 else 0.02
            while tick < now:
                read = tick
                frame = playout.read(read)
                self.assertIn(len(frame or playout.silence), (len(playout.silence),))
                tick += 0.02 * random.choice([1, 1, 1, 0.5, 3])
            now = max(now, read)
            if what == "write":
                playout.write(noise(samples / 8000, 3000).tobytes(), 8000, 1, now)
            elif what == "flush":
                playout.flush()
            elif what == "new":
                playout.new_bot()
            elif what == "tone":
                playout.interject(bytes(640))
            else:
                playout.set_rate(random.choice([8000, 16000, 48000]))
        stats = playout.stats
        self.assertGreaterEqual(min(stats.underrun_ms, stats.concealed_ms, stats.delays.total), 0)


class _Times:
    """Messages of 40 ms that arrive at given times."""

    chunk = 0.04

    def __init__(self, times: list[float]) -> None:
        self._times = times

    def arrivals(self, count: int, random: Random) -> list[float]:
        return self._times[:count]
