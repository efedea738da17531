"""A thousand calls, ended in every way there is, several at a time: nothing of them is left."""

from __future__ import annotations

import gc
import os
import random
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import CoroutineType
from typing import Any, NamedTuple
from uuid import uuid4

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner, globalLogPublisher
from twisted.web.http import Request

from pipecat_bridge.asterisk.connection import AudioSocketConnection
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.audio.polyphase import Layout
from pipecat_bridge.call.call import Call
from pipecat_bridge.runner.caller_queue import CallerQueue
from pipecat_bridge.runner.dialback import DialBackBot
from pipecat_bridge.runner.link import BotLink
from pipecat_bridge.runner.websocket import BotSocketProtocol
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.doubles.runner import Received, RunnerDouble
from tests.e2e.harness import Line, line, reactor, sleep

CALLS = 1000
BUSY, WAITING = 12, 36
"""Calls at a time, of those that are up to something and of those that wait for a timeout."""

DRAINED = 8
MOST_LINES = 4
"""Lines of log for one call: created, initialized, terminated, and what went wrong."""

# For calls that must time out, so that this machine, with other things to do, may be slow in them.
IMPATIENT = (
    "audiosocket.handshake_timeout=0.4",
    "runner.request_timeout=0.4",
    "runner.connect_timeout=0.6",
    "websocket.handshake_timeout=1",
)


class Plan(NamedTuple):
    """What the runner and its bot do in one call."""

    answer: Any = "ok"
    dials: bool = True
    sockets: Any = "both"
    answers_close: bool = True


USUAL = Plan()


