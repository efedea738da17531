"""A call through the whole daemon: sockets, clock and bot are real, the peers are doubles."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from tests.e2e.harness import line


@ensureDeferred
async def test_a_call_begins_talks_and_ends():
    async with line() as it:
        phone, bot = await it.talk()
        phone.start_audio()
        await bot.until(lambda: len(bot.audio) > 20)
        phone.hangup()
        record = await it.ended(phone)
        assert record["outcome"] == "caller-hangup"
        assert bot.faults == []
        assert phone.faults == []
        await it.runner.until(lambda: it.runner.asked("/stop"))
        assert len(it.runner.asked("/stop")) == 1
