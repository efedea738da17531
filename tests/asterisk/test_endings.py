"""Every way in which a call ends, and where the dialplan goes from there."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import Caller, call
from tests.asterisk.calls import DRIVERS, bot_of, no_channels
from tests.asterisk.pbx import Pbx, free_port
from tests.doubles.runner import RunnerDouble

AFTER = "pipecat-after"
FALLBACK = "pipecat-fallback"


@pytest.fixture(scope="module")
def quiet(pbx: Pbx) -> Path:
    """A caller who says nothing for a minute."""
    return sound.write(pbx.folder / "takes", "quiet-60", 8000, sound.silence(60, 8000))


@pytest_twisted.async_yield_fixture
async def own_bridge(runner: RunnerDouble) -> AsyncIterator[Bridge]:
    """A daemon that a test may stop."""
    daemon = Bridge(runner.url, {"calls": {"drain_timeout": 2.0}})
    await daemon.start()
    yield daemon
    await daemon.stop()


def _signal(bridge: Bridge, number: int) -> Deferred[None]:
    """Fires when the daemon has ended of it."""
    assert bridge.process is not None
    return bridge.process.signal(number)


def _contexts(caller: Caller) -> list[str]:
    return list(dict.fromkeys(context for context, _, _ in caller.path()))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_caller_hangs_up(
    driver: str, quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """The runner is told once, and nothing is left."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS[driver], quiet, 8000)
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    await caller.hang_up()
    await caller.ended()
    assert (await bridge.outcome(call_id))["outcome"] == "caller-hangup"
    await runner.until(lambda: any(r.args.get("id") == call_id for r in runner.asked("/stop")))
    assert [r.args["id"] for r in runner.asked("/stop")].count(call_id) == 1
    await bot.until(lambda: not bot.sockets)
    await no_channels(pbx)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_bot_hangs_up_and_the_dialplan_goes_on(
    driver: str, quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """What the bot said last is heard first; then the next priority."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS[driver], quiet, 8000)
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    for number in range(100):
        bot.rtvi("bot-transcription", {"text": f"sentence {number} of a long conversation"})
    words = sound.speech_like(1.0, 16000)
    bot.burst(sound.pcm(words), 16000)
    bot.close()
    await caller.ended()
    record = await bridge.outcome(call_id)
    assert record["outcome"] == "completed"
    assert record["quality"]["bot_frames_played"] >= 50
    assert AFTER in _contexts(caller)
    assert await caller.variable("PIPECAT_OUTCOME") == "completed"
    assert FALLBACK not in _contexts(caller)


async def _lose(
    extension: str, quiet: Path, pbx: Pbx, runner: RunnerDouble, *variables: str
) -> tuple[Caller, str]:
    """A call whose bot is lost; its id."""
    runner.bot_options = {}
    caller = await call(pbx, extension, quiet, 8000, *variables)
    call_id = await caller.variable("PIPECAT_CALL")
    (await bot_of(runner, call_id)).die()
    return caller, call_id


@pytest_twisted.ensureDeferred
async def test_the_bot_is_lost_and_the_caller_is_hung_up_on(
    quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """By default: the application fails, and nothing comes after it."""
    caller, call_id = await _lose("602@pipecat", quiet, pbx, runner)
    await caller.ended()
    assert (await bridge.outcome(call_id))["outcome"] == "bot-hangup"
    assert caller.path()[-1][2] == "AudioSocket"
    await no_channels(pbx)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_bot_is_lost_and_the_dialplan_has_asked_to_go_on(
    driver: str, quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """TryExec() and Dial() with g keep the channel whatever the bridge does."""
    caller, call_id = await _lose(DRIVERS[driver], quiet, pbx, runner)
    await caller.application("Queue")
    assert (await bridge.outcome(call_id))["outcome"] == "bot-hangup"
    if driver == "application":
        assert await caller.variable("TRYSTATUS") == "FAILED"
    else:
        assert await caller.variable("PIPECAT_OUTCOME") == "bot-hangup"
    await caller.hang_up()
    await caller.ended()


@pytest_twisted.ensureDeferred
async def test_the_bot_is_lost_and_the_call_is_given_back(
    quiet: Path, pbx: Pbx, runner: RunnerDouble
) -> None:
    """With on_bot_lost = "dialplan", the next priority, even without TryExec()."""
    daemon = Bridge(runner.url, {"calls": {"on_bot_lost": "dialplan"}})
    await daemon.start()
    caller, _ = await _lose("602@pipecat", quiet, pbx, runner, *daemon.variables)
    await caller.application("Queue")
    assert await caller.variable("PIPECAT_OUTCOME") == "bot-hangup"
    assert FALLBACK in _contexts(caller)
    await caller.hang_up()
    await caller.ended()
    await daemon.stop()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_bot_transfers_the_caller(
    driver: str, quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """After its last words, to one of the places that the dialplan lists; with variables."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS[driver], quiet, 8000)
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    bot.burst(sound.pcm(sound.speech_like(1.0, 16000)), 16000)
    bot.rtvi("server-message", {"type": "set", "variables": {"TOPIC": "billing, 2nd; rm -rf"}})
    bot.rtvi("server-message", {"type": "transfer", "target": "support"})
    await caller.application("Queue")
    record = await bridge.outcome(call_id)
    assert record["outcome"] == "transferred"
    assert record["quality"]["bot_frames_played"] >= 50
    assert ("pipecat-transfer", "1", "Goto") in caller.path()
    assert await caller.variable("PIPECAT_TRANSFER") == "support"
    assert await caller.variable("PIPECAT_TOPIC") == "billing2ndrm-rf"
    await caller.hang_up()
    await caller.ended()


@pytest.mark.parametrize("target", ["h4x", "s", "sales-eu", "sales"])
@pytest_twisted.ensureDeferred
async def test_the_bot_cannot_transfer_to_what_is_not_listed(
    target: str, quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """People take the call."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS["application"], quiet, 8000)
    bot = await bot_of(runner, await caller.variable("PIPECAT_CALL"))
    bot.rtvi("server-message", {"type": "transfer", "target": target})
    assert await caller.variable("PIPECAT_TRANSFER") == target
    await caller.application("Queue")
    assert FALLBACK in _contexts(caller)
    await caller.hang_up()
    await caller.ended()


@pytest_twisted.ensureDeferred
async def test_names_in_upper_case_and_with_hyphens(
    quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS["application"], quiet, 8000)
    bot = await bot_of(runner, await caller.variable("PIPECAT_CALL"))
    bot.rtvi("server-message", {"type": "transfer", "target": "Sales-EU"})
    assert (await caller.application("Queue"))["AppData"] == "Queue(sales-eu,,,,60)"
    assert FALLBACK not in _contexts(caller)
    await caller.hang_up()
    await caller.ended()


class _Unchecked(Resource):
    """In place of the bridge's API: a transfer that the bridge would have refused."""

    isLeaf = True

    def __init__(self, target: str) -> None:
        super().__init__()
        self.answer = {"state": "prepared", "outcome": "transferred", "transfer": target}

    def render(self, request: Request) -> bytes:
        if b"/variables/" in request.path:
            return b""
        return json.dumps(self.answer).encode()


@pytest.mark.parametrize(
    "target",
    ["../voicemail", "0900evil;", "voice mail", 'voicemail"', "voicemail,1", "voicem\xe4il"],
)
@pytest_twisted.ensureDeferred
async def test_a_name_is_taken_whole_or_not_at_all(
    target: str, quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """The dialplan's own check, with an API that has none."""
    runner.bot_options = {}
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
        Site(_Unchecked(target))
    )
    api = f"PIPECAT_API=http://127.0.0.1:{port.getHost().port}"
    caller = await call(pbx, DRIVERS["application"], quiet, 8000, api)
    bot = await bot_of(runner, await caller.variable("PIPECAT_CALL"))
    bot.rtvi("server-message", {"type": "hangup"})
    await caller.application("Queue")
    assert FALLBACK in _contexts(caller)
    assert "pipecat-transfer" not in _contexts(caller)
    await caller.hang_up()
    await caller.ended()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_number_that_was_dialled(
    quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """Also where a number from outside leads to the example's extensions."""
    runner.bot_options = {}
    for extension, called in (("4930555@did", "4930555"), ("604@pipecat", "604")):
        caller = await call(pbx, extension, quiet, 8000)
        call_id = await caller.variable("PIPECAT_CALL")
        await bot_of(runner, call_id)
        assert (await bridge.record(call_id))["metadata"]["called"] == called
        await caller.hang_up()
        await caller.ended()


@pytest_twisted.ensureDeferred
async def test_the_longest_outcome_is_not_cut_off(
    quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """Asterisk cuts what CURL() returns after 4095 bytes, and cut JSON has no outcome."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS["application"], quiet, 8000)
    bot = await bot_of(runner, await caller.variable("PIPECAT_CALL"))
    for name in ("A", "B"):
        variables = {name: "\\" * 480}
        bot.rtvi("server-message", {"type": "set", "variables": variables})
    bot.rtvi("server-message", {"type": "hangup", "reason": "\N{GRINNING FACE}" * 200})
    assert await caller.variable("PIPECAT_OUTCOME") == "completed"
    await caller.ended()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_call_is_stopped_over_the_api(
    driver: str, quiet: Path, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """The dialplan goes on as after any other end."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS[driver], quiet, 8000)
    call_id = await caller.variable("PIPECAT_CALL")
    await bot_of(runner, call_id)
    status, answer = await bridge.request("POST", f"/v1/calls/{call_id}/stop")
    assert status in (200, 202), answer
    await caller.ended()
    assert (await bridge.outcome(call_id))["outcome"] == "stopped"
    assert AFTER in _contexts(caller)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_daemon_is_stopped_in_mid_call(
    driver: str, quiet: Path, pbx: Pbx, own_bridge: Bridge, runner: RunnerDouble
) -> None:
    """The call ends at the deadline of the drain, cleanly, and someone else takes it."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS[driver], quiet, 8000, *own_bridge.variables)
    await bot_of(runner, await caller.variable("PIPECAT_CALL"))
    await _signal(own_bridge, signal.SIGTERM)
    await caller.application("Queue")
    assert FALLBACK in _contexts(caller)
    await caller.hang_up()
    await caller.ended()


@pytest_twisted.ensureDeferred
async def test_a_call_that_comes_during_the_drain_is_not_refused(
    quiet: Path, pbx: Pbx, own_bridge: Bridge, runner: RunnerDouble
) -> None:
    """It is taken and given back at once: a refused connection endangers Asterisk's other calls."""
    runner.bot_options = {}
    first = await call(pbx, DRIVERS["application"], quiet, 8000, *own_bridge.variables)
    await bot_of(runner, await first.variable("PIPECAT_CALL"))
    ended = _signal(own_bridge, signal.SIGTERM)
    second = await call(pbx, DRIVERS["application"], quiet, 8000, *own_bridge.variables)
    await second.application("Queue")
    await ended
    status = await second.variable("TRYSTATUS")
    for caller in (first, second):
        await caller.hang_up()
        await caller.ended()
    assert status == "SUCCESS"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_daemon_is_killed_and_the_fallback_takes_the_call(
    driver: str, quiet: Path, pbx: Pbx, own_bridge: Bridge, runner: RunnerDouble
) -> None:
    """Whether the kernel closes with FIN or RST."""
    runner.bot_options = {}
    caller = await call(pbx, DRIVERS[driver], quiet, 8000, *own_bridge.variables)
    await bot_of(runner, await caller.variable("PIPECAT_CALL"))
    await _signal(own_bridge, signal.SIGKILL)
    await caller.application("Queue")
    assert FALLBACK in _contexts(caller)
    await caller.hang_up()
    await caller.ended()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_the_runner_is_down(driver: str, quiet: Path, pbx: Pbx) -> None:
    """The daemon gives the call back, and the fallback takes it."""
    daemon = Bridge(f"http://127.0.0.1:{free_port()}")
    await daemon.start()
    caller = await call(pbx, DRIVERS[driver], quiet, 8000, *daemon.variables)
    await caller.application("Queue")
    assert await caller.variable("PIPECAT_OUTCOME") == "runner-failed"
    await caller.hang_up()
    await caller.ended()
    await daemon.stop()


@pytest_twisted.ensureDeferred
async def test_nobody_is_there() -> None:
    """No daemon at all: each extension reaches the fallback.

    In an Asterisk of its own: 22.10 closes the socket of a refused connection twice, and may so
    close one of another call.
    """
    pbx = Pbx.prepare()
    try:
        await pbx.start()
        nobody = f"127.0.0.1:{free_port()}"
        quiet = sound.write(pbx.folder / "takes", "quiet", 8000, sound.silence(10, 8000))
        settings = [f"PIPECAT_BRIDGE={nobody}", f"PIPECAT_API=http://{nobody}"]
        for extension in ("602", "603", "604", "605"):
            caller = await call(pbx, f"{extension}@pipecat", quiet, 8000, *settings)
            await caller.application("Queue")
            assert FALLBACK in _contexts(caller)
            tried = {application for _, _, application in caller.path()}
            asked_first = extension in ("602", "604")
            assert bool(tried & {"Dial", "AudioSocket"}) is not asked_first
            await caller.hang_up()
            await caller.ended()
    finally:
        await pbx.stop()


@pytest_twisted.ensureDeferred
async def test_an_agent_who_hangs_up_ends_the_call(quiet: Path, pbx: Pbx) -> None:
    """Who was talked to by people is not sent on to voicemail."""
    nobody = f"127.0.0.1:{free_port()}"
    settings = [f"PIPECAT_BRIDGE={nobody}", f"PIPECAT_API=http://{nobody}"]
    agent = {"Queue": "support", "Interface": "Local/agent@suite/n"}
    await pbx.ami.action("QueueAdd", **agent)
    caller = await call(pbx, "602@pipecat", quiet, 8000, *settings)
    await caller.ended()
    await pbx.ami.action("QueueRemove", **agent)
    steps = [application for _, _, application in caller.path()]
    assert "Queue" in steps
    assert "VoiceMail" not in steps


@pytest_twisted.ensureDeferred
async def test_nothing_is_configured() -> None:
    """No bridge, no queue, no mailbox: the caller hears a tone, and is then hung up on."""
    pbx = Pbx.prepare()
    for name in ("queues.conf", "voicemail.conf"):
        (pbx.folder / "etc" / name).unlink()
    try:
        await pbx.start()
        nobody = f"127.0.0.1:{free_port()}"
        quiet = sound.write(pbx.folder / "takes", "quiet", 8000, sound.silence(30, 8000))
        settings = [f"PIPECAT_BRIDGE={nobody}", f"PIPECAT_API=http://{nobody}"]
        for extension in ("602", "603"):
            caller = await call(pbx, f"{extension}@pipecat", quiet, 8000, *settings)
            await caller.ended()
            assert caller.path()[-1][2] == "Hangup"
            assert (abs(caller.heard()) > 0.05).sum() > 8000, "a second of tones at least"
    finally:
        await pbx.stop()
