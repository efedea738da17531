"""A pool of runners of which some fail: calls find the others, and never have two bots."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.doubles.bot_socket import DialError
from tests.doubles.runner import RunnerDouble
from tests.doubles.start_runner import StartRunner
from tests.doubles.watch import Watched
from tests.e2e.dialled import page, settled
from tests.e2e.harness import Line, line, reactor
from tests.unit.bot_side import warnings

MODES = ("dialback", "dial")
WARY = ("runner.breaker_failures=2", "runner.breaker_delay=0.2")
"""Options of a pool whose runners are left alone soon, and for a short time."""

SHARE = 4
"""Calls for each runner."""


class Runners(Watched):
    """The doubles of a pool, as one for the harness; `each` are they."""

    def __init__(self, *each: RunnerDouble) -> None:
        self.each = each
        self.mode = each[0].mode
        for runner in each:
            runner.changed = self._changes(runner)  # type: ignore[method-assign]

    def _changes(self, runner: RunnerDouble) -> Any:
        def changed() -> None:
            Watched.changed(runner)
            self.changed()

        return changed

    async def listen(self) -> str:
        """What [runner] url is set to."""
        return json.dumps([await runner.listen() for runner in self.each])

    async def shut(self) -> None:
        """All of them."""
        for runner in self.each:
            await runner.shut()

    @property
    def bots(self) -> dict[str, Any]:
        """A bot for each call that has one that is connected."""
        pairs = [pair for runner in self.each for pair in runner.bots.items()]
        return {call_id: bot for call_id, bot in pairs if bot.sockets}


def make(mode: str, clock: Any = reactor, **options: Any) -> RunnerDouble:
    """A runner for dialling back or for being dialled."""
    if mode == "dialback":
        return RunnerDouble(clock, **options)
    return StartRunner(clock, mode=mode, **options)  # type: ignore[arg-type]


def pool(*runners: RunnerDouble, settings: tuple[str, ...] = ()) -> Any:
    """A daemon in front of them."""
    return line("runner.disconnect_grace=0.1", *settings, runner=Runners(*runners))  # type: ignore[arg-type]


async def talk(it: Line, count: int) -> list[tuple[StrictAsterisk, Any]]:
    """That many calls at once, all of which get a bot."""
    calls = [Deferred.fromCoroutine(it.talk()) for _ in range(count)]
    return await gatherResults(calls, consumeErrors=True)


def alive(it: Any) -> Counter[str]:
    """How many bots are there for each call."""
    found: Counter[str] = Counter()
    for runner in it.runner.each:
        bots = getattr(runner, "sessions", runner.bots.values())
        ids = {id(bot): bot for bot in bots if bot.sockets}
        found.update(_call_id(runner, bot) for bot in ids.values())
    return found


def _call_id(runner: RunnerDouble, bot: Any) -> str:
    return next(call_id for call_id, each in runner.bots.items() if each is bot)


def asked(runner: RunnerDouble) -> int:
    """Starts that a runner was asked for."""
    return len(runner.asked("/run")) + len(runner.asked("/start"))


async def metric(it: Line, name: str, runner: RunnerDouble, **labels: str) -> float:
    """A metric of one runner."""
    pairs = sorted({**labels, "runner": runner.url}.items())
    series = ",".join(f'{label}="{value}"' for label, value in pairs)
    wanted = re.escape(f"pipecat_bridge_runner_{name}{{{series}}} ")
    found = re.search(rf"^{wanted}(\S+)$", await page(it, "/metrics"), re.M)
    assert found is not None, f"{name} of {runner.url}"
    return float(found[1])


async def ready(it: Line) -> bool:
    """What /readyz says."""
    status, answer = await it.api("GET", "/readyz")
    assert (status == 200) == answer["ready"]
    return bool(answer["ready"])


async def hang_up(it: Line, calls: list[tuple[StrictAsterisk, Any]]) -> list[str]:
    """The outcomes of calls that are hung up where they still run."""
    for phone, _ in calls:
        phone.hangup()
    return [(await settled(it, phone))["outcome"] for phone, _ in calls]


@pytest.mark.parametrize("mode", MODES)
@ensureDeferred
async def test_calls_are_spread(mode: str) -> None:
    runners = [make(mode) for _ in range(3)]
    async with pool(*runners) as it:
        calls = [(await talk(it, 1))[0] for _ in range(3 * SHARE)]
        assert [asked(runner) for runner in runners] == [SHARE] * 3
        assert set(alive(it).values()) == {1}
        for runner in runners:
            assert await metric(it, "calls", runner) == SHARE
            assert await metric(it, "state", runner) == 0
            assert await metric(it, "starts_total", runner, result="ready") == SHARE
        running = (await it.api("GET", "/v1/calls"))[1]["calls"]
        assert len(running) == 3 * SHARE
        assert {it.record(phone)["runner"] for phone, _ in calls} == {each.url for each in runners}
        assert set(await hang_up(it, calls)) == {"caller-hangup"}
        for runner in runners:
            assert await metric(it, "calls", runner) == 0
        assert [runner.faults for runner in runners] == [[]] * 3


@pytest.mark.parametrize("status", ["500", "503", "429"])
@pytest.mark.parametrize("mode", MODES)
@ensureDeferred
async def test_one_hangs_and_one_refuses(mode: str, status: Any) -> None:
    hangs, refuses, well = make(mode, answers=["hang"]), make(mode, answers=[status]), make(mode)
    async with pool(hangs, refuses, well, settings=("runner.breaker_delay=60",)) as it:
        with warnings() as said:
            calls = await talk(it, 3 * SHARE)
            calls += await talk(it, 3 * SHARE)
        assert len(alive(it)) == 6 * SHARE
        assert set(alive(it).values()) == {1}
        assert await metric(it, "calls", well) == 6 * SHARE
        assert await metric(it, "calls", hangs) == await metric(it, "calls", refuses) == 0
        assert await metric(it, "starts_total", well, result="ready") == 6 * SHARE
        failed = await metric(it, "starts_total", hangs, result="failed")
        assert failed == asked(hangs) >= 3, "breaker_failures"
        assert await metric(it, "state", hangs) == 2
        result, state = ("failed", 2) if status == "500" else ("busy", 0)
        assert await metric(it, "starts_total", refuses, result=result) == asked(refuses) >= 1
        assert await metric(it, "state", refuses) == state
        # Each failure is told once, with the call's id.
        told = [text for text in said if " bot.error category=start " in text]
        assert len(told) == asked(hangs) + asked(refuses)
        assert set(await hang_up(it, calls)) == {"caller-hangup"}
        if mode == "dialback":
            for runner in (hangs, refuses, well):
                await runner.until(
                    lambda runner=runner: len(runner.asked("/stop")) == asked(runner)
                )


@pytest.mark.parametrize("answer", ["bad-json", "deep-json", "long-json"])
@pytest.mark.parametrize("mode", MODES)
@ensureDeferred
async def test_an_answer_that_cannot_be_used_is_a_fault_at_once(mode: str, answer: Any) -> None:
    """If it were not, its attempt would last the whole minute."""
    wrong, well = make(mode, answers=[answer]), make(mode)
    patient = ("runner.attempt_timeout=60", "runner.connect_timeout=60")
    async with pool(wrong, well, settings=patient) as it:
        calls = await talk(it, 2)
        assert asked(wrong) >= 1
        assert await metric(it, "starts_total", wrong, result="failed") == asked(wrong)
        assert await metric(it, "starts_total", well, result="ready") == 2
        assert set(await hang_up(it, calls)) == {"caller-hangup"}


class TestKilled:
    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_calls_that_begin_are_placed_elsewhere(self, mode: str) -> None:
        killed, *others = (make(mode) for _ in range(3))
        async with pool(killed, *others) as it:
            calls = await talk(it, 3 * SHARE)
            at_killed = {str(phone.call_id) for phone, _ in calls} & set(killed.bots)
            assert at_killed
            killed.answers[0] = "hang"
            begun = [Deferred.fromCoroutine(it.talk()) for _ in range(3 * SHARE)]
            await killed.until(lambda: asked(killed) > len(at_killed))
            await killed.shut()
            placed = await gatherResults(begun)
            placed += await talk(it, 3 * SHARE)
            lost = [(phone, bot) for phone, bot in calls if str(phone.call_id) in at_killed]
            for phone, _ in lost:
                await phone.lost
                assert it.record(phone)["outcome"] == "bot-hangup"
            going_on = [call for call in calls if call not in lost] + placed
            assert len(alive(it)) == len(going_on)
            assert set(alive(it).values()) == {1}
            assert set(await hang_up(it, going_on)) == {"caller-hangup"}

    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_calls_that_have_lost_their_bot_get_another(self, mode: str) -> None:
        killed, *others = (make(mode) for _ in range(3))
        async with pool(killed, *others, settings=("calls.on_bot_lost=restart",)) as it:
            calls = await talk(it, 3 * SHARE)
            for phone, _ in calls:
                phone.start_audio()
            at_killed = set(killed.bots)
            await killed.shut()
            ids = {str(phone.call_id) for phone, _ in calls}
            await it.runner.until(lambda: set(it.runner.bots) == ids)
            assert set(alive(it).values()) == {1}
            for phone, _ in calls:
                bot, heard = it.runner.bots[str(phone.call_id)], 0
                await bot.until(lambda bot=bot, heard=heard: len(bot.audio) > heard)
                replaced = it.record(phone)["quality"]["bots_replaced"]
                assert replaced == (str(phone.call_id) in at_killed)
            assert set(await hang_up(it, calls)) == {"caller-hangup"}

    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_none_is_left(self, mode: str) -> None:
        runners = [make(mode) for _ in range(3)]
        async with pool(*runners, settings=(*WARY, "runner.breaker_delay=60")) as it:
            await it.runner.shut()
            with warnings() as said:
                outcomes = []
                for _ in range(4):
                    phone = await it.dial(driver="application")
                    record = await settled(it, phone)
                    outcomes.append((record["outcome"], phone.hangup_received))
            assert outcomes == [("runner-failed", True)] * 4
            assert record["reason"].startswith("no runner is left: ")
            assert all(runner.url in record["reason"] for runner in runners)
            left_alone = [text for text in said if "fails and gets no calls" in text]
            assert len(left_alone) == 3
            assert not await ready(it)


class TestNeverTwoBots:
    async def placed_second(
        self, it: Line, first: RunnerDouble, second: RunnerDouble
    ) -> tuple[StrictAsterisk, Any]:
        """A call that was tried at `first` and gets its bot at `second`."""
        phone = await it.dial()
        await it.runner.until(lambda: asked(first) + asked(second))
        if asked(second):  # which has a call now, so that the next one goes to the other
            phone = await it.dial()
            await first.until(lambda: asked(first))
        call_id = str(phone.call_id)
        await second.until(lambda: call_id in second.bots)
        bot = second.bots[call_id]
        await bot.until(lambda: bot.ready_sent)
        return phone, bot

    @pytest.mark.parametrize("sockets", [None, "both"])
    @ensureDeferred
    async def test_a_runner_that_hung_and_dials_back_all_the_same(self, sockets: Any) -> None:
        hangs, well = make("dialback", answers=["hang"]), make("dialback")
        async with pool(hangs, well) as it:
            phone, bot = await self.placed_second(it, hangs, well)
            phone.start_audio()
            [request] = hangs.asked("/run")
            assert request.body["id"] == str(phone.call_id)
            late = BotDouble(reactor)
            with pytest.raises(DialError) as refused:
                await late.dial(request.body["ws_url"], sockets)
            assert refused.value.status == 403
            await hangs.until(lambda: hangs.asked("/stop"))
            assert [stop.args["id"] for stop in hangs.asked("/stop")] == [str(phone.call_id)]
            heard = len(bot.audio)
            await bot.until(lambda: len(bot.audio) > heard + 5)
            assert alive(it)[str(phone.call_id)] == 1
            assert (late.audio, late.messages) == ([], [])
            it.bridge.calls.stop_all()
            await settled(it, phone)
            await well.until(lambda: str(phone.call_id) in str(well.asked("/stop")))
            assert len(hangs.asked("/stop")) == 1

    @ensureDeferred
    async def test_one_that_has_opened_one_of_its_two_sockets(self) -> None:
        """It is closed before another runner is asked, and the other cannot be opened any more."""
        half, well = make("dialback", sockets="input"), make("dialback")
        async with pool(half, well) as it:
            phone, bot = await self.placed_second(it, half, well)
            first = half.bots[str(phone.call_id)]
            await first.until(lambda: not first.sockets)
            assert [how.clean for how in first.closes] == [True]
            ws_url = half.asked("/run")[0].body["ws_url"]
            with pytest.raises(DialError) as refused:
                await BotDouble(reactor).dial(ws_url, "output")
            assert refused.value.status == 403
            phone.start_audio()
            await bot.until(lambda: len(bot.audio) > 5)
            assert (first.audio, bot.faults) == ([], [])
            it.bridge.calls.stop_all()
            await settled(it, phone)

    @ensureDeferred
    async def test_a_bot_that_was_dialled_and_did_not_answer_in_time(self) -> None:
        hangs, well = make("dial", handshakes=["hang"]), make("dial")
        async with pool(hangs, well) as it:
            phone, _ = await self.placed_second(it, hangs, well)
            await hangs.until(lambda: hangs.open_connections <= 1)  # that of /start may wait
            assert hangs.sessions == []  # type: ignore[attr-defined]
            assert alive(it)[str(phone.call_id)] == 1
            it.bridge.calls.stop_all()
            await settled(it, phone)


class TestBreaker:
    @pytest.mark.parametrize("mode", MODES)
    @ensureDeferred
    async def test_it_opens_and_closes(self, mode: str) -> None:
        ill, well = make(mode, answers=["500", "500", "500", "ok"]), make(mode)
        async with pool(ill, well, settings=WARY) as it:
            states = [await metric(it, "state", ill)]
            with warnings() as said:
                while not ill.bots:
                    calls = await talk(it, 2)
                    states.append(await metric(it, "state", ill))
                    assert set(await hang_up(it, calls)) == {"caller-hangup"}
            assert {0, 2} <= set(states)
            assert await metric(it, "state", ill) == 0
            assert await metric(it, "starts_total", ill, result="failed") == 3
            left_alone = [text for text in said if "fails and gets no calls" in text]
            assert len(left_alone) == 2  # after two failures, and after the probe's
            assert all("answered with 500" in text for text in left_alone)

    @ensureDeferred
    async def test_retry_after(self) -> None:
        """A runner that is busy is passed over for as long as it says, by /start and by its bot."""
        for options in ({"answers": ["503"], "retry_after": 60}, {"handshakes": ["503"]}):
            busy, well = make("dial", **options), make("dial")
            async with pool(busy, well) as it:
                calls = []
                while not asked(busy):
                    calls += await talk(it, 1)
                calls += await talk(it, 6)
                assert asked(busy) == 1
                assert await metric(it, "starts_total", busy, result="busy") == 1
                assert set(await hang_up(it, calls)) == {"caller-hangup"}

    @ensureDeferred
    async def test_a_caller_who_hangs_up_says_nothing_of_the_runner(self) -> None:
        hangs = make("dial", answers=["hang"])
        async with pool(hangs, settings=("runner.breaker_failures=1",)) as it:
            for count in range(1, 4):
                phone = await it.dial()
                await hangs.until(lambda count=count: asked(hangs) == count)
                phone.hangup()
                assert (await settled(it, phone))["outcome"] == "caller-hangup"
            assert await metric(it, "state", hangs) == 0
            assert await metric(it, "calls", hangs) == 0
            assert await metric(it, "starts_total", hangs, result="failed") == 0


class TestReadiness:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("status", [500, 503])
    @ensureDeferred
    async def test_false_when_none_is_left_and_true_again(self, mode: str, status: int) -> None:
        runners = [make(mode) for _ in range(3)]
        settings = (*WARY, "runner.health_interval=0.1")
        async with pool(*runners, settings=settings) as it:
            assert await ready(it)
            for runner in runners:
                assert await ready(it), "one is left"
                runner.health_status = status
            await _until(it, False)
            for runner in runners:
                assert await metric(it, "health", runner) == 0
            runners[1].health_status = 200
            await _until(it, True)
            assert await metric(it, "health", runners[1]) == 1
            [(phone, bot)] = await talk(it, 1)
            assert str(phone.call_id) in runners[1].bots
            await hang_up(it, [(phone, bot)])
            path = "/health" if mode == "dialback" else "/status"
            assert {each.path for each in runners[0].requests} == {path}

    @ensureDeferred
    async def test_a_runner_that_is_draining_gets_no_new_calls(self) -> None:
        drains, well = make("dialback"), make("dialback")
        async with pool(drains, well, settings=("runner.health_interval=0.1",)) as it:
            drains.health_status = 503
            for _ in range(100):
                await ready(it)
                if await metric(it, "health", drains) == 0:
                    break
            before = asked(drains)
            calls = await talk(it, 2 * SHARE)
            assert asked(drains) == before
            assert set(await hang_up(it, calls)) == {"caller-hangup"}

    @ensureDeferred
    async def test_checks_stop_with_the_daemon(self) -> None:
        """The fixture of all these tests looks for what is left, hanging checks among it."""
        runner = make("dialback")
        runner.render = lambda request: 1  # type: ignore[method-assign]  # NOT_DONE_YET
        async with pool(runner, settings=("runner.health_interval=0.05",)):
            pass


async def _until(it: Line, expected: bool) -> None:
    """Ask until /readyz says so."""
    for _ in range(200):
        if await ready(it) is expected:
            return
    pytest.fail(f"/readyz does not become {expected}")
