"""Each way in which a bot or its runner can fail, at each moment, through the whole daemon.

The table of docs/bots.md ("How a bot can fail") says what follows; its rows are those here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pytest_twisted import ensureDeferred

from pipecat_bridge.runner.pool import breaker
from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.runner import RunnerDouble
from tests.e2e.dialled import settled
from tests.e2e.harness import Line
from tests.e2e.test_pool import asked, make, metric, pool

PAGE = Path(__file__).parents[2] / "docs" / "bots.md"

QUICK = (
    "runner.attempt_timeout=1",
    "runner.connect_timeout=3",
    "runner.breaker_failures=1",
    "runner.breaker_delay=60",
)
"""A runner that fails once is left alone, so that one call shows what becomes of the next."""

SPEECH = bytes(range(1, 201)) * 16

Act = Callable[[Any], object]


class Failure(NamedTuple):
    """What goes wrong: its name in the docs, and options of the runner's double by mode.

    `outcome` is that of a call without another runner, and words of its reason. `standing`: what is
    counted against the runner, "failed", "busy" or "lost".
    """

    name: str
    options: dict[str, dict[str, Any]]
    outcome: str
    reason: str
    standing: str

    def __str__(self) -> str:
        return self.name


def both(**options: Any) -> dict[str, dict[str, Any]]:
    """The same in either mode; a bot that dials back opens one WebSocket for both ways."""
    return {"dialback": {"sockets": None, **options}, "dial": options}


def early(act: Act) -> dict[str, dict[str, Any]]:
    """A bot that has connected, and is not ready yet."""
    return both(on_open=act, ready_after=5.0)


def closes(code: int) -> Act:
    return lambda bot: bot.close(code, "good bye")


def dies(bot: Any) -> None:
    """End the connection with RST, once what was sent before it is likely to be read."""
    bot.later(0.05, bot.die)


def fatal(bot: Any) -> None:
    bot.rtvi("error", {"error": "no API key", "fatal": True})
    bot.close()


def speaks_json(bot: Any) -> None:
    bot.send(b'{"event": "connected"}', binary=False)


def talks_then(act: Act) -> Act:
    """Say something, and then act."""

    def both_of_it(bot: Any) -> None:
        bot.burst(SPEECH, 16000)
        act(bot)

    return both_of_it


NEXT = {
    "failed": "elsewhere after 3 in a row",
    "lost": "elsewhere after 3 in a row",
    "busy": "elsewhere for 1 s",
}
"""By standing: where the next calls go, with the defaults. QUICK makes the 3 a 1."""

LOST = "the bot was lost before it was ready"

STARTS = [
    Failure("the runner refuses connections", both(), "runner-failed", "refused", "failed"),
    Failure("it does not answer", both(answers=["hang"]), "runner-failed", " within ", "failed"),
    Failure("it closes without an answer", both(answers=["drop"]), "runner-failed", "", "failed"),
    Failure("it answers 401", both(answers=["401"]), "runner-failed", "with 401", "failed"),
    Failure("it answers 500", both(answers=["500"]), "runner-failed", "with 500", "failed"),
    Failure(
        "it answers with an error",
        {"dialback": {"answers": ["error"]}},
        "runner-failed",
        "no worker is free",
        "failed",
    ),
    Failure("it answers 429 or 503", both(answers=["503"]), "runner-failed", "with 503", "busy"),
    Failure("it redirects", both(answers=["redirect"]), "runner-failed", "307", "failed"),
    Failure(
        "its answer is not JSON", both(answers=["deep-json"]), "runner-failed", "JSON", "failed"
    ),
    Failure(
        "no WebSocket is opened in time",
        {"dialback": {"dial_delay": None}, "dial": {"handshakes": ["hang"]}},
        "runner-failed",
        " within ",
        "failed",
    ),
    Failure(
        "only one of two WebSockets is opened",
        {"dialback": {"sockets": "output"}},
        "runner-failed",
        "has not dialled back",
        "failed",
    ),
    Failure(
        "the WebSocket is refused",
        {"dial": {"handshakes": ["403"]}},
        "runner-failed",
        "403 Forbidden",
        "failed",
    ),
    Failure(
        "the WebSocket is refused with 503",
        {"dial": {"handshakes": ["503"]}},
        "runner-failed",
        "503 Service Unavailable",
        "busy",
    ),
    Failure(
        "the bot closes before it is ready",
        early(closes(1000)),
        "runner-failed",
        LOST,
        "failed",
    ),
    Failure(
        "it closes with an error code before it is ready",
        early(closes(1011)),
        "runner-failed",
        LOST,
        "failed",
    ),
    Failure(
        "its connection breaks before it is ready",
        early(dies),
        "runner-failed",
        LOST,
        "failed",
    ),
    Failure(
        "it reports a fatal error before it is ready",
        early(fatal),
        "runner-failed",
        "the bot reported a fatal error: no API key",
        "failed",
    ),
    Failure(
        "it speaks another protocol",
        early(speaks_json),
        "runner-failed",
        "the bot speaks another protocol",
        "failed",
    ),
    Failure(
        "it closes with 1012 (restart) before it is ready",
        early(closes(1012)),
        "runner-failed",
        "(1012)",
        "busy",
    ),
    Failure(
        "it closes with 1013 (another client) before it is ready",
        early(closes(1013)),
        "runner-failed",
        "(1013)",
        "busy",
    ),
]

TALKS = [
    Failure(
        "its connection breaks as soon as it is ready",
        both(on_ready=dies),
        "bot-hangup",
        "",
        "lost",
    ),
    Failure(
        "its connection breaks in mid-call",
        both(on_ready=talks_then(dies)),
        "bot-hangup",
        "the bot's WebSocket closed",
        "lost",
    ),
    Failure(
        "it closes with an error code in mid-call",
        both(on_ready=talks_then(closes(1011))),
        "bot-hangup",
        "good bye (1011)",
        "lost",
    ),
    Failure(
        "it closes with 1012 or 1013 in mid-call",
        both(on_ready=talks_then(closes(1012))),
        "bot-hangup",
        "good bye (1012)",
        "busy",
    ),
    Failure(
        "it reports a fatal error in mid-call",
        both(on_ready=talks_then(fatal)),
        "bot-error",
        "the bot reported a fatal error: no API key",
        "lost",
    ),
    Failure(
        "it ends the call without having said anything",
        both(on_ready=closes(1000)),
        "bot-silent",
        "the bot ended the call without having said anything",
        "lost",
    ),
]

CASES = [pytest.param(row, mode, id=f"{row}-{mode}") for row in STARTS for mode in row.options]
TALK_CASES = [pytest.param(row, mode, id=f"{row}-{mode}") for row in TALKS for mode in row.options]


async def make_ill(row: Failure, mode: str) -> RunnerDouble:
    """The runner that fails in that way."""
    return make(mode, **row.options[mode])


async def refuse(row: Failure, ill: RunnerDouble) -> None:
    """A runner that is not there."""
    if row.name == "the runner refuses connections":
        await ill.shut()


async def first_at(it: Line, ill: RunnerDouble) -> StrictAsterisk:
    """The only call; it is tried at `ill` first, as those before it are at the other one."""
    others = []
    for _ in range(20):
        before = await standing(it, ill)
        phone = await it.dial(driver="application")
        await it.until(lambda phone=phone: {"call.ready", "call.ended"} & set(it.kinds(phone)))
        if await standing(it, ill) != before:
            break
        others.append(phone)
    else:
        raise AssertionError("no call was tried there")
    for other in others:
        other.hangup()
        await other.lost
    return phone


async def standing(it: Line, runner: RunnerDouble) -> dict[str, float]:
    """What is counted of a runner."""
    starts = {
        result: await metric(it, "starts_total", runner, result=result)
        for result in ("ready", "failed", "busy")
    }
    return {**starts, "lost": await metric(it, "bots_lost_total", runner)}


@pytest.mark.parametrize(("row", "mode"), CASES)
@ensureDeferred
async def test_before_it_is_ready_another_runner_is_asked(
    row: Failure, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "BUSY_SECONDS", 60.0)  # three calls may take more than one
    ill, well = make(mode, **row.options[mode]), make(mode)
    async with pool(ill, well, settings=QUICK) as it:
        await refuse(row, ill)
        phone = await first_at(it, ill)
        await it.until(lambda: "call.ready" in it.kinds(phone))
        assert it.record(phone)["runner"] == well.url
        [failed] = it.events(phone, "bot.error")
        assert (failed["data"]["category"], failed["data"]["runner"]) == ("start", ill.url)
        assert [bot["runner"] for bot in it.record(phone)["bots"]] == [ill.url, well.url]
        assert it.record(phone)["quality"]["bot_frames"] == 0, "nothing of the failed one is left"
        counted = await standing(it, ill)
        assert counted[row.standing] == 1
        assert sum(counted.values()) == 1
        # The next calls are not tried there.
        tried = asked(ill)
        for _ in range(3):
            await it.talk()
        assert asked(ill) == tried
        assert await standing(it, ill) == counted
        it.bridge.calls.stop_all()
        await settled(it, phone)


@pytest.mark.parametrize(("row", "mode"), CASES)
@ensureDeferred
async def test_before_it_is_ready_without_another_runner(row: Failure, mode: str) -> None:
    ill = make(mode, **row.options[mode])
    async with pool(ill, settings=QUICK) as it:
        await refuse(row, ill)
        phone = await it.dial(driver="application")
        record = await settled(it, phone)
        assert record["outcome"] == row.outcome
        assert row.reason in record["reason"], record["reason"]
        assert record["reason"]
        assert phone.hangup_received, "the dialplan goes on"


@pytest.mark.parametrize(("row", "mode"), TALK_CASES)
@ensureDeferred
async def test_after_it_was_ready_the_call_ends_by_its_cause(row: Failure, mode: str) -> None:
    ill, well = make(mode, **row.options[mode]), make(mode)
    async with pool(ill, well, settings=QUICK) as it:
        phone = await first_at(it, ill)
        record = await settled(it, phone)
        assert (record["outcome"], record["runner"]) == (row.outcome, ill.url)
        assert row.reason in record["reason"]
        assert record["reason"]
        assert not phone.hangup_received, "the caller is hung up on"
        counted = await standing(it, ill)
        assert (counted["ready"], counted["lost"]) == (1, int(row.standing == "lost"))
        tried = asked(ill)
        for _ in range(3):
            await it.talk()
        assert asked(ill) == tried
        it.bridge.calls.stop_all()


@pytest.mark.parametrize(("row", "mode"), TALK_CASES)
@ensureDeferred
async def test_after_it_was_ready_another_takes_its_place(row: Failure, mode: str) -> None:
    ill, well = make(mode, **row.options[mode]), make(mode)
    async with pool(ill, well, settings=(*QUICK, "calls.on_bot_lost=restart")) as it:
        phone = await first_at(it, ill)
        await it.until(lambda: "bot.resumed" in it.kinds(phone))
        record = it.record(phone)
        assert (record["state"], record["runner"]) == ("talking", well.url)
        assert record["quality"]["bots_replaced"] == 1
        phone.hangup()
        assert (await settled(it, phone))["outcome"] == "caller-hangup"


def test_the_page_has_these_rows() -> None:
    text = PAGE.read_text("utf-8")
    table = text.partition("## How a bot can fail")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    found = [tuple(cell.strip().strip("`") for cell in row) for row in rows]
    expected = [
        (row.name, row.outcome, "served", row.standing, NEXT[row.standing]) for row in STARTS
    ]
    expected += [
        (row.name, row.outcome, row.outcome, row.standing, NEXT[row.standing]) for row in TALKS
    ]
    assert found == expected
