"""A mistake of the bridge's own: it has its traceback in the log, and it costs that call only."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from pipecat_bridge.runner.link.beginning import Beginning
from tests.e2e.memory_line import MemoryLine, memory_line
from tests.unit.signals import tone


class OwnError(ValueError):
    """As it could happen anywhere; also ValueError, which must not be taken for a peer's fault."""


def make_mistake(*_: object) -> Any:
    raise OwnError("nobody thought of that")


@pytest.fixture
def failures():
    logged: list[LogEvent] = []
    globalLogPublisher.addObserver(logged.append)
    yield lambda: [each for each in logged if each["log_level"] is LogLevel.critical]
    globalLogPublisher.removeObserver(logged.append)


def in_the_tick(it: MemoryLine, call: Any, bot: Any) -> None:
    call.playout.read = make_mistake


def in_the_callers_audio(it: MemoryLine, call: Any, bot: Any) -> None:
    call.phone.join(make_mistake, call.playout)


def in_the_bots_audio(it: MemoryLine, call: Any, bot: Any) -> None:
    call.playout.write = make_mistake
    bot.burst(tone(440, 16000, 0.1), 16000)


def in_the_bots_messages(it: MemoryLine, call: Any, bot: Any) -> None:
    call.bot_event = make_mistake
    bot.rtvi("bot-started-speaking")


@pytest.mark.parametrize(
    "mistake", [in_the_tick, in_the_callers_audio, in_the_bots_audio, in_the_bots_messages]
)
def test_it_ends_one_call(mistake, failures):
    with memory_line() as it:
        phone, bot = it.talk()
        other, _ = it.talk()
        phone.start_audio()
        other.start_audio()
        it.clock.turn(1.0)
        mistake(it, it.bridge.calls.get(str(phone.call_id)), bot)
        heard = len(other.pcm(8000))
        it.clock.turn(1.0)
        record = it.record(phone)
        assert record["outcome"] == "bridge-error"
        assert record["reason"] == "a mistake of the bridge: nobody thought of that"
        assert phone.ended is not None
        assert phone.faults == []
        [failure] = failures()
        assert failure["log_failure"].type is OwnError
        assert failure["call_id"] == str(phone.call_id)
        assert "make_mistake" in failure["log_failure"].getTraceback()
        assert len(other.pcm(8000)) - heard == 50 * 320
        assert it.record(other)["state"] == "talking"


def test_before_the_bot_is_ready_no_runner_is_blamed(failures):
    with memory_line() as it:
        with patch.object(Beginning, "add", make_mistake):
            phone = it.dial()
            it.clock.turn(1.0)
        record = it.record(phone)
        assert record["outcome"] == "bridge-error"
        assert [each["log_failure"].type for each in failures()] == [OwnError]
        [upstream] = it.bridge.runner.pool.upstreams
        assert (upstream.starts["failed"], upstream.state) == (0, "closed")
        assert it.talk()
