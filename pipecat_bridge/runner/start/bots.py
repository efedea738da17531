"""Starts the bot of each call at a runner of the pool, and at another runner if that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import (
    AudioSink,
    BotListener,
    BotRequest,
    FailureCause,
    LinkStats,
    QueueStats,
    TextFate,
)
from pipecat_bridge.errors import BlameError, BridgeError
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.failures import drop_tracebacks
from pipecat_bridge.net.guard import reason_of
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options
from pipecat_bridge.runner.link.early import CallerDigit, CallerMessage, CallerText, Early
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.pool.pool import Lease, Pool, Upstream
from pipecat_bridge.runner.start.mode import RunnerMode
from pipecat_bridge.runner.start.start import Start, Starter

TOLD_WITHIN: Final = 2.0
"""Seconds that a call waits until the runner knows that the bot is not needed any more."""

FIRST_PAUSE: Final = 0.25
"""Seconds before all runners are asked again for a bot that replaces a lost one. The pause doubles
each time, up to `LONGEST_PAUSE`: a server that is redeployed is back within seconds."""

LONGEST_PAUSE: Final = 2.0
"""Longest pause before all runners are asked again, in seconds."""

LEAST_TIME: Final = 0.1
"""Seconds. With less time until the deadline no further runner is asked: the start would fail, and
the runner would be blamed."""


class Bots:
    """Makes bots for calls. `stopping` counts the bots that are being stopped."""

    def __init__(
        self,
        reactor: IReactorTime,
        mode: RunnerMode,
        starter: Starter,
        pool: Pool,
        options: Options,
        descriptors: Descriptors,
        now: Callable[[], float],
    ) -> None:
        self.reactor = reactor
        self.mode = mode
        self.starter = starter
        self.pool = pool
        self.options = options
        self.stopping = Tally()
        self.descriptors = descriptors
        self.now = now

    def bot(
        self,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        lost: RunnerBot | None = None,
    ) -> RunnerBot:
        """A bot for one call; its `start` begins the search. `lost` is the bot that it replaces."""
        return RunnerBot(self, request, playout, listener, lost)

    @property
    def why_none(self) -> str:
        """Why a call that comes now would get no bot; "" when a runner would be asked."""
        return "" if self.pool.could_try() else self.pool.why_none()


class RunnerBot:
    """One call's bot, from the search for a runner until the runner knows that the bot ended.

    A call never has two bots: before another runner is tried, the failed one is told to stop, and
    the sockets that it still dials are refused.
    """

    _log = Logger()

    def __init__(
        self,
        bots: Bots,
        request: BotRequest,
        playout: Playout,
        listener: BotListener,
        lost: RunnerBot | None,
    ) -> None:
        self.upstream: Upstream | None = None  # the runner that was asked last
        self.link: BotLink | None = None  # of the attempt under way, or of the ready bot
        self._bots = bots
        self._request = request
        self._playout = playout
        self._listener = listener
        self._lost = lost.upstream if lost is not None else None
        self._replaces = lost is not None
        self._early = Early(bots.options.caller_audio.keep_before_ready)
        self._start: Start | None = None
        self._searching: Deferred[None] | None = None
        self._told: set[tuple[str, str]] = set()
        self._stopped = False

    @property
    def runner_name(self) -> str:
        """The runner that serves the bot, or was asked last; "" if none was asked."""
        return self.upstream.name if self.upstream is not None else ""

    # To the bot

    def send_audio(self, pcm: bytes, rate: int) -> None:
        """Send caller audio, mono PCM16 at `rate`. For a ready bot `audio_sink` costs less."""
        if self.link is not None:
            self.link.send_audio(pcm, rate)
        elif not self._stopped:
            self._early.audio.add(pcm, rate)

    @property
    def audio_sink(self) -> AudioSink:
        """Takes the caller's audio from now on. It changes when the bot becomes ready."""
        link = self.link
        return link.to_bot.send if link is not None and link.ready else self.send_audio

    def send_digit(self, digit: str) -> bool:
        """Send a key that the caller pressed. False: it was dropped."""
        return self._send(CallerDigit(digit))

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> TextFate:
        """Send text, as if the caller had typed it."""
        if not self._bots.mode.takes_text:
            return "no-texts"
        sent = self._send(CallerText(content, run_immediately, audio_response))
        return "sent" if sent else "full"

    def _send(self, message: CallerMessage) -> bool:
        if self.link is not None:
            return self.link.send_message(message)
        return self._stopped or self._early.add_message(message)

    # Counters of the attempt under way, or of the ready bot

    @property
    def stats(self) -> LinkStats:
        """Counters of what the bot sends."""
        return self.link.from_bot.stats if self.link is not None else LinkStats()

    @property
    def queue_stats(self) -> QueueStats:
        """Counters of the caller's audio to the bot."""
        return self.link.to_bot.stats if self.link is not None else QueueStats()

    @property
    def queued(self) -> int:
        """Frames that the bot has not read yet."""
        return self.link.to_bot.queued if self.link is not None else 0

    # The search

    def start(self) -> None:
        """Begin the search for a bot. The listener is told the result."""
        self._searching = Deferred.fromCoroutine(self._search())
        self._searching.addErrback(self._not_searched)

    async def _search(self) -> None:
        """Try one runner after the other, until a bot is ready or the time is over.

        If no other runner is left, a call's first search ends at once, so that the dialplan gets
        its fallback soon. A search that replaces a lost bot goes on: the caller is in a
        conversation.
        """
        bots = self._bots
        deadline = bots.reactor.seconds() + bots.options.runner.connect_timeout
        pause = FIRST_PAUSE
        tried = self._tried_first()
        failure: BlameError | None = None
        while True:
            lease = bots.pool.take(tried)
            if lease is not None:
                tried.append(lease.upstream)
                failure = await self._try(lease, self._seconds(deadline, tried))
                if failure is None:
                    return
                goes_on = self._replaces or bots.pool.could_try(tried)
                if self._is_over(deadline, failure) or not goes_on:
                    break
                self._tell(lease.upstream.name, str(failure))
                if self._stopped:  # the listener stopped this bot
                    return
            elif self._replaces and bots.reactor.seconds() + pause < deadline - LEAST_TIME:
                await deferLater(bots.reactor, pause)
                pause, tried = min(pause * 2, LONGEST_PAUSE), []
            else:
                break
        cause: FailureCause = "bridge" if isinstance(failure, BridgeError) else "runner"
        self._listener.bot_failed(str(failure or bots.pool.why_none()), cause)

    def _tell(self, runner: str, reason: str) -> None:
        """Tell the listener about a failed attempt. The same failure is told once in a search."""
        if (runner, reason) not in self._told:
            self._told.add((runner, reason))
            self._listener.bot_attempt_failed(runner, reason)

    def _is_over(self, deadline: float, failure: BlameError) -> bool:
        left = deadline - self._bots.reactor.seconds()
        return left < LEAST_TIME or isinstance(failure, BridgeError)

    def _tried_first(self) -> list[Upstream]:
        """The runner of the lost bot is asked last, unless there is no other."""
        avoided = [self._lost] if self._lost is not None else []
        return avoided if self._bots.pool.could_try(avoided) else []

    def _seconds(self, deadline: float, tried: list[Upstream]) -> float:
        """Seconds for a runner to connect a bot. They are fewer if others can be asked as well."""
        bots = self._bots
        seconds = deadline - bots.reactor.seconds()
        if self._replaces or bots.pool.could_try(tried):
            seconds = min(seconds, bots.options.runner.attempt_timeout)
        return max(seconds, 0.001)

    async def _try(self, lease: Lease, seconds: float) -> BlameError | None:
        """Start the bot at one runner; returns the error, or None if the bot is ready."""
        self.upstream = lease.upstream
        bots = self._bots
        try:
            dialect = bots.mode.dialect(self._request, bots.options)
            start = self._start = Start(
                bots, dialect, self._request, self._playout, self._listener, self._early, lease
            )
        except Exception:
            lease.give_back()  # a fault of the bridge must not make the runner look loaded
            raise
        self.link = start.link
        failure = await start.begin(seconds)
        if failure is not None:
            self._let_go()
            self.link = None  # so that audio and keys are kept for the next attempt
        return failure

    def _not_searched(self, failure: Failure) -> None:
        if self._stopped or failure.check(CancelledError):
            drop_tracebacks(failure)
            return
        call_id = self._request.call_id
        self._log.failure("{call_id} cannot search for a bot", failure, call_id=call_id)
        self._listener.bot_failed(reason_of(failure), "bridge")

    # The end

    def stop(self) -> Deferred[None]:
        """Stop the bot. Fires when its sockets are closed and the runner has been told, or after
        `TOLD_WITHIN` seconds."""
        if not self._stopped:
            self._stopped = True
            # Drop references to the call, so that it is freed without the garbage collector.
            del self._listener, self._playout
            searching, self._searching = self._searching, None
            if searching is not None:
                searching.cancel()
        return self._let_go().addTimeout(TOLD_WITHIN, self._bots.reactor, _enough)

    def _let_go(self) -> Deferred[None]:
        start, self._start = self._start, None
        return start.let_go() if start is not None else succeed(None)


def _enough(_: object, __: float) -> None:
    """Stop waiting: a slow runner must not delay the call."""
