"""Late is not missing: silence replaces only what the caller's phone did not send."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.caller_time import LONGEST, SHORTEST, CallerTime

FRAME = 0.02


class Caller:
    """A caller's phone, on a turned clock. `silence` are the times of the frames of silence."""

    def __init__(self, hold_after: float = 0.5) -> None:
        self.time = CallerTime(hold_after)
        self.now = 100.0
        self.began = self.now
        self.heard = 0.0
        self.silence: list[float] = []
        self.time.start(self.now)

    def turn(self, seconds: float) -> None:
        for _ in range(round(seconds / FRAME)):
            self.now += FRAME
            self.silence += [self.now] * self.time.tick(self.now)

    def speak(self, seconds: float) -> None:
        """A frame every 20 ms."""
        for _ in range(round(seconds / FRAME)):
            self.turn(FRAME)
            self.bring(FRAME)

    def bring(self, seconds: float) -> None:
        """All of it at once."""
        for _ in range(round(seconds / FRAME)):
            self.time.hear(FRAME, self.now)
            self.heard += FRAME

    @property
    def behind(self) -> float:
        """Seconds that the bot got less than the time that has passed."""
        return self.now - self.began - self.heard - len(self.silence) * FRAME

    def filled_in(self, gap: float) -> float:
        """Seconds of silence in a real gap of so many seconds."""
        before = len(self.silence)
        self.turn(gap)
        self.speak(1.0)
        return (len(self.silence) - before) * FRAME


class LateTests(SynchronousTestCase):
    def test_a_stall_after_which_all_comes_gets_no_silence(self) -> None:
        for stall in (0.06, 0.1, 0.2, 0.4, 0.5):
            with self.subTest(stall=stall):
                caller = Caller()
                for _ in range(10):
                    caller.speak(1.0)
                    caller.turn(stall)
                    caller.bring(stall)
                self.assertEqual(caller.silence, [])
                self.assertApproximates(caller.behind, 0.0, 0.001)

    def test_bursts_are_known_after_the_first_one(self) -> None:
        """Also if gaps were real before: then it has learned to fill early."""
        for burst in (0.16, 0.3, 0.6):
            for real in (0, 5):
                with self.subTest(burst=burst, real=real):
                    caller = Caller()
                    for _ in range(real):
                        caller.speak(1.0)
                        caller.turn(1.0)
                    caller.speak(0.4)
                    before = len(caller.silence)
                    for _ in range(round(3.0 / burst)):
                        caller.turn(burst)
                        caller.bring(burst)
                    adapted = len(caller.silence)
                    for _ in range(40):
                        caller.turn(burst)
                        caller.bring(burst)
                    self.assertEqual(len(caller.silence), adapted)
                    self.assertLessEqual((adapted - before) * FRAME, burst)

    def test_a_stall_that_was_too_long_is_set_off_against_later_silence(self) -> None:
        caller = Caller()
        caller.speak(1.0)
        caller.turn(0.8)
        caller.bring(0.8)
        self.assertApproximates(caller.behind, -0.8, 0.021)
        caller.speak(1.0)
        caller.turn(3.0)
        self.assertApproximates(caller.behind, 0.0, 0.35)  # no more than 0.5 s is set off

    def test_what_comes_slowly_was_late_too(self) -> None:
        caller = Caller()
        caller.speak(1.0)
        caller.turn(0.4)
        for _ in range(20):
            caller.turn(FRAME)
            caller.bring(2 * FRAME)
        caller.speak(1.0)
        self.assertEqual(caller.silence, [])
        self.assertEqual(caller.filled_in(0.4), 0.0)


class RealTests(SynchronousTestCase):
    def test_a_phone_that_often_pauses_is_filled_soon(self) -> None:
        caller = Caller()
        filled = [caller.filled_in(0.4) for _ in range(6)]
        self.assertEqual(filled[0], 0.0)
        self.assertGreater(filled[-1], 0.38)
        caller.speak(1.0)
        before = caller.now
        caller.turn(0.3)
        self.assertApproximates(caller.silence[-1] - before, 0.3, 0.03)
        first = next(at for at in caller.silence if at > before)
        self.assertLessEqual(first - before, SHORTEST + 2 * FRAME)

    def test_after_ten_seconds_a_gap_may_be_late_audio_again(self) -> None:
        caller = Caller()
        for _ in range(5):
            caller.filled_in(0.4)
        caller.speak(11.0)
        before = len(caller.silence)
        caller.turn(0.4)
        caller.bring(0.4)
        self.assertEqual(len(caller.silence), before)

    def test_on_hold_the_bot_gets_silence_in_real_time(self) -> None:
        caller = Caller()
        caller.speak(1.0)
        caller.turn(10.0)
        self.assertApproximates(caller.behind, 0.0, 0.021)
        spaces = {
            round(b - a, 3) for a, b in zip(caller.silence[30:], caller.silence[31:], strict=False)
        }
        self.assertEqual(spaces, {FRAME})

    def test_the_time_is_an_option(self) -> None:
        for hold_after in (0.1, 1.0, 30.0):
            caller = Caller(hold_after)
            caller.speak(1.0)
            caller.turn(hold_after + 1.0)
            self.assertApproximates(caller.silence[0] - caller.began, 1.0 + hold_after, 0.021)

    def test_a_mixture_stays_within_the_limits(self) -> None:
        for seed in range(20):
            with self.subTest(seed=seed):
                chance, caller = Random(seed), Caller()
                for _ in range(100):
                    caller.speak(chance.uniform(0.1, 2.0))
                    gap = chance.choice([0.06, 0.1, 0.3, 0.45, 0.9])
                    caller.turn(gap)
                    if chance.random() < 0.5:
                        caller.bring(gap)
                    self.assertLess(caller.behind, LONGEST + 0.6)
                caller.speak(1.0)
                caller.turn(5.0)
                self.assertLess(caller.behind, 0.021)
