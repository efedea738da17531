"""Where bots come from: one is started at a runner of the pool, at another when that fails."""

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
)
from pipecat_bridge.errors import BlameError, BridgeError
from pipecat_bridge.net.descriptors import Descriptors
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options
from pipecat_bridge.runner.link.early import CallerDigit, CallerMessage, CallerText, Early
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.pool.pool import Lease, Pool, Upstream
from pipecat_bridge.runner.start.mode import RunnerMode
from pipecat_bridge.runner.start.start import Start, Starter

TOLD_WITHIN: Final = 2.0
"""Seconds that a runner has to take note that a bot is not needed any more, before the call that
waits for it goes on."""

FIRST_PAUSE: Final = 0.25
"""Seconds before all runners are asked again for a bot that takes the place of a lost one. Doubled
each time, up to `LONGEST_PAUSE`: a server that is redeployed is back within seconds."""

LONGEST_PAUSE: Final = 2.0

LEAST_TIME: Final = 0.1
"""Seconds before the deadline from which on no further runner is asked: it could not but fail, and
would be blamed for that."""


class Bots:
    """Makes bots for calls. `stopping` counts those that are being let go."""

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
        """A bot for one call, asked for by `start`; `lost` is the one whose place it takes."""
        return RunnerBot(self, request, playout, listener, lost)

    @property
    def why_none(self) -> str:
        """Why a call that comes now would get no bot; "" when a runner would be asked."""
        return "" if self.pool.could_try() else self.pool.why_none()


class RunnerBot:
    """One call's bot, from the search for a runner until the runner knows of its end.

    There is never more than one: before another runner is tried, the one that failed is told to
    stop, and what it may still dial is refused.
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
        self.upstream: Upstream | None = None  # that was asked last
        self.link: BotLink | None = None  # of the attempt under way, or of the bot that is there
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
        """The runner that serves it, or was asked last; "" before one is."""
        return self.upstream.name if self.upstream is not None else ""

    # To the bot

    def send_audio(self, pcm: bytes, rate: int) -> None:
        """Caller audio, mono PCM16 at `rate`; `audio_sink` is shorter once the bot is ready."""
        if self.link is not None:
            self.link.send_audio(pcm, rate)
        elif not self._stopped:
            self._early.audio.add(pcm, rate)

    @property
    def audio_sink(self) -> AudioSink:
        """Where the caller's audio goes from now on."""
        link = self.link
        return link.to_bot.send if link is not None and link.ready else self.send_audio

    def send_digit(self, digit: str) -> None:
        """A key that the caller pressed."""
        self._send(CallerDigit(digit))

    def send_text(self, content: str, run_immediately: bool, audio_response: bool) -> bool:
        """Text, as if the caller had typed it; False when the bot's dialect has no words for it."""
        if not self._bots.mode.takes_text:
            return False
        self._send(CallerText(content, run_immediately, audio_response))
        return True

    def _send(self, message: CallerMessage) -> None:
        if self.link is not None:
            self.link.send_message(message)
        elif not self._stopped:
            self._early.add_message(message)

    # Counters: those of the attempt under way, until one has succeeded

    @property
    def stats(self) -> LinkStats:
        """Of what it has sent."""
        return self.link.from_bot.stats if self.link is not None else LinkStats()

    @property
    def queue_stats(self) -> QueueStats:
        """Of the caller's audio to it."""
        return self.link.to_bot.stats if self.link is not None else QueueStats()

    @property
    def queued(self) -> int:
        """Frames that it has not read yet."""
        return self.link.to_bot.queued if self.link is not None else 0

    # The search

    def start(self) -> None:
        """Ask for it; the listener hears the rest."""
        self._searching = Deferred.fromCoroutine(self._search())
        self._searching.addErrback(self._not_searched)

    async def _search(self) -> None:
        """Try one runner after the other, until a bot is ready or the time is over.

        Without another runner to ask, a call's first search ends at once, so that the dialplan has
        its fallback soon. A search for a lost bot's successor goes on: the caller is in a talk.
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
                if self._stopped:  # by one who was told
                    return
            elif self._replaces and bots.reactor.seconds() + pause < deadline - LEAST_TIME:
                await deferLater(bots.reactor, pause)
                pause, tried = min(pause * 2, LONGEST_PAUSE), []
            else:
                break
        cause: FailureCause = "bridge" if isinstance(failure, BridgeError) else "runner"
        self._listener.bot_failed(str(failure or bots.pool.why_none()), cause)

    def _tell(self, runner: str, reason: str) -> None:
        """Tell of a failed attempt; what repeats itself in a long search is told once."""
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
        """How long a runner has to connect a bot, when others are there to be asked as well."""
        bots = self._bots
        seconds = deadline - bots.reactor.seconds()
        if self._replaces or bots.pool.could_try(tried):
            seconds = min(seconds, bots.options.runner.attempt_timeout)
        return max(seconds, 0.001)

    async def _try(self, lease: Lease, seconds: float) -> BlameError | None:
        """Start the bot at one runner; what went wrong."""
        self.upstream = lease.upstream
        start = self._start = Start(
            self._bots, self._request, self._playout, self._listener, self._early, lease
        )
        self.link = start.link
        failure = await start.begin(seconds)
        if failure is not None:
            self._let_go()
            self.link = None  # it takes nothing any more: what comes until the next one is kept
        return failure

    def _not_searched(self, failure: Failure) -> None:
        if self._stopped or failure.check(CancelledError):
            return
        call_id = self._request.call_id
        self._log.failure("{call_id} cannot search for a bot", failure, call_id=call_id)
        self._listener.bot_failed(f"a mistake of the bridge: {failure.getErrorMessage()}", "bridge")

    # The end

    def stop(self) -> Deferred[None]:
        """Let it go; fires when its sockets are closed and the runner knows, or after a while."""
        if not self._stopped:
            self._stopped = True
            # What points back is let go, so that the call leaves memory without a collection.
            del self._listener, self._playout
            searching, self._searching = self._searching, None
            if searching is not None:
                searching.cancel()
        return self._let_go().addTimeout(TOLD_WITHIN, self._bots.reactor, _enough)

    def _let_go(self) -> Deferred[None]:
        start, self._start = self._start, None
        return start.let_go() if start is not None else succeed(None)


def _enough(_: object, __: float) -> None:
    """The runner takes too long; what it is told does not hold up the call."""
