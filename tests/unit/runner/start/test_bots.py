"""A bot from a pool of runners: if one fails the next is asked, and there are never two bots."""

from __future__ import annotations

from typing import Any

from pipecat_bridge.runner.pool.address import FixedAddress
from pipecat_bridge.runner.pool.breaker import BUSY_SECONDS
from tests.doubles.link import turn
from tests.unit.bot_side import warnings
from tests.unit.runner.start.test_dialback import DialBackCase, sent_json
from tests.unit.runner_side import OK, Connection

FIRST, SECOND, THIRD = (f"http://127.0.0.{n}:8000" for n in (1, 2, 3))


def answer(status: int, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d Said" % status, b"Content-Length: 0", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class PoolCase(DialBackCase):
    def setUp(self) -> None:
        self.make_pool(2)

    def make_pool(self, runners: int, **options: Any) -> None:
        urls = (FIRST, SECOND, THIRD)[:runners]
        self.make([FixedAddress(url) for url in urls], **options)

    def asked(self) -> tuple[Connection, str]:
        """The next runner that is asked, with the URL it is to dial."""
        connection = self.accept()
        return connection, sent_json(connection)["ws_url"]

    def calls(self) -> list[int]:
        return [upstream.calls for upstream in self.pool.upstreams]


class NextRunnerTests(PoolCase):
    def test_one_that_refuses_is_followed_by_the_other_at_once(self) -> None:
        self.start()
        first, _ = self.asked()
        first.answer(answer(500))
        _, ws_url = self.asked()
        self.assertEqual(self.stops(first), 1)
        [(runner, reason)] = self.heard.attempts
        self.assertIn(runner, ("runner 1", "runner 2"))
        self.assertEqual(reason, "/run: answered with 500: no text")
        self.dial(ws_url)
        self.assertEqual(self.heard.names, ["ready"])
        self.assertEqual(sorted(self.calls()), [0, 1])

    def test_one_that_hangs_is_told_to_stop_and_what_it_dials_late_is_refused(self) -> None:
        self.make_pool(2, attempt_timeout=2.0, require_token=True)
        self.start()
        _, late_url = self.asked()
        self.reactor.advance(1.9)
        self.assertEqual(self.dials, 1)
        self.reactor.advance(0.2)
        stop, second = self.accept(), self.accept()
        if not self.stops(stop):
            stop, second = second, stop
        self.assertEqual(self.stops(stop), 1)
        for way in ("input", "output"):
            self.dial(late_url, way)
            self.assertEqual(self.dial_error.status, 403)
        self.assertEqual(self.heard.names, [])
        ws_url = sent_json(second)["ws_url"]
        for way in ("input", "output"):
            self.dial(ws_url, way)
            self.assertIsNone(self.dial_error)
        self.reactor.advance(5.1)
        self.assertEqual((self.heard.names, self.heard.ready_by), (["ready"], ["timeout"]))

    def test_half_a_bot_is_let_go(self) -> None:
        self.make_pool(2, attempt_timeout=2.0)
        bot = self.start()
        _, half_url = self.asked()
        half = self.dial(half_url, "input")
        self.reactor.advance(2.1)
        turn(self.reactor, 0.01)
        self.assertEqual([how.code for how in half.closes], [1000])
        assert bot.link is not None
        self.assertEqual((bot.link.connected, self.heard.names), (False, []))
        connections = [self.accept(), self.accept()]
        [second] = [each for each in connections if not self.stops(each)]
        whole = self.dial(sent_json(second)["ws_url"])
        self.assertEqual(self.heard.names, ["ready"])
        bot.link.send_audio(bytes(640), 16000)
        turn(self.reactor, 0.01)
        self.assertEqual((len(whole.audio), len(half.audio)), (1, 0))

    def test_the_deadline_is_of_the_whole_search(self) -> None:
        self.make_pool(3, connect_timeout=5.0, attempt_timeout=4.0)
        self.start()
        self.reactor.advance(4.1)
        self.assertEqual(self.heard.names, [])
        self.reactor.advance(1.0)
        self.assertEqual(self.heard.names, ["failed"])
        self.assertEqual(sum(self.calls()), 0)

    def test_the_last_one_has_all_the_time_that_is_left(self) -> None:
        self.make_pool(2, connect_timeout=10.0, attempt_timeout=2.0)
        self.start()
        self.reactor.advance(2.1)
        self.reactor.advance(7.8)
        self.assertEqual(self.heard.names, [])
        self.reactor.advance(0.2)
        self.assertTrue(self.heard.reasons[0].startswith("the runner has neither dialled back"))

    def test_when_all_refuse_the_reason_is_the_last_ones(self) -> None:
        with warnings():
            self.start()
            self.asked()[0].answer(answer(500))
            self.asked()[0].answer(answer(404))
        self.assertEqual(self.heard.reasons, ["/run: answered with 404: no text"])
        self.assertEqual(self.calls(), [0, 0])

    def test_when_none_is_left_it_is_said_why(self) -> None:
        self.make_pool(1, breaker_failures=1, breaker_delay=10.0)
        with warnings():
            self.start()
            self.asked()[0].answer(answer(500))
            self.start()
        self.assertEqual(self.dials, 1)
        self.assertTrue(
            self.heard.reasons[-1].startswith("no runner is left: runner 1 gets no calls")
        )


class FullRunnerTests(PoolCase):
    def test_one_that_is_full_is_passed_over_for_as_long_as_it_says(self) -> None:
        for status in (429, 503):
            self.make_pool(1)
            with warnings():
                self.start()
                self.asked()[0].answer(answer(status, b"Retry-After: 7"))
            [upstream] = self.pool.upstreams
            self.assertEqual((upstream.state, upstream.available), ("closed", False))
            self.reactor.advance(6.9)
            self.assertFalse(self.pool.available)
            self.reactor.advance(0.2)
            self.assertTrue(self.pool.available)

    def test_the_only_one_is_asked_again_soon(self) -> None:
        self.make_pool(1)
        with warnings():
            self.start()
            self.asked()[0].answer(answer(503, b"Retry-After: 60"))
            self.start()
        self.assertIn("runner 1 is busy", self.heard.reasons[-1])
        self.reactor.advance(BUSY_SECONDS)
        self.start().stop()
        self.assertEqual(self.heard.names, ["failed", "failed"])


class EndTests(PoolCase):
    def test_a_call_that_ends_in_the_midst_of_the_search(self) -> None:
        with warnings():
            bot = self.start()
            first, _ = self.asked()
            first.answer(answer(500))
            second, ws_url = self.asked()
            bot.stop()
        self.assertTrue(second.closed)
        self.dial(ws_url)
        self.assertEqual(self.dial_error.status, 404)
        self.reactor.advance(60)
        self.assertEqual((self.heard.names, self.calls()), ([], [0, 0]))

    def test_the_place_is_kept_while_the_bot_talks(self) -> None:
        bot = self.start()
        connection, ws_url = self.asked()
        connection.answer(OK)
        self.dial(ws_url)
        self.assertEqual(sum(self.calls()), 1)
        self.assertIn(bot.runner_name, ("runner 1", "runner 2"))
        bot.stop()
        self.assertEqual(sum(self.calls()), 0)

    def test_stop_fires_when_the_runner_knows(self) -> None:
        bot = self.start()
        connection, ws_url = self.asked()
        connection.answer(OK)
        dialled = self.dial(ws_url)
        stopped = bot.stop()
        turn(self.reactor, 0.01)
        self.assertEqual(len(dialled.closes), 1)
        self.assertNoResult(stopped)
        connection.answer(OK)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(self.runner.stopping.count, 0)

    def test_but_it_does_not_wait_for_ever(self) -> None:
        bot = self.start()
        connection, ws_url = self.asked()
        connection.answer(OK)
        self.dial(ws_url)
        stopped = bot.stop()
        self.reactor.advance(1.9)
        self.assertNoResult(stopped)
        self.reactor.advance(0.2)
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual(self.runner.stopping.count, 1)
        connection.answer(OK)
        turn(self.reactor, 0.05)
        self.assertEqual(self.runner.stopping.count, 0)
