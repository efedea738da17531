"""A network that stalls between the bridge and a bot of Pipecat that is never silent."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory, ProxyServer

from tests.pipecat.harness import FRAME, daemon, reactor
from tests.pipecat.releases import Release, until

STALL = 0.8
BACK = 10.0
"""Seconds after which the delay must be what it was."""

LESS_THAN_TWO_CHUNKS = 70
"""Milliseconds. Pipecat sends 40 ms at a time, and the next chunk may come before one is played."""


class Network(ProxyFactory):
    """A TCP path to a port of this machine. `stall` holds everything back for a while."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.servers: list[Any] = []
        factory = self

        class Server(ProxyServer):
            def connectionMade(self) -> None:
                super().connectionMade()
                factory.servers.append(self)

        self.protocol = Server

    async def stall(self, seconds: float) -> None:
        """Nothing arrives on either side for so long; then all of it."""
        ends = [end.transport for server in self.servers for end in (server, server.peer)]
        for end in ends:
            end.pauseProducing()
        await deferLater(reactor, seconds)
        for end in ends:
            end.resumeProducing()


@ensureDeferred
async def test_the_delay_comes_back_after_a_stall(release: Release) -> None:
    runner = await release.runner("tests/pipecat/bots/mixer.py")
    network = Network(runner.port)
    path = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(network)
    url = f"ws://127.0.0.1:{path.getHost().port}/ws-client"
    async with daemon("direct", url, "runner.ready_timeout=0.5") as line:
        call = await line.call()
        await call.until("call.ready")

        def waiting() -> float:
            return float(call.record()["quality"]["bot_queued_ms"])

        def frames() -> int:
            return len(call.phone.frames)

        since = frames()
        await until(lambda: frames() > since + 4 / FRAME, "four seconds")
        before = call.record()["quality"]
        assert before["underruns"] <= 2
        await network.stall(STALL)
        since = frames()
        await until(lambda: waiting() > 500, "what the network held")
        await until(lambda: frames() > since + BACK / FRAME, "ten seconds", timeout=15.0)
        most = 0.0
        since = frames()
        while frames() < since + 1 / FRAME:
            most = max(most, waiting())
            await deferLater(reactor, FRAME / 2)
        stats = call.record()["quality"]
        call.phone.hangup()
        await call.ended()
    await path.stopListening()
    assert stats["prebuffer_ms"] <= 100, "one stall is no jitter that must be waited for"
    assert most <= stats["prebuffer_ms"] + LESS_THAN_TWO_CHUNKS, stats
    assert stats["underruns"] > before["underruns"]
    assert stats["underrun_ms"] > 500
    assert stats["shortened_ms"] > 500
    assert call.phone.faults == []
