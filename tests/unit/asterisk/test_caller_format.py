"""The format of audio of kind 0x10 is recognised by the length and the pace of the frames."""

from __future__ import annotations

from itertools import accumulate, cycle, islice

from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.asterisk.caller_format import FRAMES, WINDOW, WINDOWS, CallerFormat
from pipecat_bridge.audio import g711
from tests.doubles.asterisk import JITTER
from tests.unit.signals import tone

MS = 0.001


def jittered(spacing: float, count: int) -> list[float]:
    """Arrival times of frames that are sent every `spacing` seconds: 13 to 27 ms apart for 20."""
    shifts = islice(cycle(JITTER), count)
    return [number * spacing + shift for number, shift in enumerate(shifts)]


def take(taken: CallerFormat, payload: bytes, time: float) -> list[bytes]:
    taken.watch(payload, time)
    return taken.convert(payload)


def feed(taken: CallerFormat, payloads: list[bytes], times: list[float]) -> list[bytes]:
    out: list[bytes] = []
    for payload, time in zip(payloads, times, strict=True):
        out += take(taken, payload, time)
    return out


def cut(pcm: bytes, size: int) -> list[bytes]:
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


class LinearTests(SynchronousTestCase):
    def test_the_usual_frame_is_linear_and_goes_on_at_once(self) -> None:
        for times in ([n * 20 * MS for n in range(60)], jittered(20 * MS, 60), [0.0] * 60):
            taken = CallerFormat("ulaw")
            for number, payload in enumerate(cut(tone(440, 8000, 1.2), 320)):
                self.assertEqual(take(taken, payload, times[number]), [payload])
                self.assertEqual((taken.codec, taken.rate), ("linear", 8000))
            self.assertTrue(taken.settled)
            self.assertEqual(taken.doubt, "")

    def test_frames_that_catch_up_are_not_taken_for_16_khz(self) -> None:
        taken = CallerFormat("ulaw")
        feed(taken, [bytes(320)] * 60, [number * 8 * MS for number in range(60)])
        self.assertEqual((taken.codec, taken.rate), ("linear", 8000))

    def test_frames_of_other_lengths_are_known_by_their_pace(self) -> None:
        pcm = tone(440, 8000, 3.0)
        for size in (160, 240, 480, 640, 960):
            for when in (self.every(size), jittered(size / 16000, 30) if size > 250 else None):
                with self.subTest(size=size):
                    taken = CallerFormat("ulaw")
                    out = feed(taken, cut(pcm, size)[:30], when or self.every(size))
                    self.assertEqual((taken.codec, taken.rate), ("linear", 8000))
                    self.assertEqual(b"".join(out), pcm[: 30 * size])

    def every(self, size: int) -> list[float]:
        return [number * size / 16000 for number in range(30)]

    def test_the_usual_frame_settles_what_came_before_it(self) -> None:
        for first in (42, 276, 160, 640):
            taken = CallerFormat("ulaw")
            self.assertEqual(take(taken, b"\1" * first, 0.0), [])
            self.assertEqual(take(taken, b"\2" * 320, 0.02), [b"\1" * first, b"\2" * 320])
            self.assertEqual(taken.codec, "linear")

    def test_ten_ms_frames_are_not_mistaken_for_g711(self) -> None:
        times = {
            "even": [number * 10 * MS for number in range(30)],
            "jittered": jittered(10 * MS, 30),
            "in pairs": [number // 2 * 20 * MS for number in range(30)],
            "one late": [number * 10 * MS + (52 * MS if number > 4 else 0) for number in range(30)],
            "held": [number * 10 * MS + (5.0 if number > 4 else 0) for number in range(30)],
            "a stall of 0.3 s at the start": [max(0.3, number * 10 * MS) for number in range(50)],
        }
        pcm = tone(440, 8000, 0.5)
        for name, when in times.items():
            with self.subTest(name=name):
                taken = CallerFormat("ulaw")
                out = feed(taken, cut(pcm, 160)[: len(when)], when)
                self.assertEqual((taken.codec, taken.rate), ("linear", 8000))
                self.assertEqual(b"".join(out), pcm[: len(when) * 160])

    def test_at_half_its_pace_linear_is_linear_if_its_level_says_so(self) -> None:
        quiet, loud = (tone(440, 8000, 2.0, level) for level in (-60, -20))
        for codec in ("ulaw", "alaw"):
            for name, pcm in {"silence": bytes(32000), "quiet": quiet, "loud": loud}.items():
                for size in (160, 320, 480):
                    with self.subTest(codec=codec, name=name, size=size):
                        payloads = cut(pcm, size)[:60]
                        taken = CallerFormat(codec)
                        out = feed(taken, payloads, [n * size / 8000 for n in range(60)])
                        self.assertEqual(taken.codec, "linear")
                        self.assertEqual(b"".join(out), b"".join(payloads))

    def test_loud_and_at_half_its_pace_for_a_second(self) -> None:
        """Then nothing tells it from G.711 until the pace is right again."""
        taken = CallerFormat("ulaw")
        payloads = cut(tone(440, 8000, 4.0, 0), 320)[:150]
        slow = [number * 40 * MS for number in range(60)]
        feed(taken, payloads[:60], slow)
        self.assertEqual(taken.codec, "g711")
        feed(taken, payloads[60:], [slow[-1] + number * 20 * MS for number in range(90)])
        self.assertEqual((taken.codec, taken.settled), ("linear", True))

    def test_silence_is_linear_however_long_its_pace_is_halved(self) -> None:
        """Zeros are silence only if they are linear. What follows them is looked at anew."""
        for sound, codec in ((tone(440, 8000, 2.0, -20), "linear"), (b"\x80" * 32000, "g711")):
            with self.subTest(codec=codec):
                taken = CallerFormat("ulaw")
                payloads = [bytes(320)] * 300 + cut(sound, 320)
                times = [number * 40 * MS for number in range(len(payloads))]
                feed(taken, payloads[:300], times[:300])
                self.assertEqual((taken.codec, taken.settled), ("linear", False))
                feed(taken, payloads[300:], times[300:])
                self.assertEqual(taken.codec, codec)

    def test_forty_ms_frames_are_not_mistaken_for_16_khz(self) -> None:
        for when in ([number * 40 * MS for number in range(15)], jittered(40 * MS, 15)):
            taken = CallerFormat("ulaw")
            pcm = tone(440, 8000, 0.6)
            self.assertEqual(b"".join(feed(taken, cut(pcm, 640), when)), pcm)
            self.assertEqual((taken.codec, taken.rate), ("linear", 8000))

    def test_after_a_second_nothing_changes_it(self) -> None:
        taken = CallerFormat("ulaw")
        feed(taken, [bytes(320)] * 50, jittered(20 * MS, 50))
        self.assertTrue(taken.settled)


class G711Tests(SynchronousTestCase):
    def times(self, count: int) -> dict[str, list[float]]:
        even = [number * 20 * MS for number in range(count)]
        spaces = [0.0, *[20 * MS] * (count - 1)]
        stalled = list(spaces)
        stalled[3], stalled[4], stalled[5] = 52 * MS, 4 * MS, 4 * MS
        begun_late = list(spaces)  # the first was read only with the second and third
        begun_late[1] = begun_late[2] = 0.0
        return {
            "even": even,
            "jittered": jittered(20 * MS, count),
            "52 ms late, and caught up": list(accumulate(stalled)),
            "three at once": list(accumulate(begun_late)),
            # Seen on a machine of two cores with a load of ten.
            "a stall of 0.25 s at the start": [max(0.25, time) for time in even],
            "a stall of 0.15 s a little later": [
                0.2 if 0.05 < time < 0.2 else time for time in even
            ],
            "piles of five": [time // 0.1 * 0.1 for time in even],
            "at once": [0.0] * count,
            "held": [time + (5.0 if number > 4 else 0) for number, time in enumerate(even)],
        }

    def test_both_codecs_are_decoded_with_nothing_lost(self) -> None:
        encoded = bytes(range(256)) * 40
        for codec in ("ulaw", "alaw"):
            for name, when in self.times(len(encoded) // 160).items():
                with self.subTest(codec=codec, name=name):
                    taken = CallerFormat(codec)
                    out = feed(taken, cut(encoded, 160), when)
                    self.assertEqual((taken.codec, taken.rate), ("g711", 8000))
                    self.assertEqual(b"".join(out), g711.decode(codec, encoded))

    def test_sounds_of_all_levels(self) -> None:
        for codec in ("ulaw", "alaw"):
            for level in (-90, -60, -40, -20, -3, 0):
                for silent in (0.0, 0.5):
                    with self.subTest(codec=codec, level=level, silent=silent):
                        pcm = bytes(round(16000 * silent)) + tone(440, 8000, 1.2 - silent, level)
                        encoded = g711.encode(codec, pcm)
                        taken = CallerFormat(codec)
                        feed(taken, cut(encoded, 160), jittered(20 * MS, 60))
                        self.assertEqual(taken.codec, "g711")

    def test_a_pace_that_lasts_is_believed_at_last(self) -> None:
        """Also of octets that are quiet as linear samples, and loud in both laws."""
        taken = CallerFormat("ulaw")
        payloads = [b"\x01\x00" * 80] * (WINDOW * WINDOWS)
        feed(taken, payloads[:-1], jittered(20 * MS, len(payloads))[:-1])
        self.assertEqual((taken.codec, taken.settled), ("linear", False))
        take(taken, payloads[-1], jittered(20 * MS, len(payloads))[-1])
        self.assertEqual(taken.codec, "g711")

    def test_the_other_law_after_silence(self) -> None:
        taken = CallerFormat("alaw")
        times = jittered(20 * MS, 2 * WINDOW)
        feed(taken, [b"\xff" * 160] * (2 * WINDOW), times)
        self.assertEqual(taken.codec, "g711")

    def test_frames_of_all_lengths(self) -> None:
        encoded = bytes(range(256)) * 160
        for size in (80, 160, 240, 320, 480):
            for first in (size, 42, 276):
                with self.subTest(size=size, first=first):
                    taken = CallerFormat("ulaw")
                    payloads = [encoded[:first], *cut(encoded[first:], size)][:60]
                    out = feed(taken, payloads, jittered(size / 8000, 60))
                    self.assertEqual((taken.codec, taken.rate), ("g711", 8000))
                    self.assertIn("8000 bytes a second", taken.doubt)
                    self.assertEqual(out[-1], g711.decode("ulaw", payloads[-1]))
                    if size != 320:  # which counts as linear at first
                        whole = b"".join(payloads)
                        self.assertEqual(b"".join(out), g711.decode("ulaw", whole))

    def test_the_usual_length_is_corrected_after_two_seconds(self) -> None:
        taken = CallerFormat("alaw")
        for number in range(WINDOW):
            self.assertEqual(taken.codec, "linear" if number else None)
            take(taken, b"\xd5" * 320, number * 40 * MS)
        self.assertEqual((taken.codec, taken.phone_codec), ("g711", "alaw"))

    def test_a_busy_machine_does_not_make_it_g711(self) -> None:
        """For half a second, and once more later, each frame takes 40 ms; then all catch up."""
        times = [number * 20 * MS for number in range(WINDOW)]
        for slow in (range(12), range(20, 32)):
            for number in slow:
                times[number] = times[slow[0]] + (number - slow[0]) * 40 * MS
        times = list(accumulate(times, max))
        taken = CallerFormat("ulaw")
        out = feed(taken, [bytes(320)] * WINDOW, times)
        self.assertEqual((taken.codec, taken.settled), ("linear", True))
        self.assertEqual(len(out), WINDOW)

    def test_a_wrong_decision_is_corrected_by_what_follows(self) -> None:
        """The first frames come twice as fast, as after a short stall."""
        taken = CallerFormat("ulaw")
        times = [number * 10 * MS for number in range(15)]
        times += [times[-1] + number * 20 * MS for number in range(1, 50)]
        payloads = [b"\x80" * 160] * len(times)
        feed(taken, payloads[:15], times[:15])
        self.assertEqual(taken.codec, "linear")
        feed(taken, payloads[15:], times[15:])
        self.assertEqual(taken.codec, "g711")
        self.assertFalse(taken.settled)

    def test_pauses_of_a_linear_phone_do_not_look_like_it(self) -> None:
        taken = CallerFormat("ulaw")
        times = [number * 20 * MS + number // 5 * 0.3 for number in range(60)]
        feed(taken, [bytes(320)] * 60, times)
        self.assertEqual((taken.codec, taken.settled), ("linear", True))

    def test_nothing_is_passed_on_before_it_is_decided(self) -> None:
        taken = CallerFormat("ulaw")
        for number in range(FRAMES - 1):
            self.assertEqual(take(taken, b"\xff" * 160, number * 20 * MS), [])
            self.assertIsNone(taken.codec)
        self.assertEqual(len(take(taken, b"\xff" * 160, (FRAMES - 1) * 20 * MS)), FRAMES)
        self.assertEqual(len(take(taken, b"\xff" * 160, FRAMES * 20 * MS)), 1)

    def test_the_last_frame_may_be_of_any_length(self) -> None:
        taken = CallerFormat("ulaw")
        feed(taken, [b"\x80" * 160] * 12, self.times(12)["even"])
        for size in (1, 21, 138, 159):
            with self.subTest(size=size):
                (out,) = take(taken, b"\x80" * size, 1.0)
                self.assertEqual(out, g711.decode("ulaw", b"\x80" * size))


class WidebandTests(SynchronousTestCase):
    def test_frames_of_old_releases_are_16_khz(self) -> None:
        pcm = tone(440, 16000, 0.6)
        for when in ([number * 20 * MS for number in range(30)], jittered(20 * MS, 30)):
            taken = CallerFormat("ulaw")
            self.assertEqual(b"".join(feed(taken, cut(pcm, 640), when)), pcm)
            self.assertEqual((taken.codec, taken.rate), ("slin16", 16000))
