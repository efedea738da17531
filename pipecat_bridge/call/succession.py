"""The bots of one call: usually one, and another one each time a lost bot is replaced."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred

from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.contracts import (
    Bot,
    BotListener,
    BotRequest,
    BotSource,
    LinkStats,
    QueueStats,
)


class Succession:
    """The bots of one call, one after the other. `bot` is the current one."""

    def __init__(
        self, bots: BotSource, request: BotRequest, playout: Playout, listener: BotListener
    ) -> None:
        self._bots = bots
        self._request = request
        self._playout = playout
        self._past: list[tuple[LinkStats, QueueStats]] = []
        self._stopped = False
        self.bot = bots.bot(request, playout, listener)

    @property
    def replaced(self) -> int:
        """How many bots were lost and replaced."""
        return len(self._past)

    @property
    def stats(self) -> list[tuple[LinkStats, QueueStats]]:
        """The counters of each bot, the first bot first."""
        return [*self._past, _stats(self.bot)]

    def start(self) -> None:
        """Ask for the bot, unless the call has ended."""
        if not self._stopped:
            self.bot.start()

    def replace(self, listener: BotListener) -> Deferred[None]:
        """Stop the lost bot and make another one. Start it when the Deferred fires.

        The lost bot has stopped then, so that a call never has two bots at a time.
        """
        lost: Bot = self.bot
        self._past.append(_stats(lost))
        request = replace(self._request, resumption=self.replaced)
        self.bot = self._bots.bot(request, self._playout, listener, lost)
        return lost.stop()

    def stop(self) -> None:
        """Stop the bot. Further calls do nothing."""
        if not self._stopped:
            self._stopped = True
            self.bot.stop()


def _stats(bot: Bot) -> tuple[LinkStats, QueueStats]:
    return bot.stats, bot.queue_stats
