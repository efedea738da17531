"""A daemon whose file descriptors run out: it is seen, nobody else is blamed, and it is over."""

from __future__ import annotations

import json
import re

import pytest
import treq
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, DeferredList
from twisted.web.client import Agent, HTTPConnectionPool

from pipecat_bridge.net.descriptors import NONE_LEFT
from pipecat_bridge.web.metrics import RUNNER_STATES
from tests.doubles.asterisk import connect_asterisk
from tests.e2e.harness import reactor
from tests.e2e.test_drain import TWISTD, daemon
from tests.e2e.test_pool import make

LIMIT = 64
PHONES = 40
CLOSED = RUNNER_STATES["closed"]
FEW = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *TWISTD]


class Kept:
    """One connection to the API, opened while there was a descriptor for it."""

    def __init__(self, base: str) -> None:
        self.pool = HTTPConnectionPool(reactor)
        self.pool.maxPersistentPerHost = 1
        self._agent = Agent(reactor, pool=self.pool)
        self._base = base

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body."""
        response = await treq.get(self._base + path, agent=self._agent)
        return response.code, await response.text()

    async def value(self, name: str, **labels: str) -> float:
        """What a metric is."""
        shown = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        series = re.escape(f"pipecat_bridge_{name}" + (f"{{{shown}}}" if labels else ""))
        found = re.search(rf"^{series} (\S+)$", (await self.get("/metrics"))[1], re.M)
        assert found, name
        return float(found[1])


@pytest.mark.parametrize("mode", ["dialback", "dial"])
@ensureDeferred
async def test_none_is_left(mode: str) -> None:
    runner = make(mode)
    url = await runner.listen()
    settings = (
        f"runner.mode={mode}",
        f"runner.url={url}",
        "runner.connect_timeout=2",
        "runner.breaker_failures=1",
        "runner.health_interval=0.1",
        "calls.drain_timeout=0",
        "api.linger=0",
    )
    try:
        async with daemon(*settings, command=FEW) as it:
            assert f"this process may have {LIMIT} file descriptors" in it.text
            api = Kept(it.api)
            await api.get("/healthz")
            calls = [connect_asterisk(reactor, it.phones) for _ in range(PHONES)]
            dialling = DeferredList([Deferred.fromCoroutine(call) for call in calls])
            phones = [phone for good, phone in await dialling if good]
            await it.until(lambda: f"{NONE_LEFT} of {LIMIT}" in it.text)
            status, answer = await api.get("/readyz")
            assert (status, json.loads(answer)["reasons"]) == (503, [NONE_LEFT])
            assert await api.value("descriptors_exhausted_total") > 0
            for phone in phones:
                if phone.ended is None:
                    phone.hangup()
            while await api.value("calls"):
                pass
            # Nobody else is blamed.
            assert await api.value("runner_starts_total", runner=url, result="failed") == 0
            assert await api.value("runner_state", runner=url) == CLOSED
            assert await api.value("calls_ended_total", outcome="runner-failed") == 0
            assert it.text.count(NONE_LEFT + " of") == 1, "one line for all of it"
            # And it is over.
            phone = await connect_asterisk(reactor, it.phones)
            await runner.until(lambda: str(phone.call_id) in runner.bots)
            phone.hangup()
            await api.pool.closeCachedConnections()
    finally:
        await runner.shut()
