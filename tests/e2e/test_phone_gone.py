"""What only a real socket shows of a phone that has gone: found with 50 calls in Asterisk."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet import reactor as _reactor

from tests.e2e.harness import line

reactor: Any = _reactor


@ensureDeferred
async def test_a_frame_for_a_phone_that_has_hung_up_is_not_counted_as_skipped() -> None:
    """The clock may tick between the peer's RST and the turn in which it is read."""
    async with line() as it:
        phone, _ = await it.talk()
        connection: Any = it.bridge.calls.get(str(phone.call_id)).phone
        counted: list[int] = []

        def tick() -> None:
            before = connection.stats.frames_out
            connection.tick()
            counted.append(connection.stats.frames_out - before)

        # Timers that are due run before sockets are read, and the earlier ones first.
        phone.reset()
        reactor.callLater(0, tick)
        reactor.callLater(0, tick)
        record = await it.ended(phone)
        assert counted == [0, 0], "the socket was not closed yet"
        assert record["outcome"] == "caller-hangup"
        assert record["reason"] == "the phone's connection was reset"
        assert record["quality"]["phone_frames_skipped"] == 0
