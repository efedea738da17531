"""The wire as it leaves for the phone: RTP, and one whole SIP call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.asterisk import sound
from tests.asterisk.bridge import Bridge
from tests.asterisk.calls import bot_of, check_sound, no_channels
from tests.asterisk.compare import compare
from tests.asterisk.conftest import Measurements
from tests.asterisk.pbx import ROOT, Pbx, free_port
from tests.asterisk.process import Program
from tests.asterisk.rtp import RtpPort
from tests.doubles.runner import RunnerDouble

SECONDS = 8
DRIVER_OF = {"603": "application", "605": "channel"}
SCENARIO = Path(__file__).with_name("sipp.xml")


@pytest.mark.parametrize(("driver", "calls"), [("603", 1), ("605", 1), ("603", 50), ("605", 50)])
@pytest_twisted.ensureDeferred
async def test_packets_leave_every_20_ms(
    driver: str, calls: int, pbx: Pbx, echo_bridge: Bridge, measured: Measurements
) -> None:
    """The kernel's times at the phone are reported; that all packets are there is asked."""
    ports = [RtpPort() for _ in range(calls)]
    for port in ports:
        await pbx.ami.action(
            "Originate",
            "PIPECAT_FORMAT=slin",
            *echo_bridge.variables,
            Channel=f"UnicastRTP/127.0.0.1:{port.port}/c(ulaw)",
            Context="pipecat",
            Exten=driver,
            Priority=1,
            Async="true",
        )
    await deferLater(reactor, SECONDS)
    await pbx.ami.action("Hangup", Channel="/^UnicastRTP/")
    await no_channels(pbx)
    # The beginning, while all calls are set up at once, is left out.
    spacing = np.concatenate([port.spacing()[50:] for port in ports])
    for port in ports:
        port.close()
        numbers = np.diff([packet.sequence for packet in port.packets]) % 65536
        assert set(numbers) == {1}
        assert {len(packet.payload) for packet in port.packets} == {160}
    p50, p99 = np.percentile(np.abs(spacing - 20), [50, 99])
    measured.add(
        f"RTP to the phone, {DRIVER_OF[driver]}, {calls} calls",
        deviation_p50_ms=round(p50, 2),
        deviation_p99_ms=round(p99, 2),
        deviation_max_ms=round(np.abs(spacing - 20).max(), 2),
        packets=len(spacing),
    )
    assert len(spacing) >= 0.95 * calls * 50 * (SECONDS - 2)
    assert abs(np.mean(spacing) - 20) < 0.2


@pytest_twisted.ensureDeferred
async def test_a_whole_sip_call(
    pbx: Pbx, bridge: Bridge, runner: RunnerDouble, measured: Measurements
) -> None:
    """INVITE, RTP both ways, DTMF by RFC 4733, BYE, through PJSIP; the bot knows who called."""
    runner.bot_options = {}
    port, signal = RtpPort(), sound.speech_like(4.0, 8000)
    scenario = pbx.folder / "takes" / "sipp.xml"
    scenario.write_text(SCENARIO.read_text().replace("{duration}", "9000"))
    since = len(pbx.ami.events)
    arguments = ["chroot", str(ROOT), "sipp", f"127.0.0.1:{pbx.sip_port}", "-nostdin", "-m", "1"]
    arguments += ["-sf", pbx.inside(scenario), "-s", "49301234567", "-i", "127.0.0.1"]
    arguments += ["-p", str(free_port()), "-key", "rtp_port", str(port.port)]
    sipp = Program.run(arguments)
    event = await pbx.ami.event(
        lambda e: e["Event"] == "VarSet" and e["Variable"] == "PIPECAT_CALL", since=since
    )
    call_id = event["Value"]
    bot = await bot_of(runner, call_id)
    bot.echo = True
    await port.play(sound.silence(0.5, 8000))
    await port.play(signal)
    for key in "42#":
        await port.press(key)
        await port.play(sound.silence(0.2, 8000))
    await port.play(sound.silence(1.0, 8000))
    await sipp.ended
    assert sipp.status == 0, sipp.printed.decode(errors="replace")[-3000:]
    record = await bridge.outcome(call_id)
    port.close()
    assert record["outcome"] == "caller-hangup"
    assert record["metadata"]["caller"] == "sipp"
    assert record["metadata"]["called"] == "49301234567"  # which leads to extension 604
    pressed = [m["data"]["buttons"] for m in bot.messages if m["type"] == "dtmf"]
    assert pressed == [["4"], ["2"], ["#"]]
    result = compare(signal, port.heard(), 8000)
    figures = {name: result.figures[name] for name in ("correlation", "snr_db", "gaps", "jumps")}
    measured.add("SIP call, PCMU both ways, c(slin16)", **figures)
    check_sound(result, record["quality"])
