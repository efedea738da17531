"""Where bots come from: one is started at a runner of the pool, at another when that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.options import CallerAudioOptions, RunnerOptions
from pipecat_bridge.runner.address import RunnerAddress
from pipecat_bridge.runner.client import RunnerBusyError, RunnerError
from pipecat_bridge.runner.interfaces import BotListener
from pipecat_bridge.runner.link import BotLink
from pipecat_bridge.runner.pool import Lease, Pool, Upstream
from pipecat_bridge.runner.request import BotRequest
from pipecat_bridge.tally import Tally
from pipecat_bridge.wire.dialect import Dialect

TOLD_WITHIN = 2.0
"""Seconds that a runner has to take note that a bot is not needed any more, before the call that
waits for it goes on."""


class Attempt(Protocol):
    """One start of a bot at one runner; `unconnected` says what is missing when it takes long."""

    unconnected: str

    async def start(self) -> RunnerError | None:
        """None when the bot is connected, else why it is not. May be cancelled."""
        ...

    def stop(self) -> Deferred[None]:
        """Let go of whatever was started; fires when the runner has been told."""


class Mode(Protocol):
    """A way to start bots and to speak with them."""

    def dialect(self, request: BotRequest) -> Dialect:
        """What is spoken with the bot."""

    def attempt(self, request: BotRequest, link: BotLink, address: RunnerAddress) -> Attempt:
        """A start at the runner at `address`, whose sockets are attached to `link`."""


class Bots:
    """Makes bots for calls. `stopping` counts those that are being let go."""

    def __init__(
        self,
        reactor: IReactorTime,
        mode: Mode,
        pool: Pool,
        options: RunnerOptions,
        audio: CallerAudioOptions,
        now: Callable[[], float],
    ) -> None:
        self.reactor = reactor
        self.mode = mode
        self.pool = pool
        self.options = options
        self.stopping = Tally()
        self._audio = audio
        self._now = now

    def bot(self, request: BotRequest, playout: Playout, listener: BotListener) -> Bot:
        """A bot for one call; it is asked for by `start`."""
        link = BotLink(
            request.call_id,
            self.reactor,
            playout,
            listener,
            self.mode.dialect(request),
            self._audio,
            self.options.ready_timeout,
            self._now,
            self.options.disconnect_grace,
        )
        return Bot(self, request, link, listener)


class Bot:
    """One call's bot, from the search for a runner until the runner knows of its end.

    There is never more than one: before another runner is tried, the one that failed is told to
    stop, and what it may still dial is refused.
    """

    _log = Logger()

    def __init__(
        self, bots: Bots, request: BotRequest, link: BotLink, listener: BotListener
    ) -> None:
        self.link = link
        self.runner_name = ""
        self._bots = bots
        self._request = request
        self._listener = listener
        self._lease: Lease | None = None
        self._attempt: Attempt | None = None
        self._starting: Deferred[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Ask for it; the listener hears the rest."""
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._not_started)

    async def _start(self) -> None:
        bots, tried = self._bots, list[Upstream]()
        deadline = bots.reactor.seconds() + bots.options.connect_timeout
        failure: RunnerError | None = None
        while lease := bots.pool.take(tried):
            tried.append(lease.upstream)
            seconds = deadline - bots.reactor.seconds()
            if bots.pool.could_try(tried):
                seconds = min(seconds, bots.options.attempt_timeout)
            failure = await self._try(lease, seconds)
            if failure is None:
                return
            self.link.abandon()
            self._let_go()
            if bots.reactor.seconds() >= deadline:
                break
            if bots.pool.could_try(tried):
                self._log.warn(
                    "{call_id} {runner}: {error}; another runner is asked",
                    call_id=self.link.call_id,
                    runner=lease.upstream.name,
                    error=failure,
                )
        self._listener.bot_failed(str(failure or bots.pool.why_none()))

    async def _try(self, lease: Lease, seconds: float) -> RunnerError | None:
        """Start the bot at one runner; what went wrong.

        It is not raised: what is raised out of a Deferred into a coroutine, and out of that, is in
        a cycle with Twisted's frames and ours, and with all that they know.
        """
        attempt = self._bots.mode.attempt(self._request, self.link, lease.upstream.address)
        self._lease, self._attempt = lease, attempt
        self.runner_name = lease.upstream.name

        def too_late(_: object, __: float) -> RunnerError:
            return RunnerError(f"{attempt.unconnected} within {round(seconds, 2):g} s")

        waiting = Deferred.fromCoroutine(attempt.start())
        waiting.addTimeout(max(seconds, 0.001), self._bots.reactor, too_late)
        error = await waiting
        if error is None:
            lease.connected()
        elif isinstance(error, RunnerBusyError):
            lease.busy(error.seconds)
        else:
            lease.failed(str(error))
        return error

    def _not_started(self, failure: Failure) -> None:
        if self._stopped or failure.check(CancelledError):
            return
        self._log.failure("{call_id} cannot start the bot", failure, call_id=self.link.call_id)
        self._listener.bot_failed(failure.getErrorMessage())

    def stop(self) -> Deferred[None]:
        """Let it go; fires when its sockets are closed and the runner knows, or after a while."""
        if not self._stopped:
            self._stopped = True
            # What points back is let go, so that the call leaves memory without a collection.
            del self._listener
            self.link.close()
            starting, self._starting = self._starting, None
            if starting is not None:
                starting.cancel()
        return self._let_go().addTimeout(TOLD_WITHIN, self._bots.reactor, _enough)

    def _let_go(self) -> Deferred[None]:
        """Give back the place at the runner, and tell it."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.give_back()
        attempt, self._attempt = self._attempt, None
        over: list[Deferred[Any]] = [self.link.sockets.idle()]
        if attempt is not None:
            over.append(attempt.stop())
        told: Deferred[None] = Deferred()
        self._bots.stopping.enter()
        gatherResults(over, consumeErrors=True).addBoth(self._let_gone, told)
        return told

    def _let_gone(self, _: object, told: Deferred[None]) -> None:
        self._bots.stopping.leave()
        if not told.called:
            told.callback(None)


def _enough(_: object, __: float) -> None:
    """The runner takes too long; what it is told does not hold up the call."""
