"""Tells webhooks what happens to calls: a courier for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.web.client import Agent

from pipecat_bridge import __version__
from pipecat_bridge.events.kinds import KINDS
from pipecat_bridge.net.http import HTTPClient, connection_pool
from pipecat_bridge.net.redaction import Redaction
from pipecat_bridge.options import WebhookOptions
from pipecat_bridge.sinks.courier import AT_ONCE, Courier
from pipecat_bridge.store.store import Store

MEASURE: Final = 10.0
"""Seconds from one measurement of the outbox to the next, for the metrics."""

IDLE: Final = 30.0
"""Seconds for which an idle connection is kept."""


def kinds_of(options: WebhookOptions) -> dict[str, frozenset[str]]:
    """Name of each webhook -> the kinds of events that it gets."""
    return {hook.name: frozenset(hook.kinds or KINDS) for hook in options.hooks}


class Webhooks(Service):
    """All webhooks of `options`. Each has a queue of its own, in the store."""

    def __init__(
        self,
        reactor: Any,
        options: WebhookOptions,
        store: Store,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        secrets = [secret for hook in options.hooks for secret in hook.secrets]
        pool = connection_pool(reactor, AT_ONCE * len(options.hooks), AT_ONCE, IDLE)
        client = HTTPClient(
            reactor,
            Agent(reactor, pool=pool),
            max((hook.timeout for hook in options.hooks), default=IDLE),
            AT_ONCE,
            {"user-agent": f"pipecat-bridge/{__version__}"},
            Redaction(secrets),
        )
        self.couriers = [
            Courier(hook, store, client, reactor, wall_clock) for hook in options.hooks
        ]
        self._pool = pool
        self._measuring = LoopingCall(self._measure)
        self._measuring.clock = reactor
        store.on_applied(self._look)

    def startService(self) -> None:
        super().startService()
        self._look()
        self._measuring.start(MEASURE)

    def stopService(self) -> Any:
        super().stopService()
        self._measuring.stop()
        for courier in self.couriers:
            courier.stop()
        return self._pool.closeCachedConnections()

    def _look(self) -> None:
        if self.running:
            for courier in self.couriers:
                courier.look()

    def _measure(self) -> None:
        for courier in self.couriers:
            courier.measure()
