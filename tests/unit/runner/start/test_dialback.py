"""Bots by /run and /stop, on a reactor in memory; the runner's answers are written by hand."""

from __future__ import annotations

import json
import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.web.client import Agent

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import BotRequest
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.options import Options, RunnerOptions, WebSocketOptions
from pipecat_bridge.runner.modes import MODES
from pipecat_bridge.runner.pool.address import FixedAddress
from pipecat_bridge.runner.pool.announced import AnnouncedAddress
from pipecat_bridge.runner.pool.pool import Pool, Upstream
from pipecat_bridge.runner.side import http_client, http_pool
from pipecat_bridge.runner.socket.dialback_server import DialbackServer
from pipecat_bridge.runner.start.bots import Bots, RunnerBot
from pipecat_bridge.runner.start.dialback import DialBack
from pipecat_bridge.runner.start.mode import Means
from tests.doubles.bot import BotDouble, Direction
from tests.doubles.bot_socket import DialError
from tests.doubles.link import join, turn
from tests.unit.bot_side import CALL, Heard, warnings
from tests.unit.runner_side import OK, URL, ClientCase, Connection

EMPTY = b"HTTP/1.1 %d Said\r\nContent-Length: 0\r\n\r\n"


class LateAddress:
    """A runner that is still being started."""

    def __init__(self) -> None:
        self.cancelled = False
        self.known: Deferred[str] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.cancelled = True

    def url(self) -> Deferred[str]:
        return self.known

    def refused(self, base: str) -> bool:
        return False


class DialBackCase(ClientCase):
    def make(self, address: Any = None, **options: Any) -> None:  # type: ignore[override]
        self.reactor = MemoryReactorClock()
        runner = RunnerOptions(**options)
        pool = http_pool(self.reactor, runner)
        agent = Agent(self.reactor, connectTimeout=1e6, pool=pool)
        self.client = http_client(self.reactor, agent, runner)
        self.dialback_server = DialbackServer(
            self.reactor, WebSocketOptions(), runner.require_token
        )
        self.dialback_server.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        options = Options(runner=runner)
        dialler: Any = None
        means = Means(
            options, self.client, self.dialback_server, dialler, lambda: "ws://127.0.0.1:8001/"
        )
        addresses = address if isinstance(address, list) else [address or FixedAddress(URL + "/")]
        upstreams = [Upstream(f"runner {n}", each) for n, each in enumerate(addresses, 1)]
        self.pool = Pool(upstreams, self.reactor, runner, random.Random(1))
        self.runner = Bots(
            self.reactor,
            MODES["dialback"],
            DialBack(means),
            self.pool,
            options,
            Descriptors(self.reactor),
            self.reactor.seconds,
        )
        self.heard = Heard()
        self.taken = 0

    def start(self, **parameters: Any) -> RunnerBot:
        request = BotRequest(CALL, parameters, {"caller": "42"})
        bot = self.runner.bot(request, Playout(), self.heard)
        bot.start()
        return bot

    def dial(self, ws_url: str, direction: Direction = None) -> BotDouble:
        """Dial back one socket, in memory."""
        bot = BotDouble(self.reactor)
        client = bot.socket(ws_url, direction)
        self.dial_error: Any = None
        client.opened.addErrback(lambda failure: setattr(self, "dial_error", failure.value))
        join(self.reactor, client, self.dialback_server.buildProtocol(None))
        turn(self.reactor, 0.005)
        return bot

    def stops(self, connection: Connection) -> int:
        self.reactor.advance(0)  # it is sent in a turn of its own
        return connection.requests().count(b"POST /stop?id=%s HTTP/1.1" % CALL.encode())


def sent_json(connection: Connection) -> dict[str, Any]:
    head, _, body = connection.transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"POST /run HTTP/1.1\r\n")
    sent: dict[str, Any] = json.loads(body)
    return sent


class DiedTests(DialBackCase):
    """An embedded runner that has ended. The kernel knows that before the bridge."""

    def refuse(self) -> None:
        _, _, factory, *_ = self.reactor.tcpClients[self.taken]
        self.taken += 1
        connector: Any = None
        factory.clientConnectionFailed(connector, Failure(Refused()))
        turn(self.reactor, 1.0)  # Twisted tells of it with a delay

    def test_the_next_one_is_waited_for(self) -> None:
        address = AnnouncedAddress()
        address.announce(URL)
        self.make(address)
        self.start()
        self.refuse()
        self.assertEqual((self.dials, address.base, self.heard.reasons), (1, "", []))
        address.announce("http://127.0.0.1:8009")
        self.assertEqual(self.reactor.tcpClients[1][1], 8009)
        sent_json(self.accept())

    def test_one_that_was_announced_meanwhile_is_kept(self) -> None:
        address = AnnouncedAddress()
        address.announce(URL)
        self.make(address)
        self.start()
        address.announce("http://127.0.0.1:8009")
        self.refuse()
        self.assertEqual(self.reactor.tcpClients[1][1], 8009)

    def test_not_for_ever(self) -> None:
        address = AnnouncedAddress()
        address.announce(URL)
        self.make(address, connect_timeout=5.0)
        bot = self.start()
        self.refuse()
        turn(self.reactor, 5.0)
        self.assertEqual(len(self.heard.reasons), 1)
        self.successResultOf(bot.stop())
        self.assertEqual(self.dials, 1)  # no /stop: nobody was asked

    def test_one_that_is_configured_has_failed(self) -> None:
        self.make()
        self.start()
        self.refuse()
        [failure] = self.heard.reasons
        self.assertTrue(failure.startswith("/run: Connection was refused"))


