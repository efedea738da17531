"""A fault of the bridge's own: it has its traceback in the log, and it costs that call only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.asterisk.caller_audio import CallerAudio
from pipecat_bridge.asterisk.line import Line
from pipecat_bridge.call.watch import Watch
from pipecat_bridge.runner.link import link as link_module
from pipecat_bridge.runner.link.beginning import Beginning
from pipecat_bridge.runner.link.bot_stream import BotStream
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.pool.upstream import Lease
from pipecat_bridge.runner.start.start import Start
from pipecat_bridge.wire.pipecat import PipecatDialect
from tests.e2e.memory_line import MemoryLine, memory_line
from tests.unit.signals import tone


class OwnError(ValueError):
    """It could happen anywhere. As a ValueError it could also be taken for a peer's fault."""


def make_fault(*_: object, **__: object) -> Any:
    raise OwnError("nobody thought of that")


@contextmanager
def once(owner: Any, name: str) -> Iterator[None]:
    """The function `name` fails when it is called for the first time."""
    right, left = getattr(owner, name), [1]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()
            make_fault()
        return right(*args, **kwargs)

    with patch.object(owner, name, call):
        yield
    assert not left, f"{name} was not called"


@pytest.fixture
def failures():
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)
    yield lambda: [each for each in logged if each["log_level"] is LogLevel.critical]
    globalLogPublisher.removeObserver(logged.append)


def check(it: MemoryLine, phone: Any, failures: Callable[[], list[LogEvent]]) -> None:
    """The call is over, everywhere, and the fault is in the log with its traceback."""
    record = it.record(phone)
    assert record["outcome"] == "bridge-error"
    assert record["reason"] == "a fault of the bridge: nobody thought of that"
    assert phone.ended is not None
    assert phone.faults == []
    assert failures()
    for failure in failures():
        assert failure["log_failure"].type is OwnError
        assert failure["call_id"] == str(phone.call_id)
        assert "make_fault" in failure["log_failure"].getTraceback()
    nothing_is_left(it)


def nothing_is_left(it: MemoryLine) -> None:
    """No call, no place at a runner, no bot, no phone. No runner is blamed."""
    it.clock.turn(5.0)
    assert (it.bridge.calls.running, it.bridge.phones.open.count) == ([], 0)
    assert it.bridge.runner.bots.stopping.count == 0
    [upstream] = it.bridge.runner.pool.upstreams
    assert (upstream.calls, upstream.starting, upstream.starts["failed"]) == (0, 0, 0)
    assert upstream.state == "closed"


def in_the_tick(it: MemoryLine, call: Any, bot: Any) -> None:
    call.playout.read = make_fault


def in_the_callers_audio(it: MemoryLine, call: Any, bot: Any) -> None:
    call.phone.join(make_fault, call.playout)


def in_the_bots_audio(it: MemoryLine, call: Any, bot: Any) -> None:
    call.playout.write = make_fault
    bot.burst(tone(440, 16000, 0.1), 16000)


def in_the_bots_messages(it: MemoryLine, call: Any, bot: Any) -> None:
    call.bot_event = make_fault
    bot.rtvi("bot-started-speaking")


def in_the_history(it: MemoryLine, call: Any, bot: Any) -> None:
    with once(call.history, "tell"):
        bot.rtvi("server-message", {"a": 1})
        it.clock.turn(0.1)


@pytest.mark.parametrize(
    "fault",
    [
        in_the_tick,
        in_the_callers_audio,
        in_the_bots_audio,
        in_the_bots_messages,
        in_the_history,
    ],
)
def test_it_ends_one_call(fault, failures):
    with memory_line() as it:
        phone, bot = it.talk()
        other, _ = it.talk()
        phone.start_audio()
        other.start_audio()
        it.clock.turn(1.0)
        fault(it, it.bridge.calls.get(str(phone.call_id)), bot)
        heard = len(other.pcm(8000))
        it.clock.turn(1.0)
        assert len(failures()) == 1
        assert len(other.pcm(8000)) - heard in (50 * 320, 45 * 320)
        assert it.record(other)["state"] == "talking"
        other.hangup()
        check(it, phone, failures)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Beginning, "add"),
        (PipecatDialect, "opening"),
        (Start, "link_connected"),
        (Start, "link_ready"),
        (Lease, "ready"),
        (BotLink, "_start_flow"),
        (Watch, "expect_phone_audio"),
        (Watch, "expect_bot_voice"),
        (Line, "join"),
    ],
)
def test_before_the_bot_is_ready_no_runner_is_blamed(owner, name, failures):
    with memory_line() as it:
        with once(owner, name):
            phone = it.dial()
            it.clock.turn(1.0)
        check(it, phone, failures)
        phone, _ = it.talk()
        phone.hangup()


@pytest.mark.parametrize("settings", [(), ("runner.mode=dialback", "runner.ready_timeout=0.5")])
def test_when_the_start_itself_cannot_be_made(settings, failures):
    with memory_line(*settings) as it:
        with patch.object(link_module, "BotStream", make_fault):
            phone = it.dial()
            it.clock.turn(1.0)
        check(it, phone, failures)


def test_when_a_bot_is_ready_by_the_clock(failures):
    with memory_line("runner.ready_timeout=0.5", ready_after=None) as it:
        with once(Lease, "ready"):
            phone = it.dial()
            it.clock.turn(2.0)
        check(it, phone, failures)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (link_module, "loss_of"),
        (Lease, "lost"),
        (BotStream, "close"),
        (BotLink, "_close_sockets"),
    ],
)
def test_when_a_bot_is_lost(owner, name, failures):
    with memory_line() as it:
        phone, bot = it.talk()
        it.clock.turn(0.5)
        with once(owner, name):
            bot.die()
            it.clock.turn(1.0)
        check(it, phone, failures)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Watch, "close"),
        (AudioSocketConnection, "send_hangup"),
        (BotStream, "close"),
        (BotLink, "close"),
        (CallerAudio, "leave"),
        (AudioSocketConnection, "_end_by"),
    ],
)
def test_when_the_call_ends_all_of_it_ends(owner, name, failures):
    """The outcome may be that of the end; but nothing is left behind."""
    with memory_line() as it:
        phone, _ = it.talk()
        it.clock.turn(0.5)
        with once(owner, name):
            it.bridge.calls.get(str(phone.call_id)).stop()
            it.clock.turn(3.0)
        assert failures()
        assert it.record(phone)["state"] == "ended"
        assert phone.ended is not None
        assert [each.args for each in it.runner.asked("/stop")] == [{"id": str(phone.call_id)}]
        nothing_is_left(it)


@pytest.mark.parametrize(
    ("owner", "name"), [(AudioSocketConnection, "_end_by"), (CallerAudio, "leave")]
)
def test_when_the_caller_hangs_up(owner, name, failures):
    with memory_line() as it:
        phone, _ = it.talk()
        it.clock.turn(0.5)
        with once(owner, name):
            phone.hangup()
            it.clock.turn(3.0)
        assert failures()
        assert it.record(phone)["state"] == "ended"
        nothing_is_left(it)
