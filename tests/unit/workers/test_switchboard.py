"""Which worker gets a phone. Workers and connections are stand-ins; tests/e2e has real ones."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pipecat_bridge.config.load import load_options
from pipecat_bridge.net.rate_limit import BURST
from pipecat_bridge.workers import commands
from pipecat_bridge.workers.places import PreparedElsewhere
from pipecat_bridge.workers.switchboard import NO_WORKER, STOPPED, Switchboard
from tests.unit.bot_side import warnings


class Hand:
    """A worker that answers at once, or when a test says so."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = True
        self.answers: list[Any] = []
        self.taken: list[tuple[int, int]] = []
        self.told: list[tuple[Any, dict[str, Any]]] = []

    def take_phone(self, sock: Any, phone: int, data: bytes, elsewhere: int) -> Deferred[bool]:
        self.taken.append((phone, elsewhere))
        return self.answers.pop(0) if self.answers else succeed(True)

    def tell(self, command: Any, **arguments: Any) -> None:
        if self.ready:
            self.told.append((command, arguments))


class Phone:
    """An arrival."""

    peer = "10.0.0.7:4711"
    data = b""
    socket = None

    def __init__(self, call_id: str = "") -> None:
        self.call_id = call_id
        self.open = True
        self.refused = False

    def taken(self) -> None:
        pass

    def close(self) -> None:
        self.open = False

    def refuse(self) -> None:
        self.refused = True
        self.open = False


class SwitchboardCase(SynchronousTestCase):
    settings: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.clock = Clock()
        self.prepared: list[tuple[int, str]] = []
        self.preparing: Deferred[bool] = succeed(True)
        options = load_options(overrides=self.settings)
        self.board: Any = Switchboard(self.clock, options, self.prepare)
        self.said = self.enterContext(warnings())
        self.first, self.second = Hand(1), Hand(2)
        self.board.workers = [self.first, self.second]

    def prepare(self, worker: Any, call_id: str, _: PreparedElsewhere[Any]) -> Deferred[bool]:
        self.prepared.append((worker.number, call_id))
        return self.preparing

    def arrive(self, call_id: str = "") -> Phone:
        phone = Phone(call_id)
        self.board.arrived(phone)
        return phone

    def counts(self) -> tuple[int, int]:
        return len(self.first.taken), len(self.second.taken)

    def lose(self, worker: Hand) -> None:
        worker.ready = False
        self.board.worker_lost(worker)


class ChoiceTests(SwitchboardCase):
    def test_the_one_with_the_fewest(self) -> None:
        for number in range(4):
            self.assertFalse(self.arrive(str(number)).open, "it is the worker's now")
        self.assertEqual(self.counts(), (2, 2))
        [phone, _] = [phone for phone, _ in self.first.taken]
        self.board.call_ended(phone)
        self.arrive("4")
        self.assertEqual(self.counts(), (3, 2))
        self.arrive()
        self.assertEqual(self.counts(), (4, 2))

    def test_one_that_is_not_ready_gets_none(self) -> None:
        self.first.ready = False
        for number in range(3):
            self.arrive(str(number))
        self.assertEqual(self.counts(), (0, 3))

    def test_what_is_refused_does_not_count(self) -> None:
        for number in range(4):
            self.first.answers.append(succeed(False))
            self.arrive(str(number))
        self.assertEqual(self.counts(), (4, 0))
        self.assertEqual((self.board.places.calls, self.board.on_phones.count), (0, 0))

    def test_a_uuid_that_is_in_a_call(self) -> None:
        self.arrive("a")
        self.arrive("b")
        self.arrive("b")
        self.arrive("b")
        self.assertEqual(self.counts(), (1, 3))

    def test_a_prepared_call(self) -> None:
        self.arrive("a")
        self.board.places.prepare("b", self.first, b"", 60.0)
        self.arrive("c")
        self.arrive("d")
        self.assertEqual(self.counts(), (1, 2))
        self.arrive("b")
        self.assertEqual((self.counts(), self.prepared), ((2, 2), []))
        self.assertIsNone(self.board.places.preparation("b"))


class NoWorkerTests(SwitchboardCase):
    def setUp(self) -> None:
        super().setUp()
        self.first.ready = self.second.ready = False

    def test_a_phone_waits_for_one(self) -> None:
        phone = self.arrive("a")
        self.assertEqual((phone.open, phone.refused), (True, False))
        self.second.ready = True
        self.board.worker_ready(self.second)
        self.assertEqual((self.counts(), phone.open), ((0, 1), False))

    def test_but_not_for_ever(self) -> None:
        phone, silent = self.arrive("a"), Phone()
        self.board.too_late(phone)
        self.board.too_late(silent)
        self.assertTrue(phone.refused)
        self.assertTrue(silent.refused)
        refused = "connection from 10.0.0.7:4711 refused:"
        late = "no call UUID within 5 s"
        self.assertEqual(self.said, [f"a {refused} {NO_WORKER}", f"- {refused} {late}"])
        self.first.ready = True
        self.board.worker_ready(self.first)
        self.assertEqual((self.counts(), self.board.phones_refused), ((0, 0), 2))


