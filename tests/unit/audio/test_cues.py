"""Marks, tones and music beside the bot's voice: each at its place, whatever else happens."""

from __future__ import annotations

import gc
import weakref
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.audio.cues import MAX_MARKS
from pipecat_bridge.audio.resample import make_resampler
from tests.unit.audio.test_playout import MS, Line, loud
from tests.unit.signals import tone

BEEP = b"\x7f\x7f" * 160
MUSIC = tone(300, 8000, 0.1)


class MarkedLine(Line):
    """Records at which tick each mark is called."""

    def mark(self) -> list[int]:
        """Set a mark; the list gets the number of frames that the caller has heard by then."""
        called: list[int] = []
        self.playout.mark(lambda: called.append(self.ticks))
        return called


class MarkTests(SynchronousTestCase):
    def test_when_the_last_frame_has_been_played_and_20_ms_have_passed(self) -> None:
        for samples, frames in ((160, 1), (1600, 10), (1601, 11), (1759, 11)):
            with self.subTest(samples=samples):
                line = MarkedLine(prebuffer=0.0)
                line.write(loud(samples), before=1 * MS)
                called = line.mark()
                line.tick(frames)
                self.assertEqual((called, line.playout.empty), ([], False))
                line.tick()
                self.assertEqual((called, line.playout.empty), ([frames], True))
                line.tick(5)
                self.assertEqual(called, [frames])

    def test_at_the_next_read_where_nothing_waits(self) -> None:
        line = MarkedLine()
        called = line.mark()
        self.assertEqual(called, [])
        line.tick()
        self.assertEqual(called, [0])

    def test_in_the_midst_of_what_waits_and_in_order(self) -> None:
        line = MarkedLine(prebuffer=0.0)
        calls = []
        for _ in range(4):
            calls += [line.mark(), line.mark()]
            line.write(loud(800))
        line.tick(30)
        self.assertEqual(calls, [[0], [0], [5], [5], [10], [10], [15], [15]])

    def test_a_part_of_a_frame_that_is_filled_up_later(self) -> None:
        line = MarkedLine(prebuffer=0.0)
        line.write(loud(200))
        called = line.mark()
        line.write(loud(1000))
        line.tick(10)
        self.assertEqual(called, [2])

    def test_the_wait_for_a_prebuffer_counts(self) -> None:
        line = MarkedLine(prebuffer=0.1)
        line.write(loud(160))
        called = line.mark()
        line.tick(20)
        self.assertEqual(line.played[4], loud(160))
        self.assertEqual(called, [5])

    def test_an_underrun_does_not_call_it(self) -> None:
        line = MarkedLine()
        line.write(loud(320))
        line.tick(10)
        line.write(loud(320))
        called = line.mark()
        line.tick(2)
        self.assertEqual(called, [])
        line.tick(20)
        self.assertEqual(line.heard, loud(320) * 2)
        self.assertEqual(len(called), 1)

    def test_a_flush_calls_all_that_wait(self) -> None:
        line = MarkedLine()
        first = line.mark()
        line.write(loud(8000))
        second = line.mark()
        line.tick(3)
        line.playout.flush()
        self.assertEqual((first, second), ([0], [3]))
        line.tick(5)
        self.assertEqual((first, second), ([0], [3]))

    def test_a_mark_after_a_flush_is_at_its_own_place(self) -> None:
        line = MarkedLine(prebuffer=0.0)
        line.write(loud(8000))
        line.tick(3)
        line.playout.flush()
        line.write(loud(800))
        called = line.mark()
        line.tick(20)
        self.assertEqual(called, [9])  # the first frame after it is a fade

    def test_one_that_sets_another_does_not_hold_up_the_frame(self) -> None:
        line = MarkedLine()
        count = 0

        def again() -> None:
            nonlocal count
            count += 1
            line.playout.mark(again)

        line.playout.mark(again)
        line.tick(5)
        self.assertEqual(count, 5)

    def test_one_that_flushes(self) -> None:
        line = MarkedLine(prebuffer=0.0)
        line.playout.mark(line.playout.flush)
        line.write(loud(800))
        called = line.mark()
        self.assertEqual(line.tick(3), [None, None, None])
        self.assertEqual(called, [0])

    def test_a_bot_cannot_set_endlessly_many(self) -> None:
        line = MarkedLine()
        line.write(loud(16000))
        calls = [line.mark() for _ in range(MAX_MARKS + 2)]
        self.assertEqual([bool(called) for called in calls].count(True), 2)
        self.assertEqual(calls[:3], [[0], [0], []])

    def test_a_change_of_rate_leaves_it_at_its_place(self) -> None:
        for old, new in ((8000, 16000), (16000, 8000), (44100, 8000), (8000, 44100)):
            for samples in (old // 2, old // 2 + 1, old // 2 + old // 50 - 1, 5 * old + 1):
                with self.subTest(old=old, new=new, samples=samples):
                    line = MarkedLine(rate=old, prebuffer=0.0)
                    line.write(loud(old // 10), old)
                    early = line.mark()
                    line.write(loud(samples), old)
                    late = line.mark()
                    line.tick(2)
                    line.playout.set_rate(new)
                    line.drain(400)
                    self.assertEqual(early, [5])
                    self.assertEqual(late, [len(line.played) - 1])
                    whole = 5 + samples * 50 // old
                    self.assertIn(late, ([whole], [whole + 1]))


class ToneTests(SynchronousTestCase):
    def test_before_all_that_waits_and_the_rest_goes_on_after_it(self) -> None:
        line = Line()
        line.write(loud(800))
        line.tick(2)
        line.playout.interject(BEEP * 3)
        line.drain()
        self.assertEqual(line.played[2:5], [BEEP] * 3)
        self.assertEqual(line.heard.replace(BEEP, b""), loud(800))
        self.assertEqual(line.playout.stats.frames_played, 5)

    def test_where_nothing_waits(self) -> None:
        line = Line()
        line.playout.interject(BEEP * 2)
        self.assertEqual(line.tick(4), [BEEP, BEEP, None, None])

    def test_the_last_frame_is_filled_up(self) -> None:
        line = Line()
        line.playout.interject(BEEP + BEEP[:100])
        self.assertEqual(line.tick(3), [BEEP, BEEP[:100].ljust(320, b"\0"), None])

    def test_one_after_the_other(self) -> None:
        line = Line()
        line.playout.interject(BEEP)
        line.playout.interject(loud(160))
        self.assertEqual(line.tick(2), [BEEP, loud(160)])

    def test_a_flush_leaves_them_alone(self) -> None:
        line = Line()
        line.write(loud(800))
        line.playout.interject(BEEP * 3)
        line.tick()
        line.playout.flush()
        self.assertEqual(line.tick(4), [BEEP, BEEP, None, None])
        self.assertEqual(line.playout.stats.flushed_ms, 100)

    def test_they_count_as_waiting(self) -> None:
        line = Line()
        line.write(loud(800))
        line.playout.interject(BEEP * 3)
        self.assertApproximates(line.playout.depth, 0.16, 1e-9)
        line.tick(3)
        self.assertApproximates(line.playout.depth, 0.1, 1e-9)
        line.playout.flush()
        self.assertTrue(line.playout.empty)
        line.playout.interject(BEEP)
        self.assertFalse(line.playout.empty)
        line.tick()
        self.assertTrue(line.playout.empty)
        self.assertEqual(line.playout.depth, 0.0)

    def test_their_time_is_no_underrun(self) -> None:
        line = Line()
        line.write(loud(320))
        line.tick(5)  # dry by now
        line.playout.interject(BEEP * 5)
        line.tick(3)
        line.write(loud(800))
        line.tick(20)
        self.assertEqual(line.playout.stats.underruns, 0)
        self.assertEqual(line.heard.replace(BEEP, b""), loud(320) + loud(800))

    def test_what_comes_meanwhile_is_buffered_anew(self) -> None:
        line = Line(prebuffer=0.06)
        line.write(loud(480))
        line.tick(5)
        line.playout.interject(BEEP * 2)
        line.tick(1)
        line.write(loud(160))
        self.assertEqual(line.tick(4), [BEEP, None, loud(160), None])

    def test_at_another_rate(self) -> None:
        line = Line()
        pcm = tone(440, 8000, 0.2)
        line.playout.interject(pcm)
        line.tick(4)
        line.playout.set_rate(16000)
        line.drain()
        rest = make_resampler(8000, 16000).process(pcm[4 * 320 :])
        self.assertEqual(b"".join(frame or b"" for frame in line.played[4:]), rest)

    def test_a_mark_waits_for_their_end(self) -> None:
        line = MarkedLine(prebuffer=0.0)
        line.write(loud(800))
        first = line.mark()
        line.tick(5)
        line.playout.interject(BEEP * 3)
        second = line.mark()
        line.tick(10)
        self.assertEqual((first, second), ([8], [8]))

    def test_a_mark_that_begins_them_holds_up_those_after_it(self) -> None:
        for flushed in (False, True):
            line = MarkedLine(prebuffer=0.0)
            line.write(loud(800))
            line.playout.mark(partial(line.playout.interject, BEEP * 3))
            after = line.mark()
            if flushed:
                line.playout.flush()
            line.tick(10)
            begun = 0 if flushed else 5
            self.assertEqual(line.played[begun : begun + 4], [BEEP] * 3 + [None])
            self.assertEqual(after, [begun + 3])


class HoldTests(SynchronousTestCase):
    def test_in_a_loop_while_nothing_else_plays(self) -> None:
        line = Line(prebuffer=0.0)
        line.playout.hold(MUSIC, 8000)
        line.tick(7)
        line.write(loud(480), before=1 * MS)
        line.tick(3)
        line.playout.interject(BEEP)
        line.tick(4)
        played = line.played
        self.assertEqual(played[7:11], [loud(160), loud(160, 160), loud(160, 320), BEEP])
        music = b"".join(frame or b"" for frame in played[:7] + played[11:])
        self.assertEqual(music, (MUSIC * 3)[: 10 * 320])

    def test_until_it_is_released(self) -> None:
        line = Line()
        line.playout.hold(MUSIC, 8000)
        line.tick()
        line.playout.release()
        line.playout.release()
        self.assertEqual(line.tick(3), [None] * 3)

    def test_it_is_nothing_that_waits(self) -> None:
        line = Line()
        line.playout.hold(MUSIC, 8000)
        self.assertEqual((line.playout.empty, line.playout.depth), (True, 0.0))
        line.tick(3)
        line.playout.flush()
        self.assertIsNotNone(line.tick()[0])
        self.assertEqual(line.playout.stats.frames_played, 0)

    def test_a_change_of_rate(self) -> None:
        line = Line()
        line.playout.hold(tone(300, 16000, 1.0), 16000)
        line.tick(5)
        line.playout.set_rate(16000)
        [frame] = line.tick()
        self.assertEqual(len(frame or b""), 640)

    def test_nothing_to_loop(self) -> None:
        for pcm in (b"", b"\1\0" * 159):
            with self.assertRaisesRegex(ValueError, "expected 20 ms or more"):
                Line().playout.hold(pcm, 8000)


class NewBotTests(SynchronousTestCase):
    def test_what_waits_is_played_and_what_follows_is_not_shifted(self) -> None:
        for rate in (8000, 16000):
            line = Line()
            line.write(loud(800) + b"\x55", 8000)
            line.playout.new_bot()
            line.write(tone(440, rate, 0.5), rate)
            line.drain()
            second = make_resampler(rate, 8000).process(tone(440, rate, 0.5))
            self.assertEqual(line.heard, loud(800) + second)

    def test_the_time_without_a_bot_is_no_underrun(self) -> None:
        line = Line()
        line.write(loud(320))
        line.tick(5)
        line.playout.new_bot()
        line.write(loud(320))
        line.drain()
        self.assertEqual(line.playout.stats.underruns, 0)


class CloseTests(SynchronousTestCase):
    def test_marks_are_forgotten_and_not_called(self) -> None:
        line = MarkedLine()
        line.write(loud(320))
        called = line.mark()
        line.playout.interject(BEEP)
        line.playout.hold(MUSIC, 8000)
        line.playout.close()
        line.playout.close()
        line.tick(10)
        self.assertEqual((called, line.heard), ([], loud(320)))

    def test_a_mark_that_closes(self) -> None:
        line = MarkedLine()
        line.playout.mark(line.playout.close)
        called = line.mark()
        self.assertEqual(line.tick(3), [None] * 3)
        self.assertEqual(called, [])

    def test_nothing_keeps_itself_in_memory(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        line = MarkedLine()
        line.mark()
        line.playout.mark(line.playout.flush)
        line.playout.close()
        gone = weakref.ref(line.playout)
        del line
        self.assertIsNone(gone())


class Script(Line):
    """Follows a plan, and checks at each mark that the audio before it was heard."""

    def __init__(self, prebuffer: float) -> None:
        super().__init__(prebuffer=prebuffer)
        self.written = self.dropped = 0  # samples
        self.marks = 0
        self.called: list[int] = []
        self.early: list[int] = []

    def do(self, what: str, count: int) -> None:
        getattr(self, f"do_{what}")(count)

    def do_write(self, count: int) -> None:
        self.write(b"\1\0" * count)  # so soft that nothing is faded or concealed
        self.written += count

    def do_tick(self, count: int) -> None:
        for _ in range(count):
            self.tick()

    def do_mark(self, _: int) -> None:
        self.playout.mark(partial(self.call, self.marks, self.written))
        self.marks += 1

    def call(self, number: int, due: int) -> None:
        self.called.append(number)
        if self.heard_samples + self.dropped < due:
            self.early.append(number)

    def do_tones(self, count: int) -> None:
        self.playout.interject(BEEP * count)

    def do_tones_when_played(self, count: int) -> None:
        self.playout.mark(partial(self.playout.interject, BEEP * count))

    def do_hold(self, _: int) -> None:
        self.playout.hold(MUSIC, 8000)

    def do_release(self, _: int) -> None:
        self.playout.release()

    def do_flush(self, _: int) -> None:
        self.dropped = self.written - self.heard_samples
        self.playout.flush()

    @property
    def heard_samples(self) -> int:
        """Samples of the bot's voice that were played, without tones and music."""
        speech = [frame for frame in self.played if frame and set(frame) <= {0, 1}]
        return sum((len(frame.rstrip(b"\0")) + 1) // 2 for frame in speech)


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 1500)),
        st.tuples(st.just("tick"), st.integers(1, 20)),
        st.tuples(st.sampled_from(["tones", "tones_when_played"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["mark", "hold", "release", "flush"]), st.just(0)),
    ),
    max_size=60,
)


class InterleavingTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(STEPS, st.sampled_from([0.0, 0.04]))
    def test_each_mark_is_called_once_in_order_when_all_before_it_was_heard(
        self, plan: list[Step], prebuffer: float
    ) -> None:
        line = Script(prebuffer)
        for what, count in plan:
            line.do(what, count)
        line.playout.release()
        line.drain(20_000)
        self.assertEqual(line.called, list(range(line.marks)))
        self.assertEqual(line.early, [])
        tones = sum(count for what, count in plan if what.startswith("tones"))
        self.assertEqual(line.played.count(BEEP), tones)
