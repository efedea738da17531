"""One start of a bot at one runner. It succeeds when the bot is ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import BotListener, BotRequest, ReadyBy
from pipecat_bridge.errors import BlameError, BridgeError, PeerBusyError, PeerError
from pipecat_bridge.net.descriptors import NONE_LEFT, Descriptors
from pipecat_bridge.net.failures import drop_tracebacks
from pipecat_bridge.net.guard import reason_of
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options
from pipecat_bridge.runner.link.early import Early
from pipecat_bridge.runner.link.interfaces import Loss
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.pool.address import RunnerAddress
from pipecat_bridge.runner.pool.upstream import Lease
from pipecat_bridge.wire.dialect import Dialect


class Attempt(Protocol):
    """One start of a bot at one runner. `unconnected` says what is missing, for a timeout."""

    @property
    def unconnected(self) -> str: ...

    async def ask(self) -> None:
        """Ask for the bot, and dial it if this mode dials. Raises BlameError."""
        ...

    def stop(self) -> Deferred[None]:
        """Stop what was started. Fires when the runner has been told."""


class Starter(Protocol):
    """Makes the attempts of one runner mode."""

    def attempt(self, request: BotRequest, link: BotLink, address: RunnerAddress) -> Attempt:
        """A start at the runner at `address`. The bot's sockets are attached to `link`."""


class StartContext(Protocol):
    """What all starts of the daemon share. `stopping` counts the bots that are being stopped."""

    reactor: IReactorTime
    starter: Starter
    options: Options
    descriptors: Descriptors
    stopping: Tally
    now: Callable[[], float]


class Start:
    """One attempt with its link, and the bot's place at the runner until the bot ends.

    What the link tells is counted for the runner. A bot that is lost before it is ready is a failed
    start, even if its sockets were open.
    """

    _log = Logger()

    def __init__(
        self,
        context: StartContext,
        dialect: Dialect,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        early: Early,
        lease: Lease,
    ) -> None:
        self._context = context
        self._listener = listener
        self._lease = lease
        self._result: Deferred[BlameError | None] = Deferred()
        self._asking: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None  # until the sockets are open
        self.link = BotLink(
            request.call_id,
            context.reactor,
            playout,
            self,
            listener,
            dialect,
            context.options.caller_audio,
            early,
            context.options.runner.ready_timeout,
            context.now,
            context.options.runner.disconnect_grace,
        )
        self._attempt = context.starter.attempt(request, self.link, lease.upstream.address)

    def begin(self, seconds: float) -> Deferred[BlameError | None]:
        """Ask for the bot, which has `seconds` to connect. Fires with None, or with the error.

        The Deferred never fails. An exception that goes from a Deferred through a coroutine is in a
        reference cycle with the stack frames, which would keep the call in memory.
        """
        self._timer = self._context.reactor.callLater(seconds, self._not_connected, seconds)
        self._asking = Deferred.fromCoroutine(self._attempt.ask())
        self._asking.addErrback(self._not_asked)
        return self._result

    def _not_connected(self, seconds: float) -> None:
        self._timer = None
        text = f"{self._attempt.unconnected} within {round(seconds, 2):g} s"
        if self._context.descriptors.none_left:
            # The bot may have dialled back, and the bridge could not accept its connection.
            self.link.fail(BridgeError(f"{text}: {NONE_LEFT}"))
        else:
            self.link.fail(PeerError(text))

    def _not_asked(self, failure: Failure) -> None:
        """Fail the link: the runner refused, or the bridge has a fault.

        If the bot is connected already, a late or wrong answer does not matter: some runners answer
        only when the call is over.
        """
        link = self.link
        error = failure.value
        if isinstance(error, BlameError | CancelledError):
            drop_tracebacks(failure)
        if isinstance(error, CancelledError) or link.connected:
            return
        if isinstance(error, BlameError):
            link.fail(error)
            return
        self._log.failure("{call_id} cannot start the bot", failure, call_id=link.call_id)
        link.fail(BridgeError(reason_of(failure)))

    # From the link

    def link_connected(self) -> None:
        """The sockets are open. The link now waits `ready_timeout` seconds."""
        self._cancel_timer()

    def link_ready(self, by: ReadyBy) -> None:
        """The start has succeeded."""
        self._lease.ready()
        self._result.callback(None)
        self._listener.bot_ready(by)

    def link_failed(self, error: BlameError) -> None:
        """The start has failed. For a fault of the bridge the runner is not blamed."""
        if isinstance(error, PeerBusyError):
            self._lease.busy(error.seconds)
        elif not isinstance(error, BridgeError):
            self._lease.failed(str(error))
        self._result.callback(error)

    def link_ended(self) -> None:
        """The bot has ended in good order."""
        self._listener.bot_ended()

    def link_lost(self, loss: Loss) -> None:
        """The bot is lost."""
        self._lease.lost(loss.reason, loss.busy)
        self._listener.bot_lost(loss.cause, loss.reason)

    def link_broken(self, reason: str) -> None:
        """End the start, or the call, after a fault of the bridge. The runner is not blamed."""
        if self._result.called:
            self._listener.bot_broken(reason)
        else:
            self._result.callback(BridgeError(reason))

    # The end

    def let_go(self) -> Deferred[None]:
        """Stop what was started, and give the place back. Must be called only once.

        Fires when the sockets are closed and the runner has been told.
        """
        self._cancel_timer()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        self._lease.give_back()
        stopped = self._attempt.stop()  # first: a fault in the link must not leave the bot running
        self.link.close()
        # Drop references to the call, so that it is freed without the garbage collector.
        del self._listener
        told: Deferred[None] = Deferred()
        over: list[Deferred[Any]] = [self.link.sockets.idle(), stopped]
        self._context.stopping.enter()
        gatherResults(over, consumeErrors=True).addBoth(self._let_gone, told)
        return told

    def _let_gone(self, _: object, told: Deferred[None]) -> None:
        self._context.stopping.leave()
        if not told.called:
            told.callback(None)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
