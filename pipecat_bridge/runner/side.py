"""The bot's side of the daemon, put together from the options."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.web.client import Agent

from pipecat_bridge.config.ports import DIALLED_BACK
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.endpoints import Endpoints
from pipecat_bridge.net.http import RunnerClient, connection_pool
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.net.trust import trust_root
from pipecat_bridge.options import Options
from pipecat_bridge.runner.pool.address import FixedAddress, without_secrets
from pipecat_bridge.runner.pool.health_check import HealthChecks
from pipecat_bridge.runner.pool.pool import Pool, Upstream
from pipecat_bridge.runner.socket.dialler import Dialler
from pipecat_bridge.runner.socket.door import Door
from pipecat_bridge.runner.start.bots import Bots
from pipecat_bridge.runner.start.dial import Dial
from pipecat_bridge.runner.start.dialback import DialBack
from pipecat_bridge.runner.start.embedded import EmbeddedRunner
from pipecat_bridge.runner.start.start import Mode

READY_WITHIN = 2.5
"""Seconds that runners have to answer when somebody asks whether the daemon is ready."""


class RunnerSide(Service):
    """Runners, the way to start bots there, and the door for those that dial back."""

    def __init__(
        self,
        reactor: Any,
        options: Options,
        dialback_url: Callable[[], str],
        descriptors: Descriptors,
        now: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._options = options
        runner = options.runner
        self.is_dialled = runner.mode in DIALLED_BACK
        self._redact = Redaction.of(runner)
        self.door = Door(reactor, options.websocket, runner.require_token, self._redact)
        self.embedded: EmbeddedRunner | None = None
        self.pool = Pool(self._upstreams(), reactor, runner, random.Random())
        self.connections = connection_pool(reactor, runner, len(self.pool.upstreams))
        self._endpoints = Endpoints(
            reactor, descriptors, trust_root(runner.ca_file), runner.request_timeout
        )
        self._agent = Agent.usingEndpointFactory(reactor, self._endpoints, self.connections)
        self.client = self._client()
        mode = self._mode(dialback_url)
        self.bots = Bots(reactor, mode, self.pool, runner, options.caller_audio, descriptors, now)
        # With a client of their own: starts at a runner that hangs must not hold up its checks.
        self._health = HealthChecks(
            self.pool.upstreams, self._client(), reactor, runner, random.Random()
        )

    def startService(self) -> None:
        """Look after the runners from now on."""
        super().startService()
        if self.embedded is not None:
            self.embedded.start()
        self._health.start()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Let go of the runners; bots that still run are ended with the embedded one."""
        super().stopService()
        self._health.stop()
        yield self.connections.closeCachedConnections()
        if self.embedded is not None:
            yield self.embedded.stop()

    async def reachable(self) -> bool:
        """Whether a runner would take a call now, by asking them."""
        asking = [
            Deferred.fromCoroutine(self._health.check(upstream)).addErrback(_unknown)
            for upstream in self.pool.upstreams
        ]
        asked = gatherResults(asking, consumeErrors=True)
        await asked.addTimeout(READY_WITHIN, self._reactor).addErrback(_unknown)
        return self.pool.available

    def _client(self) -> RunnerClient:
        return RunnerClient(self._reactor, self._agent, self._options.runner, self._redact)

    def _upstreams(self) -> list[Upstream]:
        if self._options.runner.mode == "embedded":
            self.embedded = EmbeddedRunner(self._reactor, self._options.embedded)
            return [Upstream("embedded", self.embedded)]
        urls = self._options.runner.urls
        return [Upstream(without_secrets(url), FixedAddress(url)) for url in urls]

    def _mode(self, dialback_url: Callable[[], str]) -> Mode:
        runner, rate = self._options.runner, self._options.caller_audio.sample_rate
        if self.is_dialled:
            return DialBack(self.client, self.door, dialback_url, runner, rate)
        dialler = Dialler(
            self._reactor,
            self._options.websocket,
            self._endpoints.connect,
            runner.origin,
            runner.subprotocol,
        )
        return Dial(self.client, dialler, runner, rate)


def _unknown(_: object) -> None:
    """What could not be asked says nothing; the pool knows what is known."""