class RunTests(DialBackCase):
    def test_run_is_sent_at_once_with_all_that_the_runner_is_told(self) -> None:
        self.make(parameters={"llm_type": "local", "tts_type": "local"})
        self.start(llm_type="openai.gpt", stt_language="en")
        body = sent_json(self.accept())
        ws_url = body.pop("ws_url")
        self.assertEqual(
            body,
            {
                "id": CALL,
                "metadata": {"caller": "42"},
                "llm_type": "openai.gpt",
                "stt_language": "en",
                "tts_type": "local",
            },
        )
        self.assertRegex(ws_url, rf"^ws://127.0.0.1:8001/{CALL}/ws/[\w-]{{22}}$")

    def test_parameters_do_not_displace_the_call(self) -> None:
        self.start(id="other", ws_url="ws://elsewhere/", metadata="x")
        body = sent_json(self.accept())
        self.assertEqual((body["id"], body["metadata"]), (CALL, {"caller": "42"}))
        self.assertTrue(body["ws_url"].startswith("ws://127.0.0.1:8001/"))

    def test_ws_url_opens_the_door(self) -> None:
        for ways in ((None,), ("input", "output"), ("output", "input")):
            with self.subTest(ways=ways):
                self.make(require_token=True)
                self.start()
                ws_url = sent_json(self.accept())["ws_url"]
                for way in ways:
                    self.dial(ws_url, way)
                    self.assertIsNone(self.dial_error)
                self.reactor.advance(5.1)
                self.assertEqual(self.heard.names, ["ready"])

    def test_a_bot_may_dial_before_run_is_answered(self) -> None:
        self.start()
        connection = self.accept()
        self.dial(sent_json(connection)["ws_url"])
        self.assertEqual(self.heard.names, ["ready"])
        connection.answer(OK)
        self.reactor.advance(60)
        self.assertEqual(self.heard.reasons, [])

    def test_answers_that_are_consent(self) -> None:
        for body in (b"{}", b'{"status": "ok", "more": 1}', b"[]", b"null"):
            self.make()
            self.start()
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            self.accept().answer(head + body)
            self.assertEqual(self.heard.names, [])

    def test_answers_that_are_not(self) -> None:
        for status, body, reason in (
            (500, b"", "/run: answered with 500: no text"),
            (503, b"no  worker\nis free", "/run: answered with 503: no worker is free"),
            (429, b"\xff", "/run: answered with 429: \N{REPLACEMENT CHARACTER}"),
            (307, b"", "/run: answered with 307: no text"),
            (200, b"\x1b[2J\0", r"/run: an answer of 5 bytes that is not JSON: \x1b[2J\x00"),
            (404, b"x" * 1000, "/run: answered with 404: " + "x" * 200),
            (
                200,
                b'{"status": "ok"',
                '/run: an answer of 15 bytes that is not JSON: {"status": "ok"',
            ),
            (200, b'{"status": "error"}', '/run: answered with {"status": "error"}'),
        ):
            with self.subTest(reason=reason):
                self.make()
                self.start()
                head = b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                self.accept().answer(head + body)
                self.assertEqual((self.heard.names, self.heard.reasons), (["failed"], [reason]))

    def test_no_answer(self) -> None:
        self.make(request_timeout=3.0)
        self.start()
        self.reactor.advance(3)
        self.assertEqual(self.heard.reasons, ["/run: no complete answer within 3 s"])
        self.make()
        self.start()
        self.accept().lose()
        self.assertEqual(self.heard.names, ["failed"])
        self.assertTrue(self.heard.reasons[0].startswith("/run: the connection was closed"))

    def test_no_dial_back(self) -> None:
        for seconds in (10.0, 2.5):
            for ways in ((), ("input",), ("output",)):
                with self.subTest(seconds=seconds, ways=ways):
                    self.make(connect_timeout=seconds)
                    self.start()
                    connection = self.accept()
                    connection.answer(OK)
                    for way in ways:
                        self.dial(sent_json(connection)["ws_url"], way)
                    self.reactor.advance(seconds - 0.1)
                    self.assertEqual(self.heard.names, [])
                    self.reactor.advance(0.2)
                    reason = "the runner has not dialled back to ws://127.0.0.1:8001"
                    self.assertEqual(self.heard.reasons, [f"{reason} within {seconds:g} s"])

    def test_no_answer_and_no_dial_back(self) -> None:
        self.make()
        self.start()
        self.accept()
        self.reactor.advance(10.1)
        reason = (
            "the runner has neither dialled back to ws://127.0.0.1:8001 nor answered /run within"
        )
        self.assertEqual(self.heard.reasons, [f"{reason} 10 s"])

    def test_a_call_waits_for_a_runner_that_is_being_started(self) -> None:
        address = LateAddress()
        self.make(address)
        self.start()
        self.reactor.advance(5)
        self.assertEqual(self.dials, 0)
        address.known.callback("http://127.0.0.1:9")
        self.assertEqual(sent_json(self.accept())["id"], CALL)

    def test_but_not_longer_than_for_a_dial_back(self) -> None:
        address = LateAddress()
        self.make(address)
        bot = self.start()
        self.reactor.advance(10.1)
        self.assertEqual(self.heard.names, ["failed"])
        bot.stop()
        self.assertTrue(address.cancelled)
        self.assertEqual((self.dials, self.runner.stopping.count), (0, 0))


