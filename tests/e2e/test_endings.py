"""A thousand calls, ended in every way there is, several at a time: nothing of them is left."""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CoroutineType
from typing import Any, NamedTuple

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner, globalLogPublisher

from pipecat_bridge.asterisk.audiosocket import AudioSocketConnection
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.audio.polyphase import Layout
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.ended import EndedCall
from pipecat_bridge.runner.link.caller_stream import CallerStream
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.socket.dialback_server import DialbackProtocol
from pipecat_bridge.runner.start.bots import RunnerBot
from tests.e2e.endings import ENDINGS, Lines, end_calls, lines, outcomes, talk
from tests.e2e.harness import reactor, sleep

CALLS = 1000
DRAINED = 8
MOST_LINES = 5
"""Lines of log for one call: its beginning, when it was ready, its end, and what the bot did or
what became of it."""

KEPT = (Layout, EndedCall)
"""Layouts of filters, one for each length of chunk that was seen, and the last `keep_ended` records
of calls."""

NAMED = (
    AudioSocketConnection,
    BotLink,
    DialbackProtocol,
    Call,
    CallerStream,
    RunnerBot,
    Playout,
)


LEFT_BY_OTHERS: Counter[str] = Counter()
"""Instances that there are before a test of this module begins."""


@pytest.fixture(autouse=True)
def left_by_others() -> None:
    """Hypothesis keeps the test case that it ran last, and so what that one knows."""
    gc.collect()
    LEFT_BY_OTHERS.clear()
    LEFT_BY_OTHERS.update(held().objects)


class Held(NamedTuple):
    """What the process holds."""

    objects: Counter[str]  # instances of the bridge's classes
    under_way: Counter[str]  # its coroutines
    timers: Counter[str]
    sockets: Counter[str]
    descriptors: int

    def more_than(self, before: Held) -> dict[str, Any]:
        """What is held that was not before."""
        pairs = zip(self._fields[:-1], self[:-1], before[:-1], strict=True)
        more: dict[str, Any] = {name: now - then for name, now, then in pairs if now - then}
        if self.descriptors > before.descriptors:
            more["descriptors"] = self.descriptors - before.descriptors
        return more


def held() -> Held:
    """What the process holds now; collects no garbage."""
    everything = gc.get_objects()
    return Held(
        Counter(name for name in map(_class_of_ours, everything) if name),
        Counter(each.__qualname__ for each in everything if _is_ours_under_way(each)),
        Counter(getattr(each.func, "__qualname__", "?") for each in reactor.getDelayedCalls()),
        Counter(type(each).__name__ for each in reactor.getReaders() + reactor.getWriters()),
        len(os.listdir("/proc/self/fd")),
    )


def _class_of_ours(thing: object) -> str:
    kind = type(thing)
    if kind in KEPT:
        return ""
    return kind.__qualname__ if str(kind.__module__).startswith("pipecat_bridge") else ""


def _is_ours_under_way(thing: object) -> bool:
    return isinstance(thing, CoroutineType) and "/pipecat_bridge/" in thing.cr_code.co_filename


async def settled(lines: Lines, before: Held | None = None) -> Held:
    """What is held when late closes are through: no more than `before`, or else no call's things.

    Connections to runners that wait to be used again are closed. After a minute it is what it is.
    """
    for _ in range(600):
        for each in lines:
            await each.bridge.runner.connections.closeCachedConnections()
        await sleep(0.1)
        gc.collect()
        now = held()
        if not (now.more_than(before) if before else of_calls(now)):
            break
    return now


def of_calls(what: Held) -> set[str]:
    """The classes of which instances are held that an idle daemon has none of."""
    names = {each.__name__ for each in NAMED}
    return {name for name in names if what.objects[name] > LEFT_BY_OTHERS[name]}


class Logged(NamedTuple):
    """A line of log; the event itself would keep alive whoever logged it."""

    level: LogLevel
    call_id: str
    text: str
    traceback: bool


@contextmanager
def log_lines() -> Iterator[list[Logged]]:
    """What the bridge logs meanwhile, and errors whoever logs them."""
    lines: list[Logged] = []

    def observe(event: LogEvent) -> None:
        level, failed = event["log_level"], "log_failure" in event
        ours = str(event.get("log_namespace")).startswith(("pipecat_bridge", "autobahn"))
        if (ours and level > LogLevel.debug) or failed:
            lines.append(Logged(level, event.get("call_id", "-"), formatEvent(event), failed))

    # Until logging is begun somewhere, Twisted keeps the last 65536 events, and who logged them.
    globalLogBeginner.beginLoggingTo([], discardBuffer=True, redirectStandardIO=False)
    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)


def check_log(lines: list[Logged]) -> None:
    """Fail on errors, on tracebacks, and on calls that fill the log."""
    assert [line for line in lines if line.level > LogLevel.warn or line.traceback] == []
    count = Counter(line.call_id for line in lines)
    without_call = count.pop("-")
    [(call_id, most)] = count.most_common(1)
    assert most <= MOST_LINES, "\n".join(line.text for line in lines if line.call_id == call_id)
    assert without_call < CALLS, without_call


@ensureDeferred
async def test_nothing_is_left_of_a_thousand_calls() -> None:
    endings = ENDINGS * (CALLS // len(ENDINGS) + 1)
    random.Random(2).shuffle(endings)
    with log_lines() as log:
        async with lines() as them:
            await end_calls(them, ENDINGS)
            before = await settled(them)
            counted = outcomes(them)
            counted.update(outcome for ending in endings for outcome in ending.outcomes)
            await end_calls(them, endings)
            after = await settled(them, before)
            assert after.more_than(before) == {}
            assert outcomes(them) == counted
            assert [call for each in them for call in each.bridge.calls.running] == []
    check_log(log)


@ensureDeferred
async def test_what_is_counted_is_there_while_calls_run_and_is_drained() -> None:
    async with lines() as them:
        before = held()
        for _ in range(DRAINED):
            await talk(them.usual)
        during = held().more_than(before)
        assert of_calls(held()) == {each.__name__ for each in NAMED}
        assert all(during["objects"][each.__name__] >= DRAINED for each in NAMED)
        assert during["descriptors"] > 3 * DRAINED
    assert them.usual.bridge.calls.outcomes == {"drained": DRAINED}
    gc.collect()
    assert of_calls(held()) == set()


@ensureDeferred
async def test_a_call_leaves_memory_without_a_garbage_collection() -> None:
    async with lines() as them:
        gc.collect()
        gc.disable()
        try:
            await end_calls(them, ENDINGS * 2)
            for _ in range(600):
                await sleep(0.1)
                if not of_calls(held()):
                    break
            assert of_calls(held()) == set()
        finally:
            gc.enable()
