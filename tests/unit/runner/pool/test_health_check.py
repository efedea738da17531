"""Checks of runners, through the real HTTP client on a reactor in memory."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.modes import MODES
from pipecat_bridge.runner.pool.address import FixedAddress
from pipecat_bridge.runner.pool.health_check import CHECK_TIMEOUT, HealthChecks, status_url
from pipecat_bridge.runner.pool.pool import Pool, Upstream
from tests.unit.chance import Middle
from tests.unit.runner_side import URL, ClientCase, Connection

INTERVAL = 5.0


class StartedAddress:
    """The address of a runner that starts. Counts how often it was asked for."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[str]] = []

    def url(self) -> Deferred[str]:
        self.waiting.append(Deferred(self.waiting.remove))
        return self.waiting[-1]

    def listens(self) -> None:
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(URL)


class CheckCase(ClientCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self, url: str = URL, address: Any = None, **options: Any) -> None:
        """One runner that is checked."""
        self.make()
        options = {"mode": "dialback", "health_interval": INTERVAL, **options}
        self.options = RunnerOptions(**options)
        self.upstream = Upstream(url, address or FixedAddress(url))
        self.pool = Pool([self.upstream], self.reactor, self.options, Middle())
        self.checks = HealthChecks(
            [self.upstream],
            self.client,
            self.reactor,
            self.options,
            MODES[self.options.mode].health_path,
            Middle(),
        )
        self.checks.start()
        self.kept: Connection | None = None
        self.addCleanup(self.checks.stop)

    @property
    def asked(self) -> int:
        """Requests, each on its own connection."""
        return self.dials

    def answer(self, status: int) -> None:
        self.accept().answer(
            b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status
        )

    def refuse(self) -> None:
        factory = self.reactor.tcpClients[self.taken][2]
        self.taken += 1
        factory.clientConnectionFailed(None, Failure(error.ConnectionRefusedError()))
        self.reactor.advance(0.5)  # the next address is tried for this long, and there is none

    def later(self) -> None:
        """The next check is due."""
        before = self.asked
        self.reactor.advance(INTERVAL)
        self.assertEqual(self.asked, before + 1)

    def open(self) -> None:
        while self.upstream.state != "open":
            lease = self.pool.take()
            assert lease is not None
            lease.failed("refused")


def default_url(base: str, mode: str) -> str:
    return status_url(base, "", MODES[mode].health_path)


class StatusURLTests(ClientCase):
    def test_by_mode(self) -> None:
        paths = {"embedded": "/health", "dialback": "/health", "dial": "/status"}
        for mode, path in {**paths, "twilio": "/status"}.items():
            self.assertEqual(default_url("http://a:1", mode), f"http://a:1{path}")

    def test_none_of_a_websocket(self) -> None:
        for mode in ("direct", "twilio"):
            for url in ("ws://a:1/ws", "wss://a/ws"):
                self.assertEqual(default_url(url, mode), "")

    def test_the_option_goes_before(self) -> None:
        self.assertEqual(
            status_url("https://a/b/", "/up?deep=1", "/status"), "https://a/b/up?deep=1"
        )
        self.assertEqual(
            status_url("ws://a:1/ws?key=2", "/up?deep=1", "/status"), "http://a:1/up?deep=1"
        )
        self.assertEqual(status_url("wss://a/ws", "/up?deep=1", ""), "https://a/up?deep=1")

    def test_a_query_of_the_url_is_kept(self) -> None:
        self.assertEqual(default_url("http://a/b?key=2#c", "dial"), "http://a/b/status?key=2")