class PlannedRunner(RunnerDouble):
    """A runner double that behaves in each call as that call wants it."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, slow=0.2)
        self.plans: dict[str, Plan] = {}

    def _run(self, request: Request, received: Received) -> bytes | int:
        plan = self.plans[received.body["id"]]
        self.answers = deque([plan.answer])
        self.dial_delay = 0.0 if plan.dials else None
        return super()._run(request, received)

    def _dial(self, call_id: str, ws_url: str) -> Deferred[None]:
        plan = self.plans[call_id]
        self.sockets, self.bot_options = plan.sockets, {"answers_close": plan.answers_close}
        return super()._dial(call_id, ws_url)


class Lines(NamedTuple):
    """Daemons and their runners."""

    usual: Line
    impatient: Line
    refused: Line  # nothing listens where its runner should be
    short: Line  # no call may last longer than 0.3 s


@asynccontextmanager
async def lines() -> AsyncIterator[Lines]:
    async with (
        line("calls.keep_ended=20", runner=PlannedRunner(reactor)) as usual,
        line("calls.keep_ended=20", *IMPATIENT, runner=PlannedRunner(reactor)) as impatient,
        line("calls.keep_ended=20", "runner.url=http://127.0.0.1:1") as refused,
        line("calls.keep_ended=20", "calls.max_duration=0.3") as short,
    ):
        yield Lines(usual, impatient, refused, short)


async def place(it: Line, plan: Plan = USUAL, **options: Any) -> StrictAsterisk:
    """A call, and what its runner will do."""
    assert isinstance(it.runner, PlannedRunner)
    call_id = uuid4()
    it.runner.plans[str(call_id)] = plan
    return await it.dial(call_id=call_id, **options)


async def talk(it: Line, plan: Plan = USUAL) -> tuple[StrictAsterisk, BotDouble]:
    """A call in which the caller and the bot talk."""
    phone = await place(it, plan)
    call_id, bots = str(phone.call_id), it.runner.bots
    await it.runner.until(lambda: call_id in bots)
    bot = bots[call_id]
    await bot.until(lambda: bot.ready_sent)
    phone.start_audio()
    await bot.until(lambda: bot.audio)
    bot.burst(bytes(range(1, 201)) * 16, 16000)
    return phone, bot


Scene = Callable[[Lines], Coroutine[Deferred[Any], Any, None]]


class Ending(NamedTuple):
    """What happens, the outcomes that are counted for it, and whether it is a timeout."""

    play: Scene
    outcomes: tuple[str, ...]
    waits: bool


ENDINGS: list[Ending] = []


def ends(*outcomes: str, waits: bool = False) -> Callable[[Scene], Scene]:
    """Declare an ending."""

    def declare(scene: Scene) -> Scene:
        ENDINGS.append(Ending(scene, outcomes, waits))
        return scene

    return declare


@ends("completed")
async def the_bot_says_goodbye(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    bot.close()
    await phone.lost
    assert phone.faults == []


@ends("completed")
async def the_bot_sends_garbage_and_closes(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    bot.garbage()
    bot.close()
    await phone.lost


@ends("caller-hangup")
async def the_caller_hangs_up(lines: Lines) -> None:
    phone, _ = await talk(lines.usual)
    phone.hangup()
    await phone.lost


@ends("caller-hangup")
async def the_phone_is_reset(lines: Lines) -> None:
    phone, _ = await talk(lines.usual)
    phone.reset()
    await phone.lost


@ends("caller-hangup")
async def the_phone_says_hangup(lines: Lines) -> None:
    phone, _ = await talk(lines.usual)
    phone.send(b"\x00\x00\x00")
    await phone.lost


@ends("caller-hangup")
async def the_caller_barges_in_and_hangs_up(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    bot.interrupt("frame")
    bot.interrupt("rtvi")
    await sleep(0.02)
    phone.hangup()
    await phone.lost


@ends("caller-hangup")
async def the_caller_does_not_wait_for_the_bot(lines: Lines) -> None:
    phone = await place(lines.usual, Plan("slow"))
    phone.hangup()
    await phone.lost


@ends("caller-hangup")
async def the_phone_sends_garbage_in_mid_call(lines: Lines) -> None:
    phone, _ = await talk(lines.usual)
    phone.send(b"\xfe\xff\xffgarbage")
    await phone.lost


@ends("caller-hangup")
async def the_bot_does_not_answer_our_close(lines: Lines) -> None:
    phone, _ = await talk(lines.usual, Plan(answers_close=False))
    phone.hangup()
    await phone.lost


@ends("bot-hangup")
async def the_bot_is_reset(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    bot.die()
    await phone.lost
    assert phone.faults == []


@ends("runner-failed")
async def the_runner_is_not_there(lines: Lines) -> None:
    phone = await lines.refused.dial()
    await phone.lost
    assert phone.faults == []


@ends("runner-failed")
async def the_runner_answers_500(lines: Lines) -> None:
    phone = await place(lines.usual, Plan("500"))
    await phone.lost


@ends("runner-failed")
async def the_runner_drops_the_request(lines: Lines) -> None:
    phone = await place(lines.usual, Plan("drop"))
    await phone.lost


@ends("runner-failed", waits=True)
async def the_runner_does_not_answer(lines: Lines) -> None:
    phone = await place(lines.impatient, Plan("hang"))
    await phone.lost
    assert phone.faults == []


@ends("runner-failed", waits=True)
async def the_runner_never_ends_its_answer(lines: Lines) -> None:
    phone = await place(lines.impatient, Plan("endless"))
    await phone.lost


@ends("runner-failed", waits=True)
async def the_runner_does_not_dial_back(lines: Lines) -> None:
    phone = await place(lines.impatient, Plan(dials=False))
    await phone.lost


@ends("runner-failed", waits=True)
async def the_bot_opens_one_socket_of_two(lines: Lines) -> None:
    phone = await place(lines.impatient, Plan(sockets="input"))
    await phone.lost


@ends("runner-failed", waits=True)
async def the_bot_connects_and_says_nothing(lines: Lines) -> None:
    phone = await place(lines.impatient, Plan(dials=False))
    port: Any = lines.impatient.bridge.bot_listener.port
    bot = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    await connectProtocol(bot, Protocol())
    await phone.lost


@ends(waits=True)
async def the_phone_says_nothing(lines: Lines) -> None:
    phone = await place(lines.impatient, handshake=b"")
    await phone.lost
    assert phone.faults == []


@ends()
async def the_phone_speaks_another_protocol(lines: Lines) -> None:
    phone = await place(lines.usual, handshake=b"GET / HTTP/1.1\r\nHost: bridge\r\n\r\n")
    await phone.lost
    assert phone.faults == []


@ends("rejected", "caller-hangup")
async def the_call_is_running_already(lines: Lines) -> None:
    phone, _ = await talk(lines.usual)
    second = await lines.usual.dial(call_id=phone.call_id)
    await second.lost
    assert second.faults == []
    assert phone.ended is None
    phone.hangup()
    await phone.lost


@ends("stopped")
async def the_call_is_stopped(lines: Lines) -> None:
    phone, _ = await talk(lines.usual)
    status, _ = await lines.usual.api("POST", f"/v1/calls/{phone.call_id}/stop")
    assert status == 200
    await phone.lost
    assert phone.faults == []


@ends("stopped")
async def the_call_is_stopped_while_its_bot_is_started(lines: Lines) -> None:
    phone = await place(lines.usual, Plan("hang"))
    call_id = str(phone.call_id)
    runner = lines.usual.runner
    await runner.until(lambda: any(each.body["id"] == call_id for each in runner.asked("/run")))
    status, _ = await lines.usual.api("POST", f"/v1/calls/{call_id}/stop")
    assert status == 200
    await phone.lost


@ends("timeout", waits=True)
async def the_call_is_too_long(lines: Lines) -> None:
    phone = await lines.short.dial()
    phone.start_audio()
    await phone.lost
    assert phone.faults == []


NAMED = (
    AudioSocketConnection,
    BotLink,
    BotSocketProtocol,
    Call,
    CallerQueue,
    DialBackBot,
    Playout,
)


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
    if kind is Layout:  # of a filter, one for each length of chunk that was seen
        return ""
    return kind.__qualname__ if str(kind.__module__).startswith("pipecat_bridge") else ""


def _is_ours_under_way(thing: object) -> bool:
    return isinstance(thing, CoroutineType) and "/pipecat_bridge/" in thing.cr_code.co_filename


async def settled(lines: Lines, before: Held | None = None) -> Held:
    """What is held when late closes are through: no more than `before`, or else no call's things.

    Connections to runners that wait to be used again are closed. After 5 s it is what it is.
    """
    for _ in range(50):
        for each in lines:
            await each.bridge.pool.closeCachedConnections()
        await sleep(0.1)
        gc.collect()
        now = held()
        if not (now.more_than(before) if before else of_calls(now)):
            break
    return now


def of_calls(what: Held) -> set[str]:
    """The classes of which instances are held that an idle daemon has none of."""
    return {each.__name__ for each in NAMED} & what.objects.keys()


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
    assert most <= MOST_LINES, [line.text for line in lines if line.call_id == call_id]
    print(
        without_call,
        Counter(re.sub("[0-9]", "", line.text) for line in lines if line.call_id == "-"),
    )


async def end_calls(lines: Lines, endings: list[Ending]) -> None:
    """Go through the endings, several at once."""

    async def one_after_the_other(scenes: list[Scene]) -> None:
        while scenes:
            await scenes.pop()(lines)

    busy = [ending.play for ending in endings if not ending.waits]
    waiting = [ending.play for ending in endings if ending.waits]
    workers = [one_after_the_other(busy) for _ in range(BUSY)]
    workers += [one_after_the_other(waiting) for _ in range(WAITING)]
    await gatherResults([Deferred.fromCoroutine(each) for each in workers], consumeErrors=True)


def outcomes(lines: Lines) -> Counter[str]:
    """How calls have ended, in all daemons together."""
    total: Counter[str] = Counter()
    for each in lines:
        total.update(each.bridge.calls.outcomes)
    return total


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
