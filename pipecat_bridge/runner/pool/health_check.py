"""Asks the runners of a pool now and then how they are."""

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
from pipecat_bridge.net.http import BUSY, HTTPClient
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.pool.breaker import jitter
from pipecat_bridge.runner.pool.upstream import Upstream

CHECK_TIMEOUT: Final = 2.0
"""Seconds in which a runner must have answered: a call that waits longer has a caller who waits."""


def status_url(base: str, path: str, default_path: str) -> str:
    """What a runner is asked for, "" when it cannot be: `path`, by default its mode's.

    The WebSocket URL of a bot says nothing about HTTP on its host. So there is no default, and
    `path` is taken from the root of the host.
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

    A runner is asked once at a time, and at once when its address is known. No answer, or one of
    5xx, is a failure to its breaker; 429 and 503 say that it takes no calls until another check
    says otherwise; with anything else it is fine. An address that is not known yet is no failure.

    `client` should be for checks alone: in the queue of the starts they would wait behind those of
    a runner that hangs, and all runners would seem to.
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
        """Check no more; what is under way is given up."""
        self._running = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for asking in list(self._under_way.values()):
            asking.cancel()

    async def check(self, upstream: Upstream) -> None:
        """Ask one runner ahead of its time, and return when it is known how it is.

        When it is being asked already this only waits for the answer. Before `start` it does
        nothing: one who is asked once and never again would stay what it was then.
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
        """See how a runner is; False when there is nothing to ask at its address."""
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
            pass  # it says nothing about the runner
        except PeerError as error:
            if self._running:  # else given up: some requests end that with an error of their own
                upstream.silent(attempt, f"{what}: {error}")
        else:
            what = f"{what} was answered with {answer.status}"
            if answer.status in BUSY:
                upstream.draining(what)
            elif answer.status >= 500:
                upstream.silent(attempt, what)
            else:
                upstream.fine(attempt)
        finally:
            upstream.breaker.abandoned(attempt)
