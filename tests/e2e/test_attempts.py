"""One start of a bot after the other: nothing of one reaches the next, and none comes too soon."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from twisted.internet.protocol import Protocol

from pipecat_bridge.events.events import CallEvent
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.link import join
from tests.e2e.dialled import constant, samples
from tests.e2e.memory_line import MemoryLine, memory_line
from tests.e2e.test_pool import Runners, asked, make

FIRST, SECOND = 7000, 3000
"""Values of the samples of two bots: each can be told from silence and from the other."""


def first_at(runner: Any, it: MemoryLine) -> None:
    """The next call is tried at this one first."""
    for upstream in it.bridge.runner.pool.upstreams:
        upstream.turn = 0.0 if upstream.name == runner.url else 1.0


def kinds(it: MemoryLine, phone: StrictAsterisk) -> list[str]:
    """Of the call's events."""
    return [event["kind"] for event in it.events(phone)]


def test_what_half_a_bot_has_said_is_neither_heard_nor_believed() -> None:
    def speaks(bot: Any) -> None:
        bot.rtvi("bot-ready", {"version": "1.0.0"})
        bot.burst(constant(FIRST, 0.1), 8000)

    def runners(clock: Any) -> Runners:
        half = make("dialback", clock, sockets="output", on_open=speaks)
        return Runners(half, make("dialback", clock, ready_after=0.5))

    with memory_line("runner.attempt_timeout=0.5", make=runners) as it:
        half, whole = it.runner.each
        first_at(half, it)
        phone = it.dial()
        phone.start_audio()
        it.clock.turn(0.9)
        assert "call.ready" not in kinds(it, phone)
        [failed] = it.events(phone, "bot.error")
        assert (failed["data"]["category"], failed["data"]["runner"]) == ("start", half.url)
        assert it.record(phone)["quality"]["bot_frames"] == 0
        it.clock.turn(0.3)
        assert "call.ready" in kinds(it, phone)
        bot = whole.bots[str(phone.call_id)]
        bot.burst(constant(SECOND, 0.2), 8000)
        it.clock.turn(0.5)
        heard = set(samples(phone))
        assert SECOND in heard
        assert FIRST not in heard
        assert bot.faults == [], "no audio came before it was ready"
        # What it was told to be ready for has come: the caller's audio until then, bounded.
        assert bot.audio
        phone.hangup()
        it.clock.turn(0.5)


@pytest.mark.parametrize("away", [0.5, 2.0, 5.0])
def test_a_server_that_is_redeployed_is_waited_for(away: float) -> None:
    with memory_line("calls.on_bot_lost=restart", make=lambda clock: make("dial", clock)) as it:
        phone, bot = it.talk()
        phone.start_audio()
        it.clock.turn(0.5)
        before = len(phone.frames)
        bot.close(1012, "Service Restart")
        it.clock.refuse(urlsplit(it.runner.url).port or 0, away)
        it.clock.turn(away)
        assert it.record(phone)["state"] == "resuming"
        waiting = samples(phone)[before * 160 :]
        assert any(waiting), "the caller hears that something is going on"
        it.clock.turn(2.1)  # the longest pause between two starts
        assert it.record(phone)["state"] == "talking"
        assert it.record(phone)["quality"]["bots_replaced"] == 1
        assert "bot.resumed" in kinds(it, phone)
        again = it.runner.bots[str(phone.call_id)]
        assert again is not bot
        again.burst(constant(SECOND, 0.2), 8000)
        it.clock.turn(0.5)
        assert SECOND in samples(phone)
        phone.hangup()
        it.clock.turn(0.5)
        assert it.record(phone)["outcome"] == "caller-hangup"


def test_a_server_that_does_not_come_back_is_waited_for_until_the_deadline() -> None:
    settings = ("calls.on_bot_lost=restart", "runner.connect_timeout=10")
    with memory_line(*settings, make=lambda clock: make("dial", clock)) as it:
        phone, bot = it.talk()
        bot.close(1012, "Service Restart")
        it.clock.refuse(urlsplit(it.runner.url).port or 0, 60.0)
        it.clock.turn(7.5)
        assert phone.ended is None
        it.clock.turn(3.0)
        record = it.record(phone)
        assert (record["outcome"], phone.hangup_received) == ("bot-hangup", False)
        # What repeats itself is told once.
        assert kinds(it, phone).count("bot.error") <= 2
        it.clock.turn(60.0)


