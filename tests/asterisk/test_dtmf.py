"""Keys that the caller presses."""

from __future__ import annotations

import pytest
import pytest_twisted

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import call
from tests.asterisk.calls import DRIVERS, bot_of
from tests.asterisk.pbx import Pbx
from tests.doubles.bot import BotDouble
from tests.doubles.runner import RunnerDouble

KEYS = "1590*#AD2"


def _buttons(bot: BotDouble) -> str:
    pressed = [message["data"] for message in bot.messages if message["type"] == "dtmf"]
    return "".join("".join(data["buttons"]) for data in pressed)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest_twisted.ensureDeferred
async def test_keys_reach_the_bot_in_order(
    driver: str, pbx: Pbx, bridge: Bridge, runner: RunnerDouble
) -> None:
    """As RTVI, each once; a second of the same key in a row is a second key."""
    runner.bot_options = {}
    quiet = sound.write(pbx.folder / "takes", "quiet-20", 8000, sound.silence(20, 8000))
    caller = await call(pbx, DRIVERS[driver], quiet, 8000)
    call_id = await caller.variable("PIPECAT_CALL")
    bot = await bot_of(runner, call_id)
    for key in KEYS + KEYS[-1]:
        await caller.press(key)
        heard = len(_buttons(bot))
        await bot.until(lambda heard=heard: len(_buttons(bot)) > heard)
    assert _buttons(bot) == KEYS + KEYS[-1]
    await caller.hang_up()
    await caller.ended()
    record = await bridge.outcome(call_id)
    assert record["outcome"] == "caller-hangup"