class StopTests(DialBackCase):
    def test_stop_is_sent_once(self) -> None:
        bot = self.start()
        connection = self.accept()
        connection.answer(OK)
        bot.stop()
        bot.stop()
        self.assertEqual((self.stops(connection), self.runner.stopping.count), (1, 1))
        connection.answer(OK)
        self.assertEqual((self.dials, self.runner.stopping.count), (1, 0))

    def test_in_every_state_of_run(self) -> None:
        for state in ("connecting", "asked", "answering", "refused", "dropped", "connected"):
            with self.subTest(state=state), warnings() as said:
                self.make()
                bot = self.start()
                run = None if state == "connecting" else self.accept()
                if run is not None and state == "answering":
                    run.answer(OK[:-3])
                elif run is not None and state == "refused":
                    run.answer(EMPTY % 500)
                elif run is not None and state == "dropped":
                    run.lose()
                elif run is not None and state == "connected":
                    run.answer(OK)
                    self.dial(sent_json(run)["ws_url"])
                told = list(self.heard.names)
                bot.stop()
                reused = state in ("refused", "connected")
                self.reactor.advance(0)
                stop = run if reused and run is not None else Connection(self._last_factory())
                self.assertEqual(self.stops(stop), 1)
                if not reused and run is not None and state != "dropped":
                    self.assertTrue(run.closed)
                stop.answer(EMPTY % 404)
                turn(self.reactor, 0.05)
                self.assertEqual(self.heard.names, told)
                self.assertEqual((said, self.runner.stopping.count), ([], 0))

    def _last_factory(self) -> Any:
        return self.reactor.tcpClients[-1][2]

    def test_a_stop_that_fails_is_logged_with_the_call(self) -> None:
        for answer, expected in (
            (EMPTY % 500, f"{CALL} /stop was answered with 500"),
            (b"", f"{CALL} /stop failed: the connection was closed without"),
        ):
            self.make()
            bot = self.start()
            connection = self.accept()
            connection.answer(OK)
            with warnings() as said:
                bot.stop()
                self.assertEqual(self.stops(connection), 1)
                if answer:
                    connection.answer(answer)
                else:
                    connection.lose()
                    self.accept().lose()
            self.assertEqual(len(said), 1)
            self.assertTrue(said[0].startswith(expected), said)
            self.assertEqual(self.runner.stopping.count, 0)

    def test_who_dials_after_it_is_refused(self) -> None:
        bot = self.start()
        ws_url = sent_json(self.accept())["ws_url"]
        bot.stop()
        self.dial(ws_url)
        self.assertIsInstance(self.dial_error, DialError)
        self.assertEqual(self.dial_error.status, 404)

    def test_it_closes_the_sockets_and_leaves_no_timer(self) -> None:
        for ways in ((None,), ("input", "output"), ("input",)):
            with self.subTest(ways=ways):
                self.make()
                bot = self.start()
                connection = self.accept()
                connection.answer(OK)
                dialled = [self.dial(sent_json(connection)["ws_url"], way) for way in ways]
                bot.stop()
                connection.answer(OK)
                turn(self.reactor, 0.05)
                closes = [how.code for each in dialled for how in each.closes]
                self.assertEqual(closes, [1000] * len(ways))
                self.reactor.advance(90)  # the pool's
                self.assertEqual(self.reactor.getDelayedCalls(), [])
