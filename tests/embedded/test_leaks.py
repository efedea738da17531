"""Nothing is left of a call that has ended, however it ended."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from pipecat.processors.frame_processor import FrameProcessor

from pipecat_bridge.embedded.calls import BotCalls
from pipecat_bridge.embedded.services import load_local
from pipecat_bridge.embedded.spec import read_spec

from .fake_bridge import FakeBridge, FakeCall

pytestmark = pytest.mark.pipecat
ENDINGS = ("stopped", "closed by the bridge", "gone without a word", "nobody there")


def test_twenty_calls_leave_no_task_no_thread_and_no_processor() -> None:
    asyncio.run(_twenty_calls())


async def _twenty_calls() -> None:
    load_local()
    calls = BotCalls()
    async with FakeBridge() as bridge:
        await _one_call(calls, bridge, "warm", "stopped")
        before = await _alive()
        for number in range(20):
            ending = ENDINGS[number % len(ENDINGS)]
            await _one_call(calls, bridge, f"c{number}", ending)
            bridge.calls.clear()
        assert len(calls) == 0
        for _ in range(100):
            if (after := await _alive()) == before:
                break
        assert after == before


async def _one_call(calls: BotCalls, bridge: FakeBridge, name: str, ending: str) -> None:
    call = bridge.expect(name)
    url = "ws://127.0.0.1:9" if ending == "nobody there" else bridge.url
    calls.start(read_spec({"id": name, "ws_url": f"{url}/{name}/ws"}))
    if ending != "nobody there":
        await call.until(lambda: call.audio())
        await _end(calls, name, call, ending)
    try:
        async with asyncio.timeout(60):
            while len(calls):
                await asyncio.sleep(0.01)
    finally:
        await calls.close()  # or a call that did not end would keep the loop for ever


async def _end(calls: BotCalls, name: str, call: FakeCall, ending: str) -> None:
    assert call.input is not None
    if ending == "stopped":
        assert await calls.stop(name)
    elif ending == "closed by the bridge":
        await call.input.close()
    else:
        call.input.transport.abort()


async def _alive() -> tuple[set[str], int, int]:
    """Names of tasks without their numbers, number of threads, number of pipeline processors."""
    for _ in range(10):
        await asyncio.sleep(0.05)
    gc.collect()
    tasks = {str(task.get_coro()).split(" at ")[0] for task in asyncio.all_tasks()}
    threads = [t for t in threading.enumerate() if not t.name.startswith("asyncio")]
    processors = sum(isinstance(thing, FrameProcessor) for thing in gc.get_objects())
    return tasks, len(threads), processors
