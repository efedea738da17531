"""Health checks: asks the runners of a pool at intervals whether they take calls."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.errors import BridgeError, PeerError
from pipecat_bridge.net.http import BUSY_STATUSES, HTTPClient
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.pool.breaker import jitter
from pipecat_bridge.runner.pool.upstream import Upstream

CHECK_TIMEOUT: Final = 2.0
"""Seconds for a runner to answer. A slower runner would let a caller wait as well."""


def status_url(base: str, path: str, default_path: str) -> str:
    """The URL for the health checks of a runner; "" if it has none.

    With an HTTP `base` the path is appended: `path`, or `default_path` if `path` is "". A WebSocket
    `base` says nothing about HTTP on that host. So there is no default, and `path` begins at the
    root of the host.
    """
    parts = urlsplit(base)
    dialled = parts.scheme in ("ws", "wss")
    path = path or ("" if dialled else default_path)
    if not path:
        return ""
    if dialled:
        scheme = "https" if parts.scheme == "wss" else "http"
        return urlunsplit((scheme, parts.netloc, path, "", ""))
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, fragment=""))


class HealthChecks:
    """Checks each runner every `health_interval` seconds between `start` and `stop`; 0: never.

    A runner gets one check at a time, the first one when its address is known. No answer, or a
    status of 5xx, is a failure for the breaker. 429 and 503 mean that the runner takes no calls
    until a later check gets another answer. Any other status is good. An unknown address is no
    failure.

    `client` should be for checks only. Checks that share a client with starts would wait behind the
    starts at a runner that hangs, and every runner would seem to hang.
    """

    _log = Logger()

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        client: HTTPClient,
        clock: IReactorTime,
        options: RunnerOptions,
        default_path: str,
        chance: random.Random,
    ) -> None:
        self._default_path = default_path
        self._client = client
        self._clock = clock
        self._options = options
        self._chance = chance
        self._running = False
        self._asking = {upstream: Tally() for upstream in upstreams}
        self._under_way: dict[Upstream, Deferred[bool]] = {}
        self._timers: dict[Upstream, IDelayedCall] = {}

    def start(self) -> None:
        """Check from now on."""
        self._running = self._options.health_interval > 0
        if self._running:
            for upstream in self._asking:
                self._ask(upstream)

    def stop(self) -> None:
        """Stop the checks, and cancel those under way."""
        self._running = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for asking in list(self._under_way.values()):
            asking.cancel()

    async def check(self, upstream: Upstream) -> None:
        """Check one runner now, and return when the result is known.

        If a check is under way, wait for its result. Before `start` this does nothing: without
        later checks, the result of this one would stay for ever.
        """
        if self._running and not self._asking[upstream].count:
            self._ask(upstream)
        await self._asking[upstream].idle()

    def _ask(self, upstream: Upstream) -> None:
        timer = self._timers.pop(upstream, None)
        if timer is not None and timer.active():
            timer.cancel()
        self._asking[upstream].enter()
        asking = self._under_way[upstream] = Deferred.fromCoroutine(self._judge(upstream))
        asking.addErrback(self._could_not, upstream)
        asking.addCallback(self._asked, upstream)

    def _could_not(self, failure: Failure, upstream: Upstream) -> bool:
        if not failure.check(CancelledError):
            self._log.failure("runner {name} cannot be checked", failure, name=upstream.name)
        return True

    def _asked(self, again: bool, upstream: Upstream) -> None:
        del self._under_way[upstream]
        if again and self._running:
            delay = self._options.health_interval * jitter(self._chance)
            self._timers[upstream] = self._clock.callLater(delay, self._ask, upstream)
        self._asking[upstream].leave()

    async def _judge(self, upstream: Upstream) -> bool:
        """Check a runner; False if its address has no URL for health checks."""
        knowing = upstream.address.url()
        if not knowing.called:
            upstream.has_no_address()
        url = status_url(await knowing, self._options.health_path, self._default_path)
        if url and not upstream.breaker.probing:
            await self._get(upstream, url)
        return bool(url)

    async def _get(self, upstream: Upstream, url: str) -> None:
        attempt, what = upstream.begin_check(), f"GET {urlsplit(url).path}"
        try:
            answer = await self._client.request("GET", url, timeout=CHECK_TIMEOUT)
        except BridgeError:
            pass  # a fault of the bridge says nothing about the runner
        except PeerError as error:
            if self._running:  # after `stop` the error may only come from the cancelled request
                upstream.silent(attempt, f"{what}: {error}")
        else:
            what = f"{what} was answered with {answer.status}"
            if answer.status in BUSY_STATUSES:
                upstream.draining(what)
            elif answer.status >= 500:
                upstream.silent(attempt, what)
            else:
                upstream.fine(attempt)
        finally:
            upstream.breaker.abandoned(attempt)
