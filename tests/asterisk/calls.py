"""What the tests ask of a call: its bot, its record, and that Asterisk has forgotten it."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.asterisk.ami import AmiError
from tests.asterisk.pbx import Pbx
from tests.doubles.bot import BotDouble
from tests.doubles.runner import RunnerDouble

APPLICATION = "603@pipecat"
CHANNEL = "605@pipecat"
DRIVERS = {"application": APPLICATION, "channel": CHANNEL}
"""Both ways into the bridge, as etc/asterisk/extensions.conf has them."""


async def bot_of(runner: RunnerDouble, call_id: str, timeout: float = 10.0) -> BotDouble:
    """The bot of a call, once it is ready to listen."""

    def ready() -> bool:
        return call_id in runner.bots and runner.bots[call_id].ready_sent

    for _ in range(round(timeout / 0.01)):
        if ready():
            return runner.bots[call_id]
        await deferLater(reactor, 0.01)
    raise AssertionError(f"no bot for {call_id} within {timeout:g} s; requests: {runner.requests}")


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
