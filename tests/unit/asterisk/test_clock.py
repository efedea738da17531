"""The 20 ms clock: no drift, short stalls lose no frame, no bursts, calls do not affect others."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.clock import CATCH_UP, SLOTS, FrameClock
from pipecat_bridge.audio.frame import FRAME

MS = 0.001
CLOSEST = FRAME / 2 - 1e-9
"""Two ticks of one call are never closer."""


class Loop:
    """Timers of a reactor that run late: `lateness()` seconds after each is due."""

    def __init__(self, lateness: Callable[[], float] = lambda: 0.0) -> None:
        self.time = 1000.0
        self._lateness = lateness
        self._clock = Clock()

    def now(self) -> float:
        return self.time

    def callLater(self, delay: float, call: Callable[..., object], *args: Any) -> Any:
        # Twisted's clock must not move while calls run, so this one only keeps the order.
        return self._clock.callLater(self.time + delay - self._clock.seconds(), call, *args)

    def run(self, until: float) -> None:
        """Turn the loop. Each turn runs what is due by then."""
        while self._clock.calls and self._clock.calls[0].getTime() <= until:
            due = self._clock.calls[0].getTime()
            self.time = max(self.time, due) + self._lateness()
            self._clock.advance(max(0.0, self.time - self._clock.seconds()))
        self.time = max(self.time, until)

    @property
    def timers(self) -> int:
        return len(self._clock.getDelayedCalls())


class Member:
    """A call that records the times of its ticks, and takes `work()` seconds for each."""

    def __init__(self, loop: Loop, work: Callable[[], float] = lambda: 0.0) -> None:
        self._loop = loop
        self._work = work
        self.times: list[float] = []

    def tick(self) -> None:
        self.times.append(self._loop.time)
        self._loop.time += self._work()

    @property
    def closest(self) -> float:
        return min(after - before for before, after in pairwise(self.times))


def unexpected(failure: Failure) -> None:
    failure.raiseException()


def clocked(lateness: Callable[[], float] = lambda: 0.0) -> tuple[Loop, FrameClock]:
    loop = Loop(lateness)
    return loop, FrameClock(loop, loop.now)  # type: ignore[arg-type]


class PaceTests(SynchronousTestCase):
    def test_ten_thousand_ticks_do_not_drift_though_each_is_late(self) -> None:
        chance = random.Random(1)
        loop, clock = clocked(lambda: chance.uniform(0, MS))
        member = Member(loop)
        clock.add(member.tick, unexpected)
        start = loop.time
        loop.run(start + 10_000 * FRAME + MS)
        self.assertEqual(len(member.times), 10_000)
        for number, time in enumerate(member.times):
            self.assertApproximates(time, start + (number + 1) * FRAME, 1.1 * MS)

    def test_the_work_of_the_ticks_does_not_add_up(self) -> None:
        loop, clock = clocked()
        members = [Member(loop, lambda: 0.0001) for _ in range(100)]
        for member in members:
            clock.add(member.tick, unexpected)
        start = loop.time
        loop.run(start + 60.0)
        for member in members:
            self.assertApproximates(len(member.times), 3000, 1)
            self.assertGreater(member.closest, FRAME - 2 * MS)

    def test_stalls_of_25_ms_lose_nothing_and_make_no_burst(self) -> None:
        chance = random.Random(2)
        stalls = 0

        def lateness() -> float:
            nonlocal stalls
            if chance.random() < 0.05:
                stalls += 1
                return 25 * MS
            return chance.uniform(0, MS)

        loop, clock = clocked(lateness)
        members = [Member(loop) for _ in range(7)]
        for member in members:
            clock.add(member.tick, unexpected)
        start = loop.time
        loop.run(start + 200.0)
        self.assertGreater(stalls, 500)
        for member in members:
            self.assertApproximates(len(member.times), 10_000, 2)
            self.assertGreaterEqual(member.closest, CLOSEST)
        self.assertEqual(clock.skipped, 0)

    def test_a_delay_shorter_than_a_frame_makes_no_burst_either(self) -> None:
        for late in (9 * MS, 15 * MS, 19 * MS):
            with self.subTest(late=late):
                delays = iter([0.0, late])
                loop, clock = clocked(lambda delays=delays: next(delays, 0.0))
                member = Member(loop)
                clock.add(member.tick, unexpected)
                start = loop.time
                loop.run(start + 20 * FRAME + MS)
                self.assertEqual(len(member.times), 20)
                self.assertGreaterEqual(member.closest, CLOSEST)

    def test_it_is_back_on_the_grid_after_a_stall(self) -> None:
        for stall in (25 * MS, 47 * MS, 60 * MS):
            with self.subTest(stall=stall):
                delays = iter([0.0, stall])
                loop, clock = clocked(lambda delays=delays: next(delays, 0.0))
                member = Member(loop)
                clock.add(member.tick, unexpected)
                start = loop.time
                loop.run(start + 50 * FRAME + MS)
                self.assertEqual(len(member.times), 50)
                self.assertApproximates(member.times[-1], start + 50 * FRAME, 1e-6)

    def test_a_stall_within_a_tick_is_made_good_as_well(self) -> None:
        work = iter([0.0, 0.0, 25 * MS])
        loop, clock = clocked()
        members = [Member(loop, lambda: next(work, 0.0)), *(Member(loop) for _ in range(30))]
        for member in members:
            clock.add(member.tick, unexpected)
        start = loop.time
        loop.run(start + 100 * FRAME + MS)
        for member in members:
            self.assertApproximates(len(member.times), 100, 1)
            self.assertGreaterEqual(member.closest, CLOSEST)


class LongStallTests(SynchronousTestCase):
    def test_a_long_stall_is_skipped_and_counted(self) -> None:
        for missed in (CATCH_UP + 3, 50, 500):
            with self.subTest(missed=missed):
                delays = iter([0.0, missed * FRAME])
                loop, clock = clocked(lambda delays=delays: next(delays, 0.0))
                members = [Member(loop), Member(loop)]
                for member in members:
                    clock.add(member.tick, unexpected)
                start = loop.time
                loop.run(start + (missed + 50) * FRAME + 3 * MS)
                ticks = sum(len(member.times) for member in members)
                self.assertApproximates(ticks + clock.skipped, 2 * (missed + 50), 2)
                # The tick that was late is one of those that were missed.
                self.assertApproximates(clock.skipped, 2 * (missed - 1), 2)
                for member in members:
                    self.assertGreaterEqual(member.closest, CLOSEST)
                    self.assertApproximates((member.times[-1] - start) % 0.002, 0.001, 0.00101)

    def test_each_member_is_told_how_many_are_skipped(self) -> None:
        delays = iter([0.0, 50 * FRAME])
        loop, clock = clocked(lambda: next(delays, 0.0))
        told: list[list[int]] = [[], [], []]
        members = [Member(loop) for _ in told]
        for member, counts in zip(members, told, strict=True):
            clock.add(member.tick, unexpected, counts.append)
        clock.align(members[2].tick, loop.time + 0.005)
        start = loop.time
        loop.run(start + 100 * FRAME + 3 * MS)
        for member, counts in zip(members, told, strict=True):
            self.assertEqual(len(counts), 1)
            self.assertApproximates(len(member.times) + counts[0], 100, 1)
        self.assertEqual(sum(map(sum, told)), clock.skipped)

    def test_one_that_fails_when_it_is_told_does_not_stop_the_others(self) -> None:
        delays = iter([0.0, 50 * FRAME])
        loop, clock = clocked(lambda: next(delays, 0.0))
        bad, good = Member(loop), Member(loop)
        failures: list[Failure] = []
        told: list[int] = []

        def fail(frames: int) -> None:
            raise ValueError(frames)

        for _ in range(SLOTS):  # so that two are in one slot
            clock.add(Member(loop).tick, unexpected)
        clock.add(bad.tick, failures.append, fail)
        for _ in range(SLOTS - 1):
            clock.add(Member(loop).tick, unexpected)
        clock.add(good.tick, unexpected, told.append)
        loop.run(loop.time + 100 * FRAME)
        self.assertEqual([type(each.value) for each in failures], [ValueError])
        self.assertEqual(len(told), 1)
        self.assertGreater(len(good.times), len(bad.times) + 10)

    def test_a_loop_that_stalls_in_every_turn_is_never_caught_up_in_a_burst(self) -> None:
        loop, clock = clocked(lambda: 25 * MS)
        member = Member(loop)
        clock.add(member.tick, unexpected)
        start = loop.time
        loop.run(start + 10.0)
        self.assertGreaterEqual(member.closest, CLOSEST)
        self.assertApproximates(len(member.times) + clock.skipped, 500, 1 + CATCH_UP)
        self.assertGreater(clock.skipped, 0)


class MemberTests(SynchronousTestCase):
    def test_calls_are_spread_over_the_frame(self) -> None:
        loop, clock = clocked()
        members = [Member(loop) for _ in range(30 * SLOTS)]
        for member in members:
            clock.add(member.tick, unexpected)
        start = loop.time
        loop.run(start + FRAME)
        instants: dict[float, int] = {}
        for member in members:
            self.assertEqual(len(member.times), 1)
            instant = round(member.times[0] - start, 6)
            instants[instant] = instants.get(instant, 0) + 1
        self.assertEqual(set(instants.values()), {30})
        self.assertEqual(len(instants), SLOTS)
        spaces = {round(b - a, 6) for a, b in pairwise(sorted(instants))}
        self.assertEqual(spaces, {FRAME / SLOTS})

    def test_places_that_became_free_are_taken_again(self) -> None:
        loop, clock = clocked()
        old = [Member(loop) for _ in range(SLOTS)]
        for member in old:
            clock.add(member.tick, unexpected)
        for member in old[3:7]:
            clock.remove(member.tick)
        new = [Member(loop) for _ in range(4)]
        for member in new:
            clock.add(member.tick, unexpected)
        loop.run(loop.time + FRAME)
        times = [member.times[0] for member in (*old[:3], *new, *old[7:])]
        self.assertEqual(len(set(times)), SLOTS)

    def test_the_first_tick_comes_within_a_frame_whenever_one_joins(self) -> None:
        chance = random.Random(3)
        loop, clock = clocked()
        for _ in range(100):
            loop.run(loop.time + chance.uniform(0, 0.05))
            member, joined = Member(loop), loop.time
            clock.add(member.tick, unexpected)
            loop.run(joined + FRAME + 1e-6)
            self.assertGreaterEqual(len(member.times), 1)
            self.assertGreater(member.times[0], joined)

    def test_one_that_is_removed_is_ticked_no_more(self) -> None:
        loop, clock = clocked()
        member, other = Member(loop), Member(loop)
        clock.add(member.tick, unexpected)
        clock.add(other.tick, unexpected)
        loop.run(loop.time + 10 * FRAME)
        clock.remove(member.tick)
        clock.remove(member.tick)
        clock.remove(Member(loop).tick)
        ticked = len(member.times)
        loop.run(loop.time + 10 * FRAME)
        self.assertEqual(len(member.times), ticked)
        self.assertEqual(len(other.times), 20)

    def test_without_members_no_timer_is_left(self) -> None:
        loop, clock = clocked()
        member = Member(loop)
        self.assertEqual(loop.timers, 0)
        clock.add(member.tick, unexpected)
        self.assertEqual(loop.timers, 1)
        clock.remove(member.tick)
        self.assertEqual(loop.timers, 0)

    def test_one_that_removes_itself_or_another_within_a_tick(self) -> None:
        loop, clock = clocked()
        members = [Member(loop) for _ in range(2 * SLOTS)]
        second = members[SLOTS]  # of the same slot as the first
        ticked: list[str] = []

        def end_both() -> None:
            ticked.append("first")
            clock.remove(end_both)
            clock.remove(second.tick)

        clock.add(end_both, unexpected)
        for member in members[1:]:
            clock.add(member.tick, unexpected)
        loop.run(loop.time + 5 * FRAME)
        self.assertEqual(ticked, ["first"])
        self.assertEqual(second.times, [])
        for member in members[1:SLOTS]:
            self.assertEqual(len(member.times), 5)

    def test_one_that_joins_within_a_tick_waits_for_the_next_round(self) -> None:
        for others in (0, SLOTS - 1):  # so that the newcomer gets a slot of its own, or shares
            with self.subTest(others=others):
                loop, clock = clocked()
                newcomer = Member(loop)
                asked: list[float] = []

                def invite(
                    loop: Loop = loop,
                    clock: FrameClock = clock,
                    newcomer: Member = newcomer,
                    asked: list[float] = asked,
                ) -> None:
                    asked.append(loop.time)
                    clock.add(newcomer.tick, unexpected)

                clock.add(invite, unexpected)
                for _ in range(others):
                    clock.add(Member(loop).tick, unexpected)
                loop.run(loop.time + 11 * FRAME)
                self.assertGreater(newcomer.times[0], asked[0])
                self.assertGreaterEqual(newcomer.closest, CLOSEST)
                self.assertApproximates(len(newcomer.times), 10, 1)

    def test_joining_twice_is_joining_once(self) -> None:
        loop, clock = clocked()
        member = Member(loop)
        clock.add(member.tick, unexpected)
        clock.add(member.tick, unexpected)
        loop.run(loop.time + 10 * FRAME)
        self.assertEqual(len(member.times), 10)

    def test_one_that_fails_is_ticked_no_more_and_does_not_stop_the_others(self) -> None:
        loop, clock = clocked()
        members = [Member(loop) for _ in range(2 * SLOTS)]

        def fail() -> None:
            raise RuntimeError("a fault of this call")

        failures: list[Failure] = []
        clock.add(fail, failures.append)
        for member in members:
            clock.add(member.tick, unexpected)
        loop.run(loop.time + 10 * FRAME)
        self.assertEqual({len(member.times) for member in members}, {10})
        self.assertEqual([each.type for each in failures], [RuntimeError])


STEPPED = """
import sys, time

