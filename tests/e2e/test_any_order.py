"""Calls, bots and runners in any order of events, through a whole daemon: nothing is left of them.

On a turned clock, from seeds: what fails can be repeated.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import State
from pipecat_bridge.events.events import CallEvent
from tests.doubles.asterisk import StrictAsterisk
from tests.e2e.dialled import constant
from tests.e2e.memory_line import MemoryLine, memory_line
from tests.e2e.test_pool import Runners, make

SEEDS = 12
"""Histories in each mode."""

STOPPED_AT = (
    "",
    "",
    "",
    "call.created",
    "call.answered",
    "call.ready",
    "bot.error",
    "bot.lost",
    "bot.resumed",
    "warning",
)
"""Events at which one who hears of them stops the call, in some histories."""

STEPS = 120
"""Events of one history."""

ALL_OVER = 90.0
"""Seconds after which nothing is under way: longer than any timeout, and than any delay."""

WELL: dict[str, Any] = {"ready_after": 0.0, "on_open": None, "on_ready": None, "dies_before": None}

CODES = (1000, 1001, 1011, 1012, 1013)


def _say(bot: Any) -> None:
    bot.burst(constant(5000, 0.1), 8000)


def _fatal(bot: Any) -> None:
    bot.rtvi("error", {"error": "no key", "fatal": True})


def _much(bot: Any) -> None:
    bot.burst(bytes(24000 * 2 * 50), 24000)


def _keys(bot: Any) -> list[int]:
    return [int(each["data"]["button"]) for each in bot.messages if each.get("type") == "dtmf"]


def _command(kind: str, **more: Any) -> Callable[[Any], None]:
    return lambda bot: bot.rtvi("server-message", {"type": kind, **more})


ACTS: dict[str, Callable[[Any], object]] = {
    "ready": lambda bot: bot.rtvi("bot-ready", {"version": "1.0.0"}),
    "say": _say,
    "much": _much,
    "error": lambda bot: bot.rtvi("error", {"error": "hm", "fatal": False}),
    "fatal": _fatal,
    "hangup": _command("hangup", reason="done"),
    "transfer": _command("transfer", target="support"),
    "tones": _command("play_dtmf", digits="12"),
    "interrupt": lambda bot: bot.interrupt(),
    "garbage": lambda bot: bot.garbage(),
    "die": lambda bot: bot.die(),
    "half": lambda bot: bot.sockets and next(iter(bot.sockets.values())).sendCloseFrame(code=1000),
    "half-1012": lambda bot: (
        bot.sockets and list(bot.sockets.values())[-1].sendCloseFrame(code=1012)
    ),
    **{f"close-{n}": lambda bot, n=n: bot.close(n) for n in CODES},
}


class History:
    """One history of a daemon; `invariants` hold after each step of it."""

    def __init__(self, it: MemoryLine, chance: random.Random, mode: str) -> None:
        self.it = it
        self.mode = mode
        self.chance = chance
        self.phones: list[StrictAsterisk] = []
        self.pressed: dict[str, int] = {}
        self.events: dict[str, list[str]] = {}
        self.bots: dict[int, Any] = {}
        self.log: list[str] = []
        self.stops_at = ""
        it.bridge.events.subscribe(self._hear)

    def _hear(self, event: CallEvent) -> None:
        told = self.events.setdefault(event.call_id, [])
        if event.kind == "call.created":
            told.clear()
        told.append(event.kind)
        if event.kind == self.stops_at and self.chance.random() < 0.5:
            call = self.it.bridge.calls._running.get(event.call_id)
            if call is not None:
                call.stop()

    def acts(self) -> Callable[[Any], None]:
        names = self.chance.choices(list(ACTS), k=self.chance.randint(1, 4))

        def act(bot: Any) -> None:
            for name in names:
                ACTS[name](bot)

        act.__name__ = "+".join(names)
        return act

    def step(self) -> None:
        chance = self.chance
        name = chance.choice(
            ["dial"] * 4
            + ["key"] * 5
            + ["refuse"] * 3
            + ["again", "hangup", "reset", "stop", "text"]
            + ["act"] * 4
            + ["behave"] * 4
            + ["turn"] * 8
        )
        self.log.append(name)
        getattr(self, f"do_{name}")()

    def live(self) -> list[StrictAsterisk]:
        return [each for each in self.phones if each.ended is None]

    def do_dial(self) -> None:
        if len(self.live()) < 6:
            self._dialled(self.it.dial())

    def _dialled(self, phone: StrictAsterisk) -> None:
        phone.start_audio()
        self.phones.append(phone)
        self.pressed[str(phone.call_id)] = 0

    def do_again(self) -> None:
        over = [each for each in self.phones if each.ended is not None]
        if over:
            call_id = self.chance.choice(over[-3:]).call_id
            if all(each.call_id != call_id for each in self.live()):
                self._dialled(self.it.dial(call_id=call_id))

    def do_key(self) -> None:
        if live := self.live():
            phone = self.chance.choice(live)
            for _ in range(self.chance.randint(1, 3)):
                count = self.pressed[str(phone.call_id)]
                self.pressed[str(phone.call_id)] += 1
                phone.dtmf(str(count % 10))
                self.it.clock.turn(0.001)

    def do_hangup(self) -> None:
        if live := self.live():
            self.chance.choice(live).hangup()

    def do_reset(self) -> None:
        if live := self.live():
            self.chance.choice(live).reset()

    def do_stop(self) -> None:
        if running := self.it.bridge.calls.running:
            self.chance.choice(running).stop()

    def do_text(self) -> None:
        if running := self.it.bridge.calls.running:
            self.chance.choice(running).bot.send_text("hello", True, True)

    def do_refuse(self) -> None:
        port = urlsplit(self.chance.choice(self.it.runner.each).url).port
        if port in self.it.clock._listening:
            self.it.clock.refuse(port, self.chance.choice([0.1, 1.0, 5.0]))

    def do_act(self) -> None:
        bots = [b for r in self.it.runner.each for b in r.bots.values() if b.sockets]
        if bots:
            act = self.acts()
            self.log[-1] += ":" + act.__name__
            act(self.chance.choice(bots))

    def do_behave(self) -> None:
        chance = self.chance
        runner = chance.choice(self.it.runner.each)
        if chance.random() < 0.4:
            self.heal(runner)
            return
        runner.answers.clear()
        runner.answers.append(
            chance.choice(
                ["ok"] * 6
                + ["slow", "500", "503", "429", "error", "bad-json"]
                + ["endless", "hang", "drop"]
            )
        )
        runner.retry_after = chance.choice([None, 1, 3])
        runner.stop_after = chance.choice([0.0, 0.0, 0.5, 100.0])
        runner.dial_first = chance.random() < 0.2
        runner.dial_delay = chance.choice([0.0, 0.0, 0.3, 3.0, None])
        if self.mode == "dialback":
            runner.sockets = chance.choice(["both", None, None])
        runner.bot_options.update(
            ready_after=chance.choice([0.0, 0.2, 5.0, None]),
            on_open=chance.choice([None, self.acts()]),
            on_ready=chance.choice([None, None, self.acts()]),
        )

    def heal(self, runner: Any) -> None:
        runner.answers.clear()
        runner.answers.append("ok")
        runner.stop_after, runner.dial_delay, runner.dial_first = 0.0, 0.0, False
        runner.retry_after = None
        runner.bot_options.update(WELL)

    def do_turn(self) -> None:
        self.it.clock.turn(self.chance.choice([0.0, 0.001, 0.02, 0.1, 0.3, 1.0, 3.0]))

    def invariants(self) -> None:
        upstreams = self.it.bridge.runner.pool.upstreams
        for each in upstreams:
            assert 0 <= each.starting <= each.calls, (each.starting, each.calls)
        assert sum(each.calls for each in upstreams) <= len(self.it.bridge.calls.running)
        for told in self.events.values():
            assert told.count("call.ended") <= 1, told
            if "call.ended" in told:
                assert told[-1] == "call.ended", told
        for runner in self.it.runner.each:
            for bot in [*runner.bots.values(), *getattr(runner, "sessions", [])]:
                self.bots[id(bot)] = bot
        for bot in self.bots.values():
            keys = _keys(bot)
            assert all((a + 1) % 10 == b for a, b in pairwise(keys)), keys
        for call in self.it.bridge.calls.running:
            if call.state is State.TALKING:
                self.check_first_key(call)

    def check_first_key(self, call: Call) -> None:
        """A bot has all keys that were pressed since the one before it was lost."""
        told = self.events[call.call_id]
        lost = len(told) - told[::-1].index("bot.lost") if "bot.lost" in told else 0
        [runner] = [each for each in self.it.runner.each if each.url == call.bot.runner_name]
        bot = runner.bots.get(call.call_id)
        if bot is not None and (keys := _keys(bot)):
            assert keys[0] == told[:lost].count("dtmf") % 10

    def end(self) -> None:
        it = self.it
        self.stops_at = ""
        for phone in self.live():
            phone.hangup()
        for runner in it.runner.each:
            self.heal(runner)
        it.clock.turn(ALL_OVER)
        for runner in it.runner.each:
            for bot in [*runner.bots.values(), *getattr(runner, "sessions", [])]:
                assert not bot.sockets
        self.invariants()
        side, calls = it.bridge.runner, it.bridge.calls
        assert calls.running == []
        assert calls.idle().called
        assert [(u.calls, u.starting, u.breaker.probing) for u in side.pool.upstreams] == [
            (0, 0, False) for _ in side.pool.upstreams
        ]
        assert side.bots.stopping.count == 0
        assert side.dialback_server._expected == {}
        if self.mode == "dialback":
            assert side.bots.starter._stopping == {}
        left = [str(timer) for timer in it.clock.getDelayedCalls()]
        left = [t for t in left if "_look" not in t and "_updateLogDateTime" not in t]
        assert left == []
        # All are trusted again.
        for _ in range(6 * len(it.runner.each)):
            phone = it.dial()
            it.clock.turn(1.0)
            assert it.record(phone)["state"] == "talking", it.record(phone)["reason"]
            phone.hangup()
            it.clock.turn(2.0)
        assert [u.state for u in side.pool.upstreams] == ["closed"] * len(it.runner.each)
        for runner in it.runner.each:
            assert runner.faults == []


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("mode", ["dialback", "dial"])
def test_nothing_is_left_of_them(mode: str, seed: int) -> None:
    chance = random.Random(seed)
    settings = (
        f"calls.on_bot_lost={chance.choice(['restart', 'restart', 'hangup', 'dialplan'])}",
        f"runner.breaker_failures={chance.choice([1, 3])}",
        f"runner.ready_timeout={chance.choice([0.0, 0.3, 1.0])}",
        f"runner.attempt_timeout={chance.choice([0.5, 4.0])}",
        "runner.health_interval=0",
        "runner.idle_timeout=5",
    )
    size = chance.choice([1, 2, 3])
    faults: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] >= LogLevel.critical:
            failure = event.get("log_failure")
            faults.append(formatEvent(event) + (failure.getTraceback() if failure else ""))

    globalLogPublisher.addObserver(observe)
    try:
        with memory_line(
            *settings, make=lambda clock: Runners(*(make(mode, clock, **WELL) for _ in range(size)))
        ) as it:
            history = History(it, chance, mode)
            history.stops_at = chance.choice(STOPPED_AT)
            try:
                for _ in range(STEPS):
                    history.step()
                    history.invariants()
                history.end()
            except BaseException:
                print(settings, size, history.stops_at, history.log)
                raise
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert faults == []
