"""The mistakes of docs/asterisk.md, made in earnest: each shows where that page says it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import call
from tests.asterisk.calls import APPLICATION, bot_of, no_channels
from tests.asterisk.pbx import PROJECT, Pbx, free_port
from tests.doubles.runner import RunnerDouble

RATE = 8000
PAGE = (PROJECT / "docs" / "asterisk.md").read_text()


def documented(text: str) -> str:
    """`text`, which that page quotes."""
    assert f"`{text}`" in PAGE, f"docs/asterisk.md does not quote {text!r}"
    return text


@pytest.fixture(scope="module")
def quiet(pbx: Pbx) -> Path:
    """A caller who says nothing for six seconds."""
    return sound.write(pbx.folder / "takes", "quiet-6", RATE, sound.silence(6, RATE))


@pytest.mark.parametrize(
    ("extension", "complaint"),
    [("unanswered", "Channel is not answered"), ("bad-uuid", "Failed to parse UUID")],
)
@pytest_twisted.ensureDeferred
async def test_asterisk_does_not_even_connect(
    extension: str, complaint: str, pbx: Pbx, bridge: Bridge, quiet: Path
) -> None:
    """Asterisk's log has it, the bridge's has not."""
    logged, problems = bridge.log, len(pbx.problems())
    caller = await call(pbx, f"{extension}@suite", quiet, RATE)
    await caller.ended()
    told = documented(complaint)
    for _ in range(100):  # Asterisk writes its log in a thread of its own
        if any(told in line for line in pbx.problems()[problems:]):
            break
        await deferLater(reactor, 0.1, lambda: None)
    else:
        pytest.fail(f"Asterisk's log does not say {told!r}: {pbx.problems()[problems:]}")
    assert bridge.log == logged


@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
@pytest_twisted.ensureDeferred
async def test_dial_without_c(
    codec: str, pbx: Pbx, bridge: Bridge, runner: RunnerDouble, quiet: Path
) -> None:
    """Both look the same to a bridge that is set to ulaw."""
    runner.bot_options = {}
    caller = await call(pbx, "bare@suite", quiet, RATE, codec=codec)
    call_id = await caller.variable("PIPECAT_CALL")
    await bot_of(runner, call_id)
    await caller.ended()
    lines = [line for line in bridge.log.splitlines() if call_id in line]
    assert any(documented("decoded as ulaw") in line for line in lines), lines
    assert any(documented("add c(slin)") in line for line in lines), lines


@pytest_twisted.ensureDeferred
async def test_the_same_uuid_twice(
    pbx: Pbx, bridge: Bridge, runner: RunnerDouble, quiet: Path
) -> None:
    """The second call is refused in good order, and the first does not notice."""
    runner.bot_options = {}
    counted = await bridge.metric("pipecat_bridge_calls_ended_total", outcome="rejected")
    first = await call(pbx, APPLICATION, quiet, RATE)
    call_id = await first.variable("PIPECAT_CALL")
    await bot_of(runner, call_id)
    second = await call(pbx, "taken@suite", quiet, RATE, f"TAKEN={call_id}")
    await second.ended()
    await first.ended()
    assert (await bridge.outcome(call_id))["outcome"] == "caller-hangup"
    assert f"{call_id} {documented('rejected')}" in bridge.log
    after = await bridge.metric("pipecat_bridge_calls_ended_total", outcome="rejected")
    assert after - counted == 1


@pytest_twisted.ensureDeferred
async def test_the_bridge_is_not_there(quiet: Path) -> None:
    """Without TryExec() the caller is hung up on; in an Asterisk of its own, as in test_endings."""
    pbx = Pbx.prepare()
    try:
        await pbx.start()
        quiet = sound.write(pbx.folder / "takes", "quiet", RATE, sound.silence(6, RATE))
        nobody = f"PIPECAT_BRIDGE=127.0.0.1:{free_port()}"
        caller = await call(pbx, "600@pipecat", quiet, RATE, nobody)
        await caller.ended()
        complaint = documented("Failed to connect to AudioSocket service")
        assert any(complaint in line for line in pbx.problems())
        assert [application for _, _, application in caller.path()][-1] == "AudioSocket"
    finally:
        await pbx.stop()


@pytest_twisted.ensureDeferred
async def test_the_runner_is_not_there(pbx: Pbx, quiet: Path) -> None:
    """Log, record and metrics name the outcome, and the log the reason."""
    daemon = Bridge(f"http://127.0.0.1:{free_port()}")
    await daemon.start()
    caller = await call(pbx, APPLICATION, quiet, RATE, *daemon.variables)
    call_id = await caller.variable("PIPECAT_CALL")
    await caller.application("Queue")
    record = await daemon.outcome(call_id)
    word = documented("runner-failed")
    assert record["outcome"] == word
    assert record["reason"]
    assert await daemon.metric("pipecat_bridge_calls_ended_total", outcome=word) == 1
    lines = [line for line in daemon.log.splitlines() if call_id in line]
    assert any(word in line and record["reason"] in line for line in lines), lines
    await caller.hang_up()
    await caller.ended()
    await daemon.stop()
    await no_channels(pbx)


@pytest_twisted.ensureDeferred
async def test_a_bot_that_reads_too_slowly(
    pbx: Pbx, bridge: Bridge, runner: RunnerDouble, quiet: Path
) -> None:
    """What it has missed is counted."""
    runner.bot_options = {}
    caller = await call(pbx, APPLICATION, quiet, RATE)
    call_id = await caller.variable("PIPECAT_CALL")
    (await bot_of(runner, call_id)).stall()
    await caller.ended()
    stats = (await bridge.outcome(call_id))["quality"]
    assert stats[documented("caller_frames_dropped")] > 0
    assert stats[documented("caller_queue_max")] >= 50
    total = f"pipecat_bridge_{documented('caller_frames_dropped')}_total"
    assert await bridge.metric(total) >= stats["caller_frames_dropped"]


@pytest_twisted.ensureDeferred
async def test_a_bot_that_stalls_while_it_speaks(
    pbx: Pbx, bridge: Bridge, runner: RunnerDouble, quiet: Path
) -> None:
    """Each hole in its voice is counted."""
    runner.bot_options = {}
    caller = await call(pbx, APPLICATION, quiet, RATE)
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    for _ in range(3):
        bot.burst(sound.pcm(sound.speech_like(0.3, 16000)), 16000)
        await deferLater(reactor, 0.45)
    await caller.ended()
    stats = (await bridge.outcome(call_id))["quality"]
    assert stats[documented("underruns")] > 0
    assert stats[documented("underrun_ms")] > 50
