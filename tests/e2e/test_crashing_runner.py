"""A pool under load of which one runner's bots crash: it costs no call, and comes back when mended.

On a turned clock: 5 calls a second for a minute, the first half of it with the fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.events.kinds import BotError, BotResumed, CallReady
from pipecat_bridge.options import RunnerOptions
from pipecat_bridge.runner.pool.breaker import JITTER
from pipecat_bridge.runner.pool.pool import Upstream
from tests.e2e.memory_line import MemoryLine, memory_line
from tests.e2e.test_pool import Runners, asked, make

EVERY = 0.2
"""Seconds between two calls."""

LASTS = 1.6
"""Seconds of a call."""

FAULTY = 30.0
"""Seconds for which the bots of one runner crash, and for which they are well again."""

CHECKED_EVERY = 5.0
"""Seconds between two checks of a runner's health. A check that is answered ends the time for which
it is left alone, so it is the probe."""

LEFT_ALONE_AFTER = RunnerOptions().breaker_failures


def closes(bot: Any) -> None:
    bot.close(1011, "no API key")


def dies(bot: Any) -> None:
    bot.die()


class Load:
    """Calls through a daemon: who serves them, and where a start failed."""

    def __init__(self, it: MemoryLine, ill: Upstream) -> None:
        self.it = it
        self.ill = ill
        self.placed: list[str] = []
        self.served: dict[str, str] = {}
        """By call: the runner."""
        self.failed: list[str] = []
        """By failed start: the runner."""
        self.spent = 0
        """Starts that had failed when the runner was left alone for the first time."""
        it.bridge.events.subscribe(self._hear)

    def _hear(self, event: CallEvent) -> None:
        if isinstance(event.data, CallReady | BotResumed):
            self.served[event.call_id] = event.data.runner
        elif isinstance(event.data, BotError):
            self.failed.append(str(event.data.runner))
            if not self.spent and self.ill.state == "open":
                self.spent = len(self.failed)

    def place(self, seconds: float) -> list[str]:
        """Calls, one after the other; their ids."""
        ids = []
        for _ in range(round(seconds / EVERY)):
            phone = self.it.dial()
            ids.append(str(phone.call_id))
            self.it.clock.callLater(LASTS, phone.hangup)
            self.it.clock.turn(EVERY)
        self.placed += ids
        return ids


@pytest.mark.parametrize(
    ("size", "mode", "sockets", "crash"),
    [
        pytest.param(2, "dialback", "both", dies, id="2-between-two-sockets"),
        pytest.param(2, "dial", None, dies, id="2-reset"),
        pytest.param(3, "dialback", None, closes, id="3-closes"),
        pytest.param(3, "dialback", "both", dies, id="3-between-two-sockets"),
        pytest.param(10, "dial", None, closes, id="10-closes"),
    ],
)
def test_it_costs_no_call_and_comes_back(
    size: int, mode: str, sockets: Any, crash: Callable[[Any], None]
) -> None:
    def runners(clock: Any) -> Runners:
        options = {"sockets": sockets} if mode == "dialback" else {}
        return Runners(*(make(mode, clock, **options) for _ in range(size)))

    with memory_line(f"runner.health_interval={CHECKED_EVERY}", make=runners) as it:
        ill, *well = it.runner.each
        [upstream] = [each for each in it.bridge.runner.pool.upstreams if each.name == ill.url]
        load = Load(it, upstream)
        ill.bot_options["on_open"] = crash
        load.place(FAULTY)
        assert 1 <= load.spent <= LEFT_ALONE_AFTER
        assert set(load.failed) == {ill.url}
        # Then it is tried with one call now and then.
        assert len(load.failed) - load.spent <= FAULTY / CHECKED_EVERY
        assert asked(ill) == len(load.failed), "no call was tried there twice"
        # It is mended.
        del ill.bot_options["on_open"]
        failed, probe_due = len(load.failed), upstream.breaker.left
        later = load.place(FAULTY)
        it.clock.turn(LASTS)
        assert len(load.failed) == failed
        back = next(n * EVERY for n, call in enumerate(later) if load.served[call] == ill.url)
        assert back <= probe_due + CHECKED_EVERY * (1 + JITTER) + EVERY
        # No call was lost, and none of the others had more to do than the rest of them.
        assert set(load.served) == set(load.placed)
        outcomes = it.bridge.calls.outcomes
        assert outcomes == {"caller-hangup": len(load.placed)}
        shares = Counter(load.served.values())
        mean = sum(shares[each.url] for each in well) / len(well)
        assert all(abs(shares[each.url] - mean) <= 0.1 * mean for each in well), shares


def test_bots_that_die_as_soon_as_they_are_ready() -> None:
    """Their calls go on with another bot, and the runner is left alone as well."""

    def runners(clock: Any) -> Runners:
        return Runners(*(make("dialback", clock, sockets=None) for _ in range(3)))

    settings = ("calls.on_bot_lost=restart", "runner.health_interval=0")
    with memory_line(*settings, make=runners) as it:
        ill = it.runner.each[0]
        [upstream] = [each for each in it.bridge.runner.pool.upstreams if each.name == ill.url]
        ill.bot_options["on_ready"] = lambda bot: bot.later(0.02, bot.die)
        load = Load(it, upstream)
        load.place(10.0)
        # Three until it is left alone, then one each time that it is tried.
        assert LEFT_ALONE_AFTER <= upstream.lost <= LEFT_ALONE_AFTER + 3
        assert upstream.state == "open"
        it.clock.turn(LASTS)
        assert it.bridge.calls.outcomes == {"caller-hangup": len(load.placed)}
        assert {load.served[call] for call in load.placed[-5:]} <= {
            each.url for each in it.runner.each[1:]
        }