class AnswerTests(CheckCase):
    def test_it_is_asked_at_once_and_then_at_intervals(self) -> None:
        self.assertEqual(self.upstream.health, "unknown")
        connection = self.accept()
        self.assertEqual(connection.requests(), [b"GET /health HTTP/1.1"])
        for _ in range(5):
            connection.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual(self.upstream.health, "fine")
            self.assertIsNone(self.upstream.breaker.limit)
            self.reactor.advance(INTERVAL)
        self.assertEqual(len(connection.requests()), 6)

    def test_what_each_status_means(self) -> None:
        wanted = {
            "fine": (200, 204, 301, 307, 400, 401, 404, 405),
            "draining": (429, 503),
            "silent": (500, 502, 504),
        }
        for health, statuses in wanted.items():
            for status in statuses:
                with self.subTest(status=status):
                    self.begin(breaker_failures=1)
                    self.answer(status)
                    self.assertEqual(self.upstream.health, health)
                    state = "open" if health == "silent" else "closed"
                    self.assertEqual(self.upstream.state, state)

    def test_no_answer_is_a_failure(self) -> None:
        for _ in range(3):
            self.assertEqual(self.upstream.state, "closed")
            self.refuse()
            self.assertEqual(self.upstream.health, "silent")
            self.reactor.advance(INTERVAL)
        self.assertEqual(self.upstream.state, "half-open")

    def test_a_slow_one_is_not_waited_for(self) -> None:
        self.begin(breaker_failures=1)
        self.accept()
        self.reactor.advance(CHECK_TIMEOUT - 0.1)
        self.assertEqual(self.upstream.health, "unknown")
        self.reactor.advance(0.2)
        self.assertEqual((self.upstream.health, self.upstream.state), ("silent", "open"))

    def test_a_draining_one_is_passed_over_until_another_check(self) -> None:
        self.answer(503)
        self.assertFalse(self.upstream.available)
        self.reactor.advance(INTERVAL - 0.1)
        self.assertFalse(self.upstream.available)
        self.reactor.advance(0.2)
        self.answer(200)
        self.assertEqual((self.upstream.available, self.upstream.breaker.limit), (True, 1))

    def test_busy_by_its_own_word_is_not_over_with_a_check(self) -> None:
        self.answer(200)
        lease = self.pool.take()
        assert lease is not None
        lease.busy(30.0)
        self.later()
        self.answer(200)
        self.assertTrue(self.upstream.breaker.busy_for)
        self.assertFalse(self.pool.available)

    def test_what_it_says_is_logged_when_it_changes(self) -> None:
        self.begin(breaker_failures=9)
        with capturedLogs() as captured:
            for _ in range(4):
                self.answer(502)
                self.later()
            self.answer(200)
        logged = [formatEvent(event) for event in captured if "name" in event]
        wanted = f"runner {URL} fails its health check: GET /health was answered with 502"
        self.assertEqual(logged, [wanted, f"runner {URL} is back"])


class BreakerTests(CheckCase):
    def test_a_good_check_is_the_probe(self) -> None:
        self.answer(200)
        self.open()
        self.later()
        self.assertEqual(self.upstream.state, "half-open")
        self.assertFalse(self.pool.could_try())
        self.answer(200)
        self.assertEqual((self.upstream.state, self.upstream.breaker.limit), ("closed", 1))

    def test_a_bad_check_opens_again(self) -> None:
        self.answer(200)
        self.open()
        self.later()
        self.answer(500)
        self.assertEqual((self.upstream.state, self.upstream.breaker.left), ("open", 2.0))

    def test_draining_frees_the_probe(self) -> None:
        self.answer(200)
        self.open()
        self.later()
        self.answer(503)
        self.assertEqual(self.upstream.state, "half-open")
        self.assertFalse(self.upstream.breaker.probing)
        self.later()
        self.answer(200)
        self.assertEqual(self.upstream.state, "closed")

    def test_none_beside_a_call_that_is_the_probe(self) -> None:
        self.answer(200)
        self.open()
        self.reactor.advance(1.1)
        probe = self.pool.take()
        assert probe is not None
        self.reactor.advance(INTERVAL * 3)
        self.assertEqual(self.asked, 1)
        probe.give_back()
        self.reactor.advance(INTERVAL)
        self.assertEqual(self.asked, 2)

    def test_back_from_silence_ends_the_delay(self) -> None:
        self.begin(breaker_delay=20.0)
        for _ in range(3):
            self.answer(500)
            self.later()
        self.assertEqual(self.upstream.state, "open")
        self.answer(200)
        self.assertEqual((self.upstream.state, self.upstream.breaker.limit), ("closed", 1))

    def test_one_that_answers_all_along_does_not_cut_it_short(self) -> None:
        self.begin(breaker_delay=20.0)
        self.answer(200)
        self.open()
        self.later()
        self.answer(200)
        self.assertEqual(self.upstream.state, "open")

    def test_after_one_failed_check_trust_begins_anew(self) -> None:
        self.answer(500)
        self.later()
        self.answer(200)
        self.assertEqual((self.upstream.state, self.upstream.breaker.limit), ("closed", 1))


