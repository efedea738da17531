"""The bots of a call and the runners that gave none, in order, for the record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import UNSET
from msgspec.structs import replace

from pipecat_bridge.contracts import ReadyBy
from pipecat_bridge.events.record import BotRecord

MOST: Final = 50
"""Bots that are kept, the last ones."""


class BotLog:
    """`now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: deque[BotRecord] = deque(maxlen=MOST)
        self._asked_at = 0.0

    def asked(self) -> None:
        """A runner is asked for a bot."""
        self._asked_at = self._now()

    def failed(self, runner: str, fault: str) -> None:
        """The runner that was asked gives no bot. Another one may be asked now."""
        now = self._now()
        self._kept.append(
            BotRecord(runner=runner, asked_at=self._asked_at, ended_at=now, fault=fault)
        )
        self._asked_at = now

    def has_just_failed(self, runner: str) -> bool:
        """Whether the last that is known is a failure of this runner."""
        last = self._kept[-1] if self._kept else None
        return last is not None and last.runner == runner and last.ready_at is UNSET

    def ready(self, runner: str, by: ReadyBy) -> None:
        """The bot is ready."""
        now = self._now()
        self._kept.append(
            BotRecord(runner=runner, asked_at=self._asked_at, ready_at=now, ready_by=by)
        )

    def ended(self, fault: str = "") -> None:
        """The bot has ended; because of a `fault`, or with the call."""
        if self._kept and self._kept[-1].ended_at is UNSET:
            last = self._kept.pop()
            self._kept.append(replace(last, ended_at=self._now(), fault=fault or UNSET))

    @property
    def bots(self) -> tuple[BotRecord, ...]:
        """All of them, the first one first."""
        return tuple(self._kept)
