"""A thousand calls, ended in every way there is, several at a time: nothing of them is left."""

from __future__ import annotations

import gc
import os
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import CoroutineType
from typing import Any, NamedTuple

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.http import Request

from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.bot import BotDouble
from tests.doubles.runner import Received, RunnerDouble
from tests.e2e.harness import Line, line, reactor, sleep

CALLS = 1000
AT_A_TIME = 16
DRAINED = 8
MAX_LINES = 5
"""Lines of log for one call: created, initialized, terminated, and what went wrong."""

QUICK = (
    "audiosocket.handshake_timeout=0.4",
    "runner.request_timeout=0.4",
    "runner.connect_timeout=0.6",
    "websocket.handshake_timeout=1",
    "calls.keep_ended=20",
)


class Plan(NamedTuple):
    """What the runner and its bot do in one call."""

    answer: Any = "ok"
    dials: bool = True
    sockets: Any = "both"
    bot: dict[str, Any] = {}  # noqa: RUF012 - never changed


class PlannedRunner(RunnerDouble):
    """A runner double that behaves in each call as that call wants it."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, slow=0.2)
        self.plans: dict[str, Plan] = {}

    def _run(self, request: Request, received: Received) -> bytes | int:
        plan = self.plans[received.body["id"]]
        self.answers = deque([plan.answer])
        self.dial_delay = 0.0 if plan.dials else None
        return super()._run(request, received)

    def _dial(self, call_id: str, ws_url: str) -> Deferred[None]:
        plan = self.plans[call_id]
        self.sockets, self.bot_options = plan.sockets, plan.bot
        return super()._dial(call_id, ws_url)


class Lines(NamedTuple):
    """Daemons in front of the runners that the calls need."""

    usual: Line
    refused: Line  # nothing listens where its runner should be
    short: Line  # no call may last longer than 0.3 s

    def outcomes(self) -> Counter[str]:
        """How calls ended, in all daemons together."""
        return sum((Counter(each.bridge.calls.outcomes) for each in self), Counter())


@asynccontextmanager
async def lines() -> AsyncIterator[Lines]:
    async with (
        line(*QUICK, runner=PlannedRunner(reactor)) as usual,
        line(*QUICK, "runner.url=http://127.0.0.1:1") as refused,
        line(*QUICK, "calls.max_duration=0.3") as short,
    ):
        yield Lines(usual, refused, short)


Ending = Callable[[Lines], Awaitable[Any]]
ENDINGS: dict[str, tuple[Ending, str | None]] = {}
"""Name -> what happens, and the outcome that is counted for it; None: it never became a call."""


def ends(outcome: str | None) -> Callable[[Ending], Ending]:
    def register(ending: Ending) -> Ending:
        ENDINGS[ending.__name__] = ending, outcome
        return ending

    return register