class EmbeddedTests(CheckCase):
    def setUp(self) -> None:
        self.address = StartedAddress()
        self.begin(address=self.address, mode="embedded", breaker_failures=1)

    def test_while_it_starts_nothing_has_failed_and_calls_may_come(self) -> None:
        self.reactor.advance(60)
        self.assertEqual((self.upstream.health, self.upstream.state), ("unknown", "closed"))
        self.assertEqual((self.pool.available, self.pool.could_try()), (False, True))
        self.assertEqual((self.asked, len(self.address.waiting)), (0, 1))

    def test_it_is_asked_as_soon_as_it_listens(self) -> None:
        self.reactor.advance(7)
        self.address.listens()
        self.answer(200)
        self.assertTrue(self.pool.available)
        self.assertIsNone(self.upstream.breaker.limit)

    def test_while_it_starts_anew_it_is_not_ready(self) -> None:
        self.address.listens()
        self.answer(200)
        self.reactor.advance(INTERVAL)
        self.assertEqual((self.upstream.health, self.upstream.state), ("silent", "closed"))
        self.assertEqual((self.pool.available, self.pool.could_try()), (False, True))
        self.address.listens()
        self.answer(200)
        self.assertTrue(self.pool.available)


class AskingTests(CheckCase):
    def check(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.checks.check(self.upstream))

    def test_ahead_of_time_and_the_interval_begins_anew(self) -> None:
        self.answer(200)
        self.reactor.advance(INTERVAL - 1)
        checking = self.check()
        self.assertNoResult(checking)
        self.answer(503)
        self.successResultOf(checking)
        self.assertEqual(self.upstream.health, "draining")
        self.reactor.advance(INTERVAL - 0.1)
        self.assertEqual(self.asked, 2)
        self.reactor.advance(0.2)
        self.assertEqual(self.asked, 3)

    def test_never_two_at_once(self) -> None:
        checking = [self.check() for _ in range(3)]
        self.assertEqual(self.asked, 1)
        checking[0].cancel()
        self.failureResultOf(checking[0], CancelledError)
        self.answer(200)
        self.successResultOf(checking[1])
        self.successResultOf(checking[2])
        self.assertEqual(self.upstream.health, "fine")

    def test_an_error_of_the_address_is_logged_and_it_goes_on(self) -> None:
        class BrokenAddress:
            def url(self) -> Deferred[str]:
                raise LookupError("no such thing")

        self.begin(address=BrokenAddress())
        for _ in range(2):
            self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
            self.assertEqual(self.upstream.state, "closed")
            self.reactor.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_never(self) -> None:
        self.begin(health_interval=0.0)
        self.successResultOf(self.check())
        self.reactor.advance(60)
        self.assertEqual((self.asked, self.upstream.health), (0, "unchecked"))
        self.assertTrue(self.pool.available)

    def test_none_without_a_url_for_it(self) -> None:
        self.begin("ws://127.0.0.1/ws", mode="direct")
        self.reactor.advance(60)
        self.assertEqual((self.asked, self.upstream.health), (0, "unchecked"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_jitter(self) -> None:
        self.begin()
        self.checks._chance = random.Random(3)
        gaps = []
        for _ in range(200):
            self.answer(200)
            [timer] = self.reactor.getDelayedCalls()
            gaps.append(timer.getTime() - self.reactor.seconds())
            self.reactor.advance(gaps[-1] + 1e-6)
        self.assertTrue(4.0 <= min(gaps) < 4.1 and 5.9 < max(gaps) <= 6.0)


class StopTests(CheckCase):
    def left(self) -> None:
        self.checks.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.checks.stop()
        self.reactor.advance(60)
        self.assertEqual(self.upstream.state, "closed")

    def test_between_two_checks(self) -> None:
        self.answer(200)
        self.left()
        self.assertEqual((self.asked, self.upstream.health), (1, "fine"))

    def test_while_it_connects(self) -> None:
        self.begin(breaker_failures=1)
        self.left()
        self.assertEqual(self.upstream.health, "unknown")

    def test_while_it_waits_for_the_answer(self) -> None:
        for part in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"):
            self.begin(breaker_failures=1)
            connection = self.accept()
            connection.answer(part)
            self.left()
            self.assertTrue(connection.closed)
            self.assertEqual(self.upstream.health, "unknown")

    def test_while_it_is_the_probe(self) -> None:
        self.answer(200)
        self.open()
        self.later()
        self.assertTrue(self.upstream.breaker.probing)
        self.checks.stop()
        self.assertFalse(self.upstream.breaker.probing)

    def test_while_it_waits_for_an_address(self) -> None:
        address = StartedAddress()
        self.begin(address=address, mode="embedded")
        self.left()
        self.assertEqual(address.waiting, [])

    def test_started_again(self) -> None:
        self.answer(200)
        self.checks.stop()
        self.checks.start()
        self.assertEqual(self.asked, 2)
