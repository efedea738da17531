"""Another phone side in the place of AudioSocket: nothing of the bridge knows the difference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pipecat_bridge.bridge import Bridge
from pipecat_bridge.contracts import AnswerCall
from pipecat_bridge.events.record import Quality, Talk
from pipecat_bridge.net.listener import Listener
from pipecat_bridge.options import Options
from tests.doubles.memory_phone import MemorySide
from tests.e2e.memory_line import memory_line
from tests.unit.signals import tone

CALL = "3c1b7f0e-29a4-4f57-9f0a-5d3f0f6d3c11"


def build(options: Options, reactor: Any, now: Callable[[], float]) -> Bridge:
    """A bridge whose phones are in memory."""

    def phones(answer: AnswerCall, _: object) -> MemorySide:
        return MemorySide(answer, now)

    bots = partial(Listener, reactor, options.runner.listen)
    api = partial(Listener, reactor, options.api.listen)
    return Bridge(options, reactor, phones, bots, api, now=now)


def test_a_whole_call_with_no_audiosocket_in_it() -> None:
    with memory_line(build=build) as it:
        side: Any = it.bridge.phones
        phone = side.upgrade(f"GET /{CALL} HTTP/1.1")
        it.clock.wait(it.told.until(lambda: CALL in it.told.ready))
        bot = it.runner.bots[CALL]

        said, answer = tone(440, 8000, 0.5), tone(330, 8000, 0.5)
        for start in range(0, len(said), 320):
            phone.line.caller.hear(said[start : start + 320], 8000)
            it.clock.turn(0.02)
        assert (
            len(bot.pcm()) >= 2 * len(said) - 640
        )  # at twice the rate, less what the filter holds

        bot.burst(answer, 8000)
        it.clock.turn(0.1)
        for _ in range(30):  # at its own pace: all at once
            phone.take_frame()
        assert b"".join(frame for frame in phone.heard if frame) == answer

        phone.line.press("5")
        it.clock.turn(0.1)
        assert [each["data"]["button"] for each in bot.messages if each["type"] == "dtmf"] == ["5"]

        bot.rtvi("server-message", {"type": "hangup", "reason": "done"})
        it.clock.turn(0.1)
        phone.take_frame()
        it.clock.turn(0.2)
        record = it.bridge.calls.record(CALL)
        assert (record.outcome, record.reason, record.peer) == ("completed", "done", "memory")
        assert isinstance(record.quality, Quality)
        assert record.quality.caller_frames == 25
        assert isinstance(record.talk, Talk)
        assert record.talk.bot_utterances == 1
        assert phone.cleanly is True
        assert side.open.count == 0
