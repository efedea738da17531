"""What the tests ask of a call: its bot, its record, and that Asterisk has forgotten it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.asterisk.ami import AmiError
from tests.asterisk.caller import Caller
from tests.asterisk.compare import Comparison, compare, unlike
from tests.asterisk.pbx import Pbx
from tests.asterisk.sound import Signal
from tests.doubles.bot import BotDouble
from tests.doubles.runner import RunnerDouble

APPLICATION = "603@pipecat"
CHANNEL = "605@pipecat"
DRIVERS = {"application": APPLICATION, "channel": CHANNEL}
"""Both ways into the bridge, as etc/asterisk/extensions.conf has them."""

WHOLE: Final = 0.999
"""The least correlation of sound that is as it was said."""

SCALED: Final = 0.95
"""The least correlation of sound whose time was scaled, or that has a hole of 20 ms or two."""


async def bot_of(runner: RunnerDouble, call_id: str, timeout: float = 10.0) -> BotDouble:
    """The bot of a call, once it is ready to listen."""

    def ready() -> bool:
        return call_id in runner.bots and runner.bots[call_id].ready_sent

    for _ in range(round(timeout / 0.01)):
        if ready():
            return runner.bots[call_id]
        await deferLater(reactor, 0.01)
    raise AssertionError(f"no bot for {call_id} within {timeout:g} s; requests: {runner.requests}")


async def echo_from_now_on(runner: RunnerDouble, call_id: str) -> BotDouble:
    """The bot of a call, which sends back what it hears.

    Not from the beginning: what the caller said until the bot was there comes to it at once, and an
    echo of that would keep the call late by as much for ever.
    """
    bot = await bot_of(runner, call_id)
    await deferLater(reactor, 0.2)
    bot.echo = True
    return bot


def judged(caller: Caller, signal: Signal) -> Comparison:
    """What the caller heard against the `signal` that it played; the delay is from its own lips.

    The signal is taken from where it came from: when a frame is late, MixMonitor puts silence into
    the recording of the other direction, or of both, to keep the two in step. What it puts into the
    caller's own words, which the bridge has not touched, tells when it did so.
    """
    heard, said, rate = caller.heard(), caller.said(), caller.rate
    result = replace(compare(signal, heard, rate), delay=compare(said, heard, rate).delay)
    if _whole(result):
        return result
    own = compare(signal, said, rate)
    if _whole(own):
        return result
    disturbed = tuple(second for second, _ in own.jumps + own.gaps)
    return replace(result, disturbed=disturbed, unlike=unlike(signal, heard, rate, disturbed))


def _whole(result: Comparison) -> bool:
    return result.correlation >= WHOLE and not result.gaps and not result.jumps


def lost(result: Comparison) -> list[float]:
    """Seconds of each piece that is missing: from there on everything comes earlier."""
    return [-shift for _, shift in result.jumps if shift < 0]


def check_sound(result: Comparison, quality: Mapping[str, Any]) -> None:
    """The same signal without a hole, and nothing of it is lost.

    A bot's process may be late on a busy machine. Then `quality` of the call's record tells that
    audio was missing or that time was scaled. Where Asterisk itself was late, its recording of the
    caller's own words has holes as well: then all else must be heard.
    """
    told = quality["scaled_ms"] or quality["underruns"]
    if result.disturbed:  # often at 48 kHz, where the recorder can drop 0.3 s at once
        assert told or not result.unlike, (result, quality)
        return
    assert result.correlation >= (SCALED if told else WHOLE), (result, quality)
    assert told or not result.gaps, (result, quality)
    assert told or not lost(result), (result, quality)


async def no_channels(pbx: Pbx, timeout: float = 5.0) -> None:
    """Wait until Asterisk has no channel left."""
    text = ""
    for _ in range(round(timeout / 0.1)):
        try:
            text = await pbx.ami.command("core show channels concise")
        except AmiError:  # what Asterisk answers for an empty list
            return
        if not text.strip():
            return
        await deferLater(reactor, 0.1)
    raise AssertionError(f"channels left in Asterisk:\n{text}")