wall, step = time.time, [0.0]
time.time = lambda: wall() + step[0]  # before Twisted looks at it

from twisted.internet import reactor
from pipecat_bridge.asterisk.clock import FrameClock
from pipecat_bridge.net.reactor import keep_time

keep_time(reactor)
ticks, clock = [], FrameClock(reactor)
start = time.monotonic()

def tick():
    ticks.append(time.monotonic())
    if len(ticks) == 5:
        step[0] = float(sys.argv[1])
    if len(ticks) == 15:
        reactor.stop()

clock.add(tick, print)
reactor.run()
print(len(ticks))
"""


class AlignTests(SynchronousTestCase):
    def test_from_the_next_tick_on_it_follows_the_time(self) -> None:
        for offset in range(5, 20):
            with self.subTest(offset=offset):
                loop, clock = clocked()
                others = [Member(loop) for _ in range(30)]
                member = Member(loop)
                for each in (member, *others):
                    clock.add(each.tick, unexpected)
                loop.run(loop.time + 0.1)
                wanted = member.times[-1] + offset * MS
                loop.run(member.times[-1] + 1e-6)
                before = len(member.times)
                clock.align(member.tick, wanted)
                loop.run(loop.time + 1.0)
                later = member.times[before:]
                self.assertGreaterEqual(later[0], wanted - 1e-6)
                self.assertLessEqual(later[0], wanted + 2 * MS + 1e-6)
                spaces = [after - at for at, after in pairwise(later)]
                self.assertApproximates(min(spaces), FRAME, 1e-6)
                self.assertApproximates(max(spaces), FRAME, 1e-6)
                for other in others:
                    spaces = [after - at for at, after in pairwise(other.times)]
                    self.assertApproximates(max(spaces), FRAME, 1e-6)

    def test_it_goes_on_until_a_time_that_is_far_away(self) -> None:
        """A bot whose first audio must wait for longer than a frame: the phone gets silence."""
        for offset in range(5, 400, 7):
            with self.subTest(offset=offset):
                loop, clock = clocked()
                member = Member(loop)
                clock.add(member.tick, unexpected)
                loop.run(loop.time + 0.1)
                wanted = loop.time + offset * MS
                clock.align(member.tick, wanted)
                loop.run(loop.time + 1.0)
                spaces = [after - at for at, after in pairwise(member.times)]
                self.assertLess(max(spaces), 2 * FRAME)
                first = min(at for at in member.times if at >= wanted - 1e-6)
                self.assertLessEqual(first, wanted + 2 * MS + 1e-6)

    def test_two_ticks_are_never_closer_than_5_ms(self) -> None:
        loop, clock = clocked()
        member = Member(loop)
        clock.add(member.tick, unexpected)
        for step in range(200):
            loop.run(loop.time + 0.041)
            clock.align(member.tick, loop.time + step % 20 * MS)
        loop.run(loop.time + 0.1)
        spaces = [after - at for at, after in pairwise(member.times)]
        self.assertGreaterEqual(min(spaces), FRAME / 4 - 1e-6)
        self.assertLessEqual(max(spaces), 2.1 * FRAME)

    def test_a_member_that_left_is_ignored(self) -> None:
        loop, clock = clocked()
        member = Member(loop)
        clock.align(member.tick, loop.time + 0.01)
        loop.run(loop.time + 0.1)
        self.assertEqual((member.times, loop.timers), ([], 0))


class WallClockTests(SynchronousTestCase):
    def test_a_step_of_the_wall_clock_does_not_matter(self) -> None:
        for step in (-3600, 3600):
            with self.subTest(step=step):
                done = subprocess.run(
                    [sys.executable, "-c", STEPPED, str(step)],
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=True,
                )
                self.assertEqual(done.stdout.strip(), "15")
