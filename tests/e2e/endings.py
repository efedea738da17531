"""Every way in which a call can end."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.web.http import Request

from tests.doubles.asterisk import HUNG_UP, StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.doubles.runner import Received, RunnerDouble
from tests.e2e.harness import Line, line, reactor, sleep

BUSY, WAITING = 12, 36
"""Calls at a time, of those that are up to something and of those that wait for a timeout."""

# For calls that must time out, so that this machine, with other things to do, may be slow in them.
IMPATIENT = (
    "runner.request_timeout=0.4",
    "runner.connect_timeout=0.6",
    "websocket.handshake_timeout=1",
)

SOME_FAIL = "runner.breaker_failures=1000000"
"""A runner that fails in some calls is not left alone in the others."""

PATIENT = (SOME_FAIL, "runner.attempt_timeout=60", "runner.connect_timeout=60")
"""A bot that is to come may take its time, on a busy machine."""

RESTART = ("calls.on_bot_lost=restart", "calls.max_restarts=1")


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
    strict: Line  # a phone has 0.4 s to say its UUID
    restarting: Line  # a lost bot is replaced, once
    hopeless: Line  # the same, and the search for another one is over after 10 s


@asynccontextmanager
async def lines() -> AsyncIterator[Lines]:
    async with (
        line("calls.keep_ended=20", *PATIENT, runner=PlannedRunner(reactor)) as usual,
        line(
            "calls.keep_ended=20", SOME_FAIL, *IMPATIENT, runner=PlannedRunner(reactor)
        ) as impatient,
        line("calls.keep_ended=20", "runner.url=http://127.0.0.1:1") as refused,
        line("calls.keep_ended=20", "calls.max_duration=0.3") as short,
        line("calls.keep_ended=20", "audiosocket.handshake_timeout=0.4") as strict,
        line(
            "calls.keep_ended=20", *PATIENT, *RESTART, runner=PlannedRunner(reactor)
        ) as restarting,
        line(
            "calls.keep_ended=20",
            SOME_FAIL,
            "runner.attempt_timeout=10",
            *RESTART,
            runner=PlannedRunner(reactor),
        ) as hopeless,
    ):
        yield Lines(usual, impatient, refused, short, strict, restarting, hopeless)


async def place(it: Line, plan: Plan = USUAL, **options: Any) -> StrictAsterisk:
    """A call, and what its runner will do."""
    assert isinstance(it.runner, PlannedRunner)
    call_id = uuid4()
    it.runner.plans[str(call_id)] = plan
    return await it.dial(call_id=call_id, **options)


async def talk(it: Line, plan: Plan = USUAL) -> tuple[StrictAsterisk, BotDouble]:
    """A call in which the caller and the bot talk."""
    phone = await place(it, plan)
    await it.until(lambda: "call.ready" in it.kinds(phone))
    bot = it.runner.bots[str(phone.call_id)]
    phone.start_audio()
    await bot.until(lambda: bot.audio)
    bot.burst(bytes(range(1, 201)) * 16, 16000)
    return phone, bot


async def talk_with_another(it: Line) -> tuple[StrictAsterisk, BotDouble]:
    """A call whose bot was lost, and in which another one has taken its place."""
    phone, first = await talk(it)
    call_id, bots = str(phone.call_id), it.runner.bots
    first.die()
    await it.runner.until(lambda: bots[call_id] is not first)
    second = bots[call_id]
    await second.until(lambda: second.audio)
    second.burst(bytes(range(1, 201)) * 16, 16000)
    return phone, second


def loud(phone: StrictAsterisk) -> bool:
    """The last frame that the phone got is that of a tone."""
    return max(phone.frames[-1].payload[1::2], default=0) > 0 if phone.frames else False


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


@ends("phone-fault")
async def the_phone_breaks_the_protocol_in_mid_call(lines: Lines) -> None:
    phone, _ = await talk(lines.usual)
    phone.send(b"\x10\xff\xffgarbage")
    await phone.lost


@ends("caller-hangup")
async def the_phone_sends_unknown_messages(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    heard = len(bot.audio)
    phone.send(b"\xfe\x00\x07garbage\x02\x00\x00")
    await bot.until(lambda: len(bot.audio) > heard + 2)
    phone.hangup()
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
    assert (phone.ended, phone.faults) == (HUNG_UP, [])


@ends("completed")
async def the_bot_hangs_up(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    bot.rtvi("server-message", {"type": "play_dtmf", "digits": "1"})
    bot.rtvi("server-message", {"type": "hangup", "reason": "done"})
    await phone.lost
    assert (phone.ended, phone.faults) == ("hangup received", [])


@ends("transferred")
async def the_bot_transfers_the_caller(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    bot.rtvi("server-message", {"type": "transfer", "target": "support"})
    await phone.lost
    assert (phone.ended, phone.faults) == ("hangup received", [])


@ends("caller-hangup")
async def the_caller_hangs_up_while_tones_are_played(lines: Lines) -> None:
    phone, bot = await talk(lines.usual)
    bot.rtvi("server-message", {"type": "play_dtmf", "digits": "0123456789"})
    await phone.until(lambda: loud(phone))
    phone.hangup()
    await phone.lost


@ends("caller-hangup")
async def the_bot_is_lost_and_another_talks(lines: Lines) -> None:
    phone, _ = await talk_with_another(lines.restarting)
    phone.hangup()
    await phone.lost


@ends("completed")
async def the_bot_is_lost_and_another_says_goodbye(lines: Lines) -> None:
    phone, bot = await talk_with_another(lines.restarting)
    bot.close()
    await phone.lost
    assert (phone.ended, phone.faults) == ("hangup received", [])


@ends("bot-hangup")
async def the_bot_is_lost_and_another_one_too(lines: Lines) -> None:
    phone, bot = await talk_with_another(lines.restarting)
    bot.die()
    await phone.lost
    assert (phone.ended, phone.faults) == (HUNG_UP, [])


@ends("bot-hangup", waits=True)
async def the_bot_is_lost_and_no_other_comes(lines: Lines) -> None:
    it = lines.hopeless
    phone, bot = await talk(it)
    assert isinstance(it.runner, PlannedRunner)
    it.runner.plans[str(phone.call_id)] = Plan("500")
    bot.die()
    await phone.lost
    assert (phone.ended, phone.faults) == (HUNG_UP, [])


@ends("caller-hangup")
async def the_caller_does_not_wait_for_another_bot(lines: Lines) -> None:
    it = lines.restarting
    phone, bot = await talk(it)
    assert isinstance(it.runner, PlannedRunner)
    it.runner.plans[str(phone.call_id)] = Plan("slow")
    bot.die()
    await bot.until(lambda: not bot.sockets)
    phone.hangup()
    await phone.lost


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
    port: Any = lines.impatient.bridge.runner.listener.port
    bot = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    await connectProtocol(bot, Protocol())
    await phone.lost


@ends("caller-hangup")
async def the_bot_dials_back_when_the_caller_is_gone(lines: Lines) -> None:
    phone = await place(lines.usual, Plan(dials=False))
    call_id, runner = str(phone.call_id), lines.usual.runner
    assert isinstance(runner, PlannedRunner)
    await runner.until(lambda: any(each.body["id"] == call_id for each in runner.asked("/run")))
    phone.hangup()
    await lines.usual.until(lambda: "call.ended" in lines.usual.kinds(phone))
    [url] = [each.body["ws_url"] for each in runner.asked("/run") if each.body["id"] == call_id]
    await runner._dial(call_id, url)
    assert runner.dial_failures[-1].status == 404
    await phone.lost


@ends(waits=True)
async def the_phone_says_nothing(lines: Lines) -> None:
    phone = await lines.strict.dial(handshake=b"")
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
