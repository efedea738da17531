"""50 starts a second over three runners, one of which dies and comes back."""

from __future__ import annotations

import random
from typing import Any, Literal
from urllib.parse import urlsplit

from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource
from twisted.web.server import Request
from zope.interface import implementer

from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.pool.address import FixedAddress
from pipecat_bridge.runner.pool.health_check import HealthChecks
from pipecat_bridge.runner.pool.pool import Lease, Pool, Upstream
from pipecat_bridge.runner.side import http_client

RATE = 50
"""Starts a second."""

ATTEMPT = 4.0
"""Seconds that a start may take at one runner."""

Way = Literal["alive", "refuses", "hangs", "drains"]


class Start:
    """A call's start at a runner: connects after 0.2 to 0.8 s, or does not."""

    def __init__(self, runner: Runner, call: Call, lease: Lease) -> None:
        self.runner, self.call, self.lease = runner, call, lease
        self.begun = runner.clock.seconds()
        self.alive = runner.way == "alive"
        self.timer = runner.clock.callLater(self.takes(), self.end)

    def takes(self) -> float:
        if self.runner.way == "alive":
            return self.runner.chance.uniform(0.2, 0.8)
        return ATTEMPT if self.runner.way == "hangs" else 0.002

    def runner_dies(self) -> None:
        self.alive = False
        now = self.runner.clock.seconds()
        self.timer.reset(max(0.0, self.begun + self.takes() - now))

    def end(self) -> None:
        self.runner.starting.remove(self)
        if self.alive:
            self.runner.connected(self.lease)
            self.call.placed = True
            return
        if self.runner.way == "drains":
            self.lease.busy(None)
        else:
            self.lease.failed(self.runner.way)
        self.call.seek()


