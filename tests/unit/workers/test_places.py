"""Which worker has which call."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.call.preparations import MAX_BYTES, MAX_CALLS
from pipecat_bridge.workers.places import Places


class PlacesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.places: Places[str] = Places(self.clock, keep_ended=3)

    def loads(self) -> list[int]:
        return [self.places.load(worker) for worker in ("one", "two")]


class PhoneTests(PlacesCase):
    def test_a_call_is_known_while_it_runs_and_some_time_after(self) -> None:
        self.assertIsNone(self.places.worker_of("a"))
        phone = self.places.arrive("a", "one")
        self.assertEqual((self.places.worker_of("a"), self.places.running("a")), ("one", "one"))
        self.assertEqual((self.places.calls, self.loads()), (1, [1, 0]))
        self.assertEqual(self.places.leave(phone), "one")
        self.assertEqual((self.places.worker_of("a"), self.places.running("a")), ("one", None))
        self.assertEqual((self.places.calls, self.loads()), (0, [0, 0]))
        self.assertIsNone(self.places.leave(phone))

    def test_only_the_last_that_ended_are_known(self) -> None:
        for call_id in "abcd":
            self.places.leave(self.places.arrive(call_id, "one"))
        self.places.leave(self.places.arrive("b", "two"))
        known = {call_id: self.places.worker_of(call_id) for call_id in "abcd"}
        self.assertEqual(known, {"a": None, "b": "two", "c": "one", "d": "one"})

    def test_two_phones_with_one_uuid_are_one_call(self) -> None:
        first, second = self.places.arrive("a", "one"), self.places.arrive("a", "one")
        self.assertEqual((self.places.calls, self.places.calls_of("one")), (1, 1))
        self.assertEqual(self.loads(), [2, 0])
        self.places.leave(second)
        self.assertEqual((self.places.calls, self.places.running("a")), (1, "one"))
        self.places.leave(first)
        self.assertEqual(self.places.calls, 0)

    def test_phones_without_a_uuid_are_no_calls(self) -> None:
        phones = [self.places.arrive("", "one") for _ in range(2)]
        self.assertEqual((self.places.calls, self.loads()), (0, [2, 0]))
        self.assertIsNone(self.places.worker_of(""))
        for phone in phones:
            self.places.leave(phone)
        self.assertEqual(self.loads(), [0, 0])


class PreparationTests(PlacesCase):
    def prepare(self, call_id: str, worker: str = "one", seconds: float = 60.0) -> None:
        self.places.prepare(call_id, worker, b"{}", seconds)

    def test_it_counts_until_it_has_come(self) -> None:
        self.prepare("a")
        self.assertEqual((self.places.worker_of("a"), self.loads()), ("one", [1, 0]))
        phone = self.places.arrive("a", "one")
        self.places.forget("a")
        self.assertEqual((self.places.calls, self.loads()), (1, [1, 0]))
        self.places.leave(phone)
        self.assertEqual(self.loads(), [0, 0])

    def test_a_phone_that_was_refused_may_come_again(self) -> None:
        self.prepare("a")
        self.places.leave(self.places.arrive("a", "one"))
        self.assertIsNotNone(self.places.preparation("a"))

    def test_it_expires(self) -> None:
        self.prepare("a")
        self.clock.advance(30.0)
        self.prepare("b", "two")
        self.clock.advance(29.9)
        self.assertEqual(self.loads(), [1, 1])
        self.clock.advance(0.1)
        self.assertEqual((self.places.worker_of("a"), self.loads()), (None, [0, 1]))
        self.clock.advance(30.0)
        self.assertEqual(self.loads(), [0, 0])

    def test_anew(self) -> None:
        self.prepare("a")
        self.clock.advance(59.0)
        self.prepare("a", "two")
        self.assertEqual(self.loads(), [0, 1])
        self.clock.advance(59.0)
        self.assertEqual(self.places.worker_of("a"), "two")

    def test_what_is_too_much_is_told_and_nothing_is_lost(self) -> None:
        for number in range(MAX_CALLS):
            self.prepare(str(number))
        self.assertIn("prepared already", self.places.why_full("more", 2))
        self.assertEqual(self.places.why_full("7", 2), "", "in the place of what was there")
        self.places.forget("0")
        self.assertEqual(self.places.why_full("more", 2), "")
        self.assertEqual(self.loads(), [MAX_CALLS - 1, 0])

    def test_the_bytes_of_all(self) -> None:
        half = bytes(MAX_BYTES // 2)
        self.places.prepare("a", "one", half, 60.0)
        self.places.prepare("b", "two", half, 50.0)
        self.assertIn(f"more than {MAX_BYTES} bytes", self.places.why_full("c", 1))
        self.assertEqual(self.places.why_full("b", len(half)), "")
        for number in range(3):
            self.places.prepare("b", "two", half[: 10 * number], 50.0)
        self.assertEqual(self.places.why_full("c", len(half) - 20), "")
        self.assertNotEqual(self.places.why_full("c", len(half) - 19), "")
        self.places.lose("one")  # its preparations stay
        self.assertNotEqual(self.places.why_full("c", len(half) - 19), "")
        self.clock.advance(60.0)
        self.assertEqual(self.places.why_full("c", 2 * len(half)), "")


class LossTests(PlacesCase):
    def test_calls_are_lost_with_their_worker_and_preparations_are_not(self) -> None:
        for call_id in ("a", "b"):
            self.places.arrive(call_id, "one")
        self.places.arrive("", "one")
        self.places.arrive("c", "two")
        self.places.leave(self.places.arrive("d", "one"))
        self.places.prepare("e", "one", b"{}", 60.0)
        self.assertEqual(self.places.lose("one"), (2, 3))
        known = {call_id: self.places.worker_of(call_id) for call_id in "abcde"}
        self.assertEqual(known, {"a": None, "b": None, "c": "two", "d": None, "e": None})
        self.assertEqual((self.places.calls, self.loads()), (1, [0, 1]))

        preparation = self.places.preparation("e")
        assert preparation is not None
        self.assertIsNone(preparation.worker)
        self.places.move(preparation, "two")
        self.assertEqual((self.places.worker_of("e"), self.loads()), ("two", [0, 2]))
        self.places.move(preparation, "one")
        self.assertEqual(self.loads(), [1, 1])
        self.places.forget("e")
        self.assertEqual(self.loads(), [0, 1])

    def test_nothing_to_lose(self) -> None:
        self.assertEqual(self.places.lose("one"), (0, 0))
