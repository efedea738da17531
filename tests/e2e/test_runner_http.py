"""The runner's HTTP on real sockets: connections, what goes wrong, and /stop in every ending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.web.client import Agent

from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.side import http_client, http_pool
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.doubles.runner import Answer, RunnerDouble
from tests.e2e.harness import Line, line, reactor


def stops(it: Line, phone: StrictAsterisk) -> int:
    """How often /stop came for a call."""
    return sum(request.args == {"id": str(phone.call_id)} for request in it.runner.asked("/stop"))


async def settled(it: Line, phone: StrictAsterisk) -> dict[str, Any]:
    """The record of a call that is over, once the runner has been told."""
    record = await it.ended(phone)
    await it.bridge.runner.bots.stopping.idle()
    kinds = Counter(it.kinds(phone))
    assert kinds["call.created"] == kinds["call.answered"] == kinds["call.ended"] == 1
    assert kinds["call.ready"] == ("ready_at" in record)
    assert stops(it, phone) == 1
    return record


@ensureDeferred
async def test_fifty_calls_share_a_connection_or_two() -> None:
    async with line() as it:
        for _ in range(50):
            phone, bot = await it.talk()
            phone.hangup()
            record = await settled(it, phone)
            assert (record["outcome"], bot.faults, phone.faults) == ("caller-hangup", [], [])
        assert len(it.runner.asked("/run")) == len(it.runner.asked("/stop")) == 50
        assert it.runner.connections <= 2
        assert not any("cookie" in request.headers for request in it.runner.requests)


@ensureDeferred
async def test_calls_that_come_at_once_leave_no_more_than_the_pool_may_keep() -> None:
    async with line("runner.max_idle_per_host=3", answers=["slow"], slow=2.0) as it:
        phones = [await it.dial() for _ in range(12)]
        await it.runner.until(lambda: len(it.runner.asked("/run")) == 12)
        assert it.runner.connections == 12
        await it.runner.until(lambda: len(it.runner.bots) == 12)
        await it.runner.until(lambda: it.runner.open_connections == 3)
        for phone in phones:
            phone.hangup()
        await it.bridge.calls.idle()
        await it.bridge.runner.bots.stopping.idle()
        await it.runner.until(lambda: it.runner.open_connections <= 3)


@ensureDeferred
async def test_a_limit_on_requests_at_once_holds_back_the_rest() -> None:
    async with line("runner.max_requests=2", answers=["slow"], slow=0.1) as it:
        phones = [await it.dial() for _ in range(8)]
        await it.runner.until(lambda: len(it.runner.bots) == 8)
        assert it.runner.connections == 2
        for phone in phones:
            phone.hangup()
        await it.bridge.calls.idle()
        await it.bridge.runner.bots.stopping.idle()
        assert it.runner.connections <= 4


@ensureDeferred
async def test_idle_connections_are_closed() -> None:
    async with line("runner.idle_timeout=0.2") as it:
        phone, _ = await it.talk()
        phone.hangup()
        await settled(it, phone)
        await it.runner.until(lambda: it.runner.open_connections == 0)


@ensureDeferred
async def test_kept_connections_that_the_runner_closes_just_then() -> None:
    """A request that is under way to a runner that has hung up is asked once more."""
    runner = RunnerDouble(
        reactor, answers=["slow", "slow", "slow", "ok"], slow=0.1, dial_delay=None
    )
    url = await runner.listen()
    options = RunnerOptions(url=url)
    pool = http_pool(reactor, options)
    client = http_client(reactor, Agent(reactor, pool=pool), options)

    def run(number: int) -> Deferred[Any]:
        body = {"id": f"call {number}", "ws_url": f"{url.replace('http', 'ws')}/none"}
        return Deferred.fromCoroutine(client.request("POST", f"{url}/run", body))

    try:
        for answer in await gatherResults([run(number) for number in range(3)]):
            assert answer.status == 200
        assert (runner.connections, runner.open_connections) == (3, 3)
        runner.close_connections()
        asking = run(3)  # goes out before the reactor has seen the end of any of them
        assert (await asking).status == 200
        assert runner.connections == 4
        assert [request.body["id"] for request in runner.asked("/run")][3:] == ["call 3"]
        await runner.until(lambda: runner.open_connections == 1)
    finally:
        await pool.closeCachedConnections()
        await runner.shut()


@ensureDeferred
async def test_a_kept_connection_that_is_closed_in_place_of_an_answer() -> None:
    async with line(answers=["ok", "drop", "ok"]) as it:
        phone, _ = await it.talk()
        phone.hangup()
        await settled(it, phone)
        phone, bot = await it.talk()
        phone.hangup()
        assert (await settled(it, phone))["outcome"] == "caller-hangup"
        asked = [request.body["id"] for request in it.runner.asked("/run")]
        assert asked[1:] == [str(phone.call_id)] * 2
        assert (bot.faults, it.runner.faults) == ([], [])


@ensureDeferred
async def test_run_goes_out_on_the_uuid_alone() -> None:
    async with line() as it:
        phone = await it.dial()
        await it.runner.until(lambda: it.runner.asked("/run"))
        assert phone.sent == []
        [request] = it.runner.asked("/run")
        assert request.body["id"] == str(phone.call_id)
        phone.hangup()
        await settled(it, phone)


FAST = ("runner.request_timeout=0.4", "runner.connect_timeout=0.6")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("500", '/run: answered with 500: {"status": "error", "error": "told to fail"}'),
        ("503", '/run: answered with 503: {"status": "error", "error": "told to fail"}'),
        ("429", '/run: answered with 429: {"status": "error", "error": "told to fail"}'),
        ("error", '/run: answered with {"status": "error", "error": "no worker is free"}'),
        ("redirect", "/run: answered with 307, a redirect to /elsewhere, which is not followed"),
        ("bad-json", '/run: an answer of 15 bytes that is not JSON: {"status": "ok"'),
        ("endless", "/run: no complete answer within 0.4 s"),
        ("hang", "/run: no complete answer within 0.4 s"),
        (
            "drop",
            "/run: the connection was closed without an answer (does the port expect https://?)",
        ),
    ],
)
@ensureDeferred
async def test_a_runner_that_fails(answer: Answer, reason: str) -> None:
    async with line(*FAST, answers=[answer]) as it:
        phone = await it.dial(driver="application")
        phone.start_audio()
        record = await settled(it, phone)
        assert (record["outcome"], record["reason"]) == ("runner-failed", reason)
        assert phone.hangup_received
        assert phone.faults == []
        assert "ready_at" not in record
        assert {request.path for request in it.runner.requests} == {"/run", "/stop"}
        # Nothing goes on behind an answer that was given up: what is open is what the pool keeps.
        await it.runner.until(lambda: it.runner.open_connections <= 1)


@ensureDeferred
async def test_a_runner_that_is_not_there() -> None:
    async with line("runner.url=http://127.0.0.1:1") as it:
        phone = await it.dial()
        record = await it.ended(phone)
        assert record["outcome"] == "runner-failed"
        assert "refused" in record["reason"]
        assert phone.hangup_received
        await it.bridge.runner.bots.stopping.idle()


@pytest.mark.parametrize("sockets", [None, "both"])
@ensureDeferred
async def test_a_runner_that_does_not_dial_back(sockets: Any) -> None:
    async with line(*FAST, dial_delay=None, sockets=sockets) as it:
        phone = await it.dial()
        record = await settled(it, phone)
        assert record["outcome"] == "runner-failed"
        ws_url = it.runner.asked("/run")[0].body["ws_url"]
        address = ws_url.partition(f"/{phone.call_id}")[0]
        # Within what is left of 0.6 s for this runner.
        assert record["reason"].startswith(f"the runner has not dialled back to {address} within 0")
        assert phone.hangup_received


@ensureDeferred
async def test_a_runner_that_dials_back_too_late_is_refused() -> None:
    async with line(*FAST, dial_delay=0.8) as it:
        phone = await it.dial()
        record = await settled(it, phone)
        assert record["outcome"] == "runner-failed"
        await it.runner.until(lambda: it.runner.dial_failures)
        assert it.runner.dial_failures[0].status == 404


@ensureDeferred
async def test_a_late_or_odd_answer_does_not_end_a_call_that_talks() -> None:
    async with line("runner.request_timeout=2", answers=["hang"]) as it:
        phone = await it.dial()
        await it.runner.until(lambda: it.runner.asked("/run"))
        bot = it.runner.bots["by hand"] = BotDouble(reactor)
        await bot.dial(it.runner.asked("/run")[0].body["ws_url"], "both")
        phone.start_audio()
        await bot.until(lambda: len(bot.audio) > 30)
        await it.runner.until(lambda: it.runner.open_connections == 0)
        heard = len(bot.audio)
        await bot.until(lambda: len(bot.audio) > heard + 5)
        phone.hangup()
        assert (await settled(it, phone))["outcome"] == "caller-hangup"


Ending = Callable[[Line, StrictAsterisk], Awaitable[None]]


async def connected(it: Line, phone: StrictAsterisk) -> Any:
    """The bot of a call, ready as the daemon knows."""
    await it.until(lambda: "call.ready" in it.kinds(phone))
    return it.runner.bots[str(phone.call_id)]


async def hangs_up_during_run(it: Line, phone: StrictAsterisk) -> None:
    await it.runner.until(lambda: it.runner.asked("/run"))
    phone.hangup()


async def hangs_up_while_talking(it: Line, phone: StrictAsterisk) -> None:
    await connected(it, phone)
    phone.hangup()


async def resets_while_talking(it: Line, phone: StrictAsterisk) -> None:
    await connected(it, phone)
    phone.reset()


async def bot_ends(it: Line, phone: StrictAsterisk) -> None:
    bot = await connected(it, phone)
    bot.burst(bytes(range(1, 201)) * 16, 16000)
    bot.close()


async def bot_dies(it: Line, phone: StrictAsterisk) -> None:
    (await connected(it, phone)).die()


async def one_socket_dies(it: Line, phone: StrictAsterisk) -> None:
    (await connected(it, phone)).sockets["output"].die()


async def both_at_once(it: Line, phone: StrictAsterisk) -> None:
    bot = await connected(it, phone)
    bot.close()
    phone.hangup()


async def is_stopped(it: Line, phone: StrictAsterisk) -> None:
    await connected(it, phone)
    status, _ = await it.api("POST", f"/v1/calls/{phone.call_id}/stop")
    assert status == 200


async def is_stopped_while_starting(it: Line, phone: StrictAsterisk) -> None:
    await it.runner.until(lambda: it.runner.asked("/run"))
    status, _ = await it.api("POST", f"/v1/calls/{phone.call_id}/stop")
    assert status == 200


async def is_drained(it: Line, phone: StrictAsterisk) -> None:
    await connected(it, phone)
    it.bridge.calls.drain()
    it.bridge.calls.stop_all()


@pytest.mark.parametrize(
    ("ending", "outcome", "runner"),
    [
        (hangs_up_during_run, "caller-hangup", {"answers": ["hang"]}),
        (hangs_up_during_run, "caller-hangup", {"answers": ["endless"]}),
        (hangs_up_during_run, "caller-hangup", {"answers": ["slow"], "slow": 0.3}),
        (hangs_up_during_run, "caller-hangup", {"dial_delay": None}),
        (hangs_up_during_run, "caller-hangup", {"dial_first": True}),
        (hangs_up_while_talking, "caller-hangup", {}),
        (hangs_up_while_talking, "caller-hangup", {"stop_status": 404}),
        (hangs_up_while_talking, "caller-hangup", {"stop_status": 500}),
        (resets_while_talking, "caller-hangup", {}),
        (bot_ends, "completed", {}),
        (bot_ends, "completed", {"sockets": None}),
        (bot_dies, "bot-hangup", {}),
        (bot_dies, "bot-hangup", {"sockets": None}),
        (one_socket_dies, "bot-hangup", {}),
        (both_at_once, "caller-hangup", {}),
        (is_stopped, "stopped", {}),
        (is_stopped_while_starting, "stopped", {"answers": ["hang"]}),
        (is_drained, "drained", {}),
    ],
)
@ensureDeferred
async def test_stop_goes_out_once(ending: Ending, outcome: str, runner: dict[str, Any]) -> None:
    async with line(**runner) as it:
        phone = await it.dial()
        phone.start_audio()
        await ending(it, phone)
        record = await settled(it, phone)
        assert record["outcome"] == outcome
        assert phone.faults == []
        for bot in it.runner.bots.values():
            await bot.until(lambda bot=bot: not bot.sockets)
        assert stops(it, phone) == 1


@ensureDeferred
async def test_a_stop_that_hangs_holds_up_nothing() -> None:
    async with line("runner.request_timeout=0.3", "runner.max_requests=1") as it:
        phone, _ = await it.talk()
        it.runner.render = lambda request: 1  # NOT_DONE_YET: no answer, to anything
        phone.hangup()
        record = await it.ended(phone)
        assert record["outcome"] == "caller-hangup"
        await it.bridge.runner.bots.stopping.idle()
