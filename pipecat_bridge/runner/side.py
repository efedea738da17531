"""Builds the bot side of the daemon from the options."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IAgent

from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.endpoints import Endpoints
from pipecat_bridge.net.http import HTTPClient, connection_pool
from pipecat_bridge.net.limit import ConnectionLimit
from pipecat_bridge.net.listener import Listen, PortService
from pipecat_bridge.net.ports import filled
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.net.trust import trust_root
from pipecat_bridge.options import Options, RunnerOptions
from pipecat_bridge.runner.modes import MODES
from pipecat_bridge.runner.pool.address import FixedAddress, RunnerAddress, without_secrets
from pipecat_bridge.runner.pool.health_check import HealthChecks
from pipecat_bridge.runner.pool.pool import Pool, Upstream
from pipecat_bridge.runner.secrets import redaction_of
from pipecat_bridge.runner.socket.dialback_server import DialbackServer
from pipecat_bridge.runner.socket.dialler import Dialler
from pipecat_bridge.runner.start.bots import Bots
from pipecat_bridge.runner.start.embedded import EmbeddedRunner
from pipecat_bridge.runner.start.mode import Means

READY_WITHIN = 2.5
"""Seconds that runners have to answer when a request asks for the readiness."""


class RunnerSide(MultiService):
    """The runners, the starts of bots there, and the port for bots that dial back.

    `listen` makes the port. `address` is the address of the embedded runner if another process
    supervises it; without `address` this process starts the embedded runner itself.
    """

    def __init__(
        self,
        reactor: Any,
        options: Options,
        descriptors: Descriptors,
        now: Callable[[], float],
        listen: Listen,
        address: RunnerAddress | None = None,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._options = options
        runner = options.runner
        self.mode = MODES[runner.mode]
        self._redact = redaction_of(runner)
        self.dialback_server = DialbackServer(
            reactor,
            options.websocket,
            runner.require_token,
            self._redact,
            urlsplit(runner.dialback_url).hostname or "",
        )
        self.listener: PortService | None = None
        if self.mode.listens:
            self.listener = listen(self.dialback_server)
            self.listener.setServiceParent(self)
        self.embedded: EmbeddedRunner | None = None
        self.pool = Pool(self._upstreams(address), reactor, runner, random.Random())
        self.connections = http_pool(reactor, runner, len(self.pool.upstreams))
        self._endpoints = Endpoints(
            reactor, descriptors, trust_root(runner.ca_file), runner.request_timeout
        )
        self._agent = Agent.usingEndpointFactory(reactor, self._endpoints, self.connections)
        starter = self.mode.starter(self._means())
        self.bots = Bots(reactor, self.mode, starter, self.pool, options, descriptors, now)
        # The checks have their own client: starts at a runner that hangs must not delay them.
        self._checks = HealthChecks(
            self.pool.upstreams,
            self._client(),
            reactor,
            runner,
            self.mode.health_path,
            random.Random(),
        )

    @property
    def limits(self) -> list[ConnectionLimit[Any]]:
        """The limits of connections without an opening handshake."""
        return [self.dialback_server.unopened, *(self.listener.limits if self.listener else [])]

    def startService(self) -> None:
        """Start the embedded runner and the health checks."""
        super().startService()
        if self.embedded is not None:
            self.embedded.start()
        self._checks.start()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop the checks, the port, the connections and the embedded runner with its bots."""
        self._checks.stop()
        yield super().stopService()
        yield self.connections.closeCachedConnections()
        if self.embedded is not None:
            yield self.embedded.stop()

    async def reachable(self) -> bool:
        """Check all runners now; whether one of them would take a call."""
        asking = [
            Deferred.fromCoroutine(self._checks.check(upstream)).addErrback(_unknown)
            for upstream in self.pool.upstreams
        ]
        asked = gatherResults(asking, consumeErrors=True)
        await asked.addTimeout(READY_WITHIN, self._reactor).addErrback(_unknown)
        return self.pool.available

    def dialback_url(self) -> str:
        """The URL where bots dial back: the configured one, or that of the port."""
        assert self.listener is not None
        host: Any = self.listener.port.getHost()
        if self._options.runner.dialback_url:
            return filled(self._options.runner.dialback_url, 1, getattr(host, "port", 0))
        name = "127.0.0.1" if host.host in ("0.0.0.0", "::") else host.host
        return f"ws://[{name}]:{host.port}" if ":" in name else f"ws://{name}:{host.port}"

    def _client(self) -> HTTPClient:
        return http_client(self._reactor, self._agent, self._options.runner, self._redact)

    def _means(self) -> Means:
        runner = self._options.runner
        dialler = Dialler(
            self._reactor,
            self._options.websocket,
            self._endpoints.connect,
            runner.origin,
            runner.subprotocol,
        )
        return Means(
            self._options, self._client(), self.dialback_server, dialler, self.dialback_url
        )

    def _upstreams(self, address: RunnerAddress | None) -> list[Upstream]:
        if not self.mode.supervised:
            urls = self._options.runner.urls
            return [Upstream(without_secrets(url), FixedAddress(url)) for url in urls]
        if address is None:
            address = self.embedded = EmbeddedRunner(self._reactor, self._options.embedded)
        return [Upstream(self.mode.name, address)]


def http_pool(reactor: Any, options: RunnerOptions, hosts: int = 1) -> HTTPConnectionPool:
    """A pool of HTTP connections to `hosts` runners."""
    return connection_pool(
        reactor,
        options.max_idle_connections,
        options.max_idle_per_host,
        options.idle_timeout,
        hosts,
    )


def http_client(
    reactor: IReactorTime, agent: IAgent, options: RunnerOptions, redact: Redaction | None = None
) -> HTTPClient:
    """An HTTP client for requests to runners."""
    redact = redact or redaction_of(options)
    timeout, most = options.request_timeout, options.max_requests
    return HTTPClient(reactor, agent, timeout, most, options.headers, redact)


def _unknown(_: object) -> None:
    """Ignore a check without a result. The pool keeps the last results."""
