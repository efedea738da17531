"""A Stasis application instead of the dialplan: externalMedia over AudioSocket, in a bridge."""

from __future__ import annotations

import numpy as np
import pytest_twisted

from tests.asterisk import sound
from tests.asterisk.ari import Ari
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import call
from tests.asterisk.calls import check_sound, judged, no_channels
from tests.asterisk.conftest import Measurements
from tests.asterisk.pbx import Pbx

RATE = 16000


@pytest_twisted.ensureDeferred
async def test_a_caller_and_a_bot_in_a_bridge(
    pbx: Pbx, echo_bridge: Bridge, measured: Measurements
) -> None:
    """The caller hears itself; its hangup is the application's to pass on."""
    words = sound.speech_like(4.0, RATE, band=6500.0)
    signal = np.concatenate([sound.silence(3.0, RATE), words, sound.silence(1.0, RATE)])
    said = sound.write(pbx.folder / "takes", "ari", RATE, signal)
    ari = Ari(pbx.http_port)
    events = await ari.events()
    entered = events.wait("StasisStart")
    caller = await call(pbx, "606@pipecat", said, RATE)
    channel = (await entered)["channel"]["id"]
    assert channel == caller.far
    mixing, bot, call_id = await ari.with_bot(channel, echo_bridge.phones)
    await caller.ended()
    await ari.delete(f"/channels/{bot}")
    await ari.delete(f"/bridges/{mixing}")
    record = await echo_bridge.outcome(call_id)
    events.dropConnection()
    await no_channels(pbx)
    assert record["outcome"] == "caller-hangup"
    result = judged(caller, signal)
    measured.add("ARI externalMedia, slin16", **result.figures)
    check_sound(result, record["quality"])