def test_a_handshake_that_fails_takes_nothing_from_the_call() -> None:
    class Client(Protocol):
        data = b""

        def dataReceived(self, data: bytes) -> None:
            self.data += data

    with memory_line(dial_delay=1.0, sockets=None) as it:
        phone = it.dial()
        it.clock.turn(0.5)
        url = urlsplit(it.runner.asked("/run")[-1].body["ws_url"])
        client = Client()
        join(it.clock, client, it.bridge.runner.dialback_server.buildProtocol(None))
        request = (
            f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; nonsense=1\r\n\r\n"
        )
        transport: Any = client.transport
        transport.write(request.encode())
        it.clock.turn(0.1)
        assert client.data.startswith(b"HTTP/1.1 400 ")
        it.clock.turn(1.0)
        assert it.record(phone)["state"] == "talking"
        assert kinds(it, phone).count("bot.error") == 0
        stopped = it.bridge.stopService()
        it.clock.turn(0.5)
        assert stopped.called, "no socket is counted that is not there"
        it.bridge.startService()


def test_a_late_stop_does_not_end_the_next_bot_of_the_same_uuid() -> None:
    with memory_line(stop_after=0.5) as it:
        first, _ = it.talk()
        first.hangup()
        it.clock.turn(0.1)
        assert len(it.runner.asked("/stop")) == 1
        again = it.dial(call_id=first.call_id)
        it.clock.turn(0.2)
        assert len(it.runner.asked("/run")) == 1, "the runner is still at /stop"
        it.clock.turn(2.0)
        assert len(it.runner.asked("/run")) == 2
        assert it.record(again)["state"] == "talking"
        assert it.runner.bots[str(first.call_id)].sockets
        again.hangup()
        it.clock.turn(1.0)
        assert it.record(again)["outcome"] == "caller-hangup"


def test_what_the_caller_presses_and_says_between_two_starts_is_kept() -> None:
    with memory_line("calls.on_bot_lost=restart", make=lambda clock: make("dial", clock)) as it:
        phone, bot = it.talk()
        phone.start_audio(constant(FIRST, 0.02) for _ in range(1000))
        it.clock.turn(0.5)
        it.clock.refuse(urlsplit(it.runner.url).port or 0, 2.0)
        bot.close(1012, "Service Restart")
        it.clock.turn(0.05)
        phone.dtmf("1")
        while "bot.error" not in kinds(it, phone):
            it.clock.turn(0.05)
        phone.dtmf("2")
        it.clock.turn(0.2)
        phone.dtmf("3")
        while "bot.resumed" not in kinds(it, phone):
            it.clock.turn(0.01)
        phone.stop_audio()
        it.clock.turn(0.5)
        again = it.runner.bots[str(phone.call_id)]
        keys = [each["data"]["button"] for each in again.messages if each["type"] == "dtmf"]
        assert keys == ["1", "2", "3"]
        # The last half a second, [caller_audio] keep_before_ready; silence follows.
        said = sum(any(frame.pcm) for frame in again.audio) * 0.02
        assert 0.4 <= said <= 0.6
        phone.hangup()
        it.clock.turn(0.5)


@pytest.mark.parametrize("mode", ["dialback", "dial"])
def test_a_call_that_is_stopped_by_one_who_hears_of_a_failed_start(mode: str) -> None:
    def runners(clock: Any) -> Runners:
        return Runners(make(mode, clock, answers=["500"]), make(mode, clock))

    with memory_line(make=runners) as it:
        first_at(it.runner.each[0], it)

        def hear(event: CallEvent) -> None:
            if event.kind == "bot.error":
                it.bridge.calls.get(event.call_id).stop()

        it.bridge.events.subscribe(hear)
        phone = it.dial()
        it.clock.turn(5.0)
        assert it.record(phone)["outcome"] == "stopped"
        upstreams = it.bridge.runner.pool.upstreams
        assert [(each.calls, each.starting) for each in upstreams] == [(0, 0), (0, 0)]
        assert asked(it.runner.each[1]) == 0


def test_a_stop_that_is_not_answered_is_not_waited_for_beyond_the_deadline() -> None:
    with memory_line("runner.connect_timeout=2", stop_after=100.0) as it:
        first, _ = it.talk()
        first.hangup()
        it.clock.turn(0.1)
        again = it.dial(call_id=first.call_id)
        it.clock.turn(2.1)
        record = it.record(again)
        assert record["outcome"] == "runner-failed"
        waited = "the runner has not answered /stop for the last bot of this UUID within 2 s"
        assert record["reason"] == waited