class LossTests(SwitchboardCase):
    def test_its_calls_are_counted(self) -> None:
        for number in range(4):
            self.arrive(str(number))
        self.lose(self.first)
        self.assertEqual((self.board.calls_lost, self.board.places.calls), (2, 2))
        self.assertEqual(self.board.on_phones.count, 2)
        idle = self.board.on_phones.idle()
        for phone, _ in self.second.taken:
            self.board.call_ended(phone)
        self.successResultOf(idle)
        for phone, _ in self.first.taken:
            self.board.call_ended(phone)  # what it still said
        self.assertEqual(self.board.on_phones.count, 0)

    def test_a_phone_that_it_was_about_to_get(self) -> None:
        answer: Deferred[bool] = Deferred()
        self.first.answers.append(answer)
        phone = self.arrive("a")
        self.assertTrue(phone.open, "the worker has no descriptor of its own yet")
        self.first.ready = False
        answer.errback(ConnectionLost())
        self.board.worker_lost(self.first)
        self.assertIn("refused: worker 1 has ended", self.said[0])
        self.assertEqual((self.board.calls_lost, self.board.on_phones.count), (0, 0))

    def test_another_is_told_what_was_prepared_before_the_phone_comes(self) -> None:
        self.board.places.prepare("a", self.first, b"", 60.0)
        self.lose(self.first)
        self.preparing = Deferred()
        phone = self.arrive("a")
        self.assertEqual((self.prepared, self.counts()), ([(2, "a")], (0, 0)))
        self.preparing.callback(True)
        self.assertEqual((self.counts(), phone.open), ((0, 1), False))

    def test_many_phones_without_a_worker_are_a_few_lines(self) -> None:
        self.first.ready = self.second.ready = False
        for _ in range(100):
            self.board.too_late(self.arrive("a"))
        self.assertEqual((len(self.said), self.board.phones_refused), (BURST, 100))

    def test_a_phone_that_does_not_wait_for_that(self) -> None:
        self.board.places.prepare("a", self.first, b"", 60.0)
        self.lose(self.first)
        self.preparing = Deferred()
        phone = self.arrive("a")
        phone.close()
        self.preparing.callback(True)
        self.assertEqual(self.counts(), (0, 0))

    def test_what_could_not_be_told_again_is_a_call_without_it(self) -> None:
        self.board.places.prepare("a", self.first, b"", 60.0)
        self.lose(self.first)
        self.preparing = succeed(False)
        self.arrive("a")
        self.assertEqual(self.counts(), (0, 1))

    def test_a_worker_that_ends_while_it_is_told(self) -> None:
        self.board.places.prepare("a", self.first, b"", 60.0)
        self.lose(self.first)
        self.preparing = Deferred()
        phone = self.arrive("a")
        self.first.ready = True
        self.lose(self.second)
        self.preparing.callback(False)
        self.assertEqual((self.counts(), phone.open), ((1, 0), False))

    def test_asking_for_it_moves_it_as_well(self) -> None:
        self.board.places.prepare("a", self.first, b"", 60.0)
        self.lose(self.first)
        for _ in range(2):
            worker = self.successResultOf(Deferred.fromCoroutine(self.board.worker_for("a")))
            self.assertIs(worker, self.second)
        self.assertEqual(self.prepared, [(2, "a")])


class LimitTests(SwitchboardCase):
    settings = ("calls.max_calls=10",)

    def elsewhere(self, worker: Hand) -> list[int]:
        return [
            arguments["calls"]
            for command, arguments in worker.told
            if command is commands.CallsElsewhere
        ]

    def test_each_knows_what_the_others_have(self) -> None:
        for number in range(4):
            self.arrive(str(number))
        self.assertEqual([elsewhere for _, elsewhere in self.first.taken], [0, 1])
        self.assertEqual([elsewhere for _, elsewhere in self.second.taken], [1, 2])
        self.assertEqual(self.elsewhere(self.first), [1, 2])
        self.assertEqual(self.elsewhere(self.second), [1, 2])
        self.board.call_ended(self.first.taken[0][0])
        self.assertEqual(self.elsewhere(self.second)[-1], 1)
        self.lose(self.first)
        self.assertEqual(self.elsewhere(self.second)[-1], 0)
        self.first.ready = True
        self.board.worker_ready(self.first)
        self.assertEqual(self.elsewhere(self.first)[-1], 2)


class NoLimitTests(SwitchboardCase):
    def test_nobody_needs_to_know(self) -> None:
        for number in range(4):
            self.arrive(str(number))
        self.assertEqual(self.first.told, [])


class EndTests(SwitchboardCase):
    def test_draining(self) -> None:
        self.second.ready = False
        self.board.drain()
        self.assertEqual(self.first.told, [(commands.Drain, {})])
        self.second.ready = True
        self.board.worker_ready(self.second)
        self.assertEqual(self.second.told, [(commands.Drain, {})])
        self.arrive("a")  # to be refused by a worker, in its words
        self.assertEqual(self.counts(), (1, 0))

    def test_after_the_end_no_worker_gets_a_phone(self) -> None:
        self.first.ready = self.second.ready = False
        waiting = self.arrive("a")
        self.board.end()
        self.first.ready = True
        late = self.arrive("b")
        self.assertEqual((waiting.refused, late.refused), (True, True))
        self.assertTrue(all(line.endswith(STOPPED) for line in self.said))
        self.assertEqual(self.counts(), (0, 0))

    def test_a_worker_that_fails_otherwise(self) -> None:
        self.first.answers.append(fail(RuntimeError("no descriptor")))
        phone = self.arrive("a")
        self.assertTrue(phone.refused)
        self.assertIn("refused: worker 1 has ended", self.said[0])
        self.assertEqual(self.board.places.calls, 0)
