"""What a caller says goes through Asterisk, the daemon and an echo bot, and comes back the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import pytest_twisted

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.caller import call
from tests.asterisk.calls import APPLICATION, CHANNEL, check_sound, judged, no_channels
from tests.asterisk.compare import Comparison
from tests.asterisk.conftest import Measurements, wait
from tests.asterisk.pbx import Pbx

TEXT = "Good morning. I would like to know when you are open on Saturday, and where I can find you."


class Line(NamedTuple):
    """A way through Asterisk: the extension, the caller's rate, the channel driver's format."""

    extension: str
    rate: int
    audio_format: str


LINES = {
    "application": Line(APPLICATION, 8000, "slin"),
    "application, wideband caller": Line(APPLICATION, 16000, "slin"),
    "c(slin)": Line(CHANNEL, 8000, "slin"),
    "c(slin16)": Line(CHANNEL, 16000, "slin16"),
    "c(slin16), narrowband caller": Line(CHANNEL, 8000, "slin16"),
    "c(slin24)": Line(CHANNEL, 24000, "slin24"),
    "c(slin48)": Line(CHANNEL, 48000, "slin48"),
}


class Echo(NamedTuple):
    """What came of one call."""

    comparison: Comparison
    stats: dict[str, Any]  # of the record
    outcome: str


def _signal(line: Line) -> sound.Signal:
    """Three seconds for the bot to come, speech, noise with syllables, a second for the echo."""
    narrow = 8000 in (line.rate, 8000 if line.audio_format == "slin" else 0)
    band = 3300.0 if narrow else 6500.0
    speech = sound.speech(TEXT, line.rate, band)
    noise = sound.speech_like(3.0, line.rate, band=band)
    return np.concatenate(
        [sound.silence(3.0, line.rate), speech, noise, sound.silence(1.0, line.rate)]
    )


@pytest.fixture(scope="module")
def echoes(pbx: Pbx, echo_bridge: Bridge) -> dict[str, Echo]:
    """All lines at once: one call on each."""
    return wait(_echoes(pbx, echo_bridge))


async def _echoes(pbx: Pbx, bridge: Bridge) -> dict[str, Echo]:
    signals = {name: _signal(line) for name, line in LINES.items()}
    sounds = {
        name: sound.write(pbx.folder / "takes", f"echo-{number}", line.rate, signals[name])
        for number, (name, line) in enumerate(LINES.items())
    }
    callers = {
        name: await call(
            pbx,
            line.extension,
            sounds[name],
            line.rate,
            f"PIPECAT_FORMAT={line.audio_format}",
            *bridge.variables,
        )
        for name, line in LINES.items()
    }
    ids = {name: await caller.variable("PIPECAT_CALL") for name, caller in callers.items()}
    for caller in callers.values():
        await caller.ended()
    results = {}
    for name, caller in callers.items():
        record = await bridge.outcome(ids[name])
        results[name] = Echo(
            judged(caller, signals[name]),
            record["quality"],
            record["outcome"],
        )
    await no_channels(pbx)
    return results


@pytest_twisted.ensureDeferred
async def test_asterisk_alone(pbx: Pbx, measured: Measurements) -> None:
    """What the recordings are worth: Asterisk's own Echo(), without a bridge."""
    signal = np.concatenate([sound.speech_like(3.0, 8000), sound.silence(1.0, 8000)])
    said = sound.write(pbx.folder / "takes", "alone", 8000, signal)
    caller = await call(pbx, "echo@suite", said, 8000)
    await caller.ended()
    result = judged(caller, signal)
    measured.add("Asterisk's own Echo()", **result.figures)
    assert result.correlation >= 0.999, result


@pytest.mark.parametrize("name", LINES)
def test_it_comes_back_as_it_was_said(
    name: str, echoes: dict[str, Echo], measured: Measurements
) -> None:
    echo = echoes[name]
    measured.add(
        f"echo {name}",
        **echo.comparison.figures,
        bridge_to_bot_ms=echo.stats["caller_delay_ms"]["mean"],
        bridge_to_caller_ms=echo.stats["bot_delay_ms"]["mean"],
        underruns=echo.stats["underruns"],
    )
    check_sound(echo.comparison, echo.stats)
    assert echo.outcome == "caller-hangup"