class Runner:
    """A runner whose bots run for 4 to 8 s. If the runner hangs, its old bots still run."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self.clock = clock
        self.chance = chance
        self.way: Way = "alive"
        self.starting: list[Start] = []
        self.running: set[Lease] = set()
        self.successes = 0
        self.seen: list[tuple[float, int, int]] = []  # at each start: time, under way, successes

    def start(self, call: Call, lease: Lease) -> None:
        self.starting.append(Start(self, call, lease))
        self.seen.append((self.clock.seconds(), len(self.starting), self.successes))

    def connected(self, lease: Lease) -> None:
        self.successes += 1
        lease.ready()
        self.running.add(lease)
        self.clock.callLater(self.chance.uniform(4, 8), self.over, lease)

    def over(self, lease: Lease) -> None:
        self.running.discard(lease)
        lease.give_back()  # a second time, where the bot was lost before

    def die(self, way: Way) -> None:
        self.way = way
        for lease in list(self.running if way == "refuses" else ()):
            self.over(lease)
        for start in list(self.starting):
            start.runner_dies()

    def come_back(self) -> None:
        self.way, self.successes = "alive", 0


class Call:
    """A call that asks one runner after another until it has a bot, as in the daemon."""

    def __init__(self, load: LoadCase) -> None:
        self.load = load
        self.tried: list[Upstream] = []
        self.placed = False
        self.seek()

    def seek(self) -> None:
        lease = self.load.pool.take(self.tried)
        if lease is None:
            self.load.refused += 1
            return
        self.tried.append(lease.upstream)
        self.load.runners[lease.upstream].start(self, lease)


class Health(Resource):
    isLeaf = True

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(self.status)
        return b"{}"


@implementer(IAgent)
class Network:
    """An HTTP agent that asks the runners in memory for /health."""

    def __init__(self, load: LoadCase) -> None:
        self.load = load
        self.alive = RequestTraversalAgent(Health(200))
        self.draining = RequestTraversalAgent(Health(503))

    def request(self, method: bytes, uri: bytes, *rest: Any) -> Deferred[Any]:
        host = urlsplit(uri).netloc.decode()
        [way] = [
            runner.way
            for upstream, runner in self.load.runners.items()
            if upstream.name.endswith(host)
        ]
        if way in ("alive", "drains"):
            agent = self.alive if way == "alive" else self.draining
            return agent.request(method, uri, *rest)
        return Deferred() if way == "hangs" else fail(ConnectError())


class LoadCase(SynchronousTestCase):
    interval = 0.0

    def setUp(self) -> None:
        self.clock = Clock()
        chance = random.Random(11)
        options = RunnerOptions(mode="dialback", health_interval=self.interval)
        upstreams = [
            Upstream(name, FixedAddress(name)) for name in ("http://a", "http://b", "http://c")
        ]
        self.pool = Pool(upstreams, self.clock, options, chance)
        self.runners = {each: Runner(self.clock, chance) for each in upstreams}
        client = http_client(self.clock, Network(self), options)
        self.checks = HealthChecks(upstreams, client, self.clock, options, "/health", chance)
        self.checks.start()
        self.addCleanup(self.checks.stop)
        self.calls: list[Call] = []
        self.refused = 0
        self.victim = upstreams[1]

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds * RATE)):
            self.calls.append(Call(self))
            self.clock.advance(1 / RATE)

    def settle(self) -> None:
        for _ in range(40):
            self.clock.advance(0.5)

    def shares(self) -> list[int]:
        return [upstream.calls for upstream in self.pool.upstreams]

    @property
    def most_tried(self) -> int:
        return max(len(call.tried) for call in self.calls)


class EvenTests(LoadCase):
    def test_the_load_is_shared_out_evenly(self) -> None:
        self.run_for(12)
        self.assertApproximates(min(self.shares()), max(self.shares()), 12)
        self.settle()
        self.assertEqual((self.shares(), self.refused, self.most_tried), ([0, 0, 0], 0, 1))


class HerdTests(LoadCase):
    """Without health checks: calls find out which runner is dead."""

    def dies(self, way: Way) -> list[tuple[float, int, int]]:
        """12 s of load, then 20 s with one dead runner. Returns the starts that it got then."""
        self.run_for(12)
        runner = self.runners[self.victim]
        runner.die(way)
        runner.seen.clear()
        died = self.clock.seconds()
        self.run_for(20)
        return [(when - died, *rest) for when, *rest in runner.seen]

    def comes_back(self) -> list[tuple[float, int, int]]:
        """40 s of load with all runners alive. Returns the starts of the one that was dead."""
        runner = self.runners[self.victim]
        runner.come_back()
        runner.seen.clear()
        back = self.clock.seconds()
        self.run_for(40)
        return [(when - back, *rest) for when, *rest in runner.seen]

    def nothing_is_lost(self) -> None:
        """Every call got a bot, at its second runner at the latest, and no place is left taken."""
        self.settle()
        self.assertEqual(self.refused, 0)
        self.assertTrue(all(call.placed for call in self.calls))
        self.assertEqual(self.most_tried, 2)
        self.assertEqual(self.shares(), [0, 0, 0])

    def no_herd(self, seen: list[tuple[float, int, int]]) -> None:
        """Under way at each start: at most 1, 2, 4, 8 .. after so many successes."""
        self.assertGreater(len(seen), 200)
        for when, under_way, successes in seen:
            self.assertLessEqual(under_way, 2**successes, f"{when:.2f} s after its return")
        self.assertApproximates(min(self.shares()), max(self.shares()), 20)

    def test_one_that_refuses(self) -> None:
        seen = self.dies("refuses")
        self.assertLess(len(seen), 8)  # a probe after 1, 3, 7, 15 s, each a call that went on
        self.no_herd(self.comes_back())
        self.nothing_is_lost()

    def test_one_that_hangs(self) -> None:
        seen = self.dies("hangs")
        self.assertLess(sum(when <= ATTEMPT for when, _, _ in seen), 40)  # of 200
        self.assertLess(sum(when > ATTEMPT for when, _, _ in seen), 6)
        self.no_herd(self.comes_back())
        self.nothing_is_lost()

    def test_it_is_found_soon_after_its_return(self) -> None:
        self.dies("refuses")
        self.assertLess(self.comes_back()[0][0], 30)  # breaker_max_delay


class CheckedHerdTests(HerdTests):
    """With health checks: no call is a probe."""

    interval = 5.0

    def test_no_call_is_a_probe_while_others_are_there(self) -> None:
        seen = self.dies("refuses")
        self.assertEqual([each for each in seen if each[0] > 1.0], [])

    def test_it_is_found_soon_after_its_return(self) -> None:
        self.dies("refuses")
        self.assertLess(self.comes_back()[0][0], self.interval * 1.2 + 0.1)

    def test_one_that_is_drained_and_started_anew(self) -> None:
        seen = self.dies("drains")
        self.assertLess(max(when for when, _, _ in seen), self.interval * 1.2 + 0.1)
        self.runners[self.victim].die("refuses")
        self.run_for(3)
        self.assertEqual(self.victim.state, "closed")
        self.no_herd(self.comes_back())
        self.nothing_is_lost()
