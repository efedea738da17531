"""What the tests of dialled bots have in common."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from typing import Any

import treq
from twisted.web.client import Agent

from tests.doubles.asterisk import StrictAsterisk
from tests.doubles.start_runner import StartRunner
from tests.e2e.harness import Line, line, reactor

EIGHT = 8000
LOUD = 4000


def dialled(mode: Any, *settings: str, **options: Any) -> Any:
    """A daemon that dials the bots of such a runner, and gives them little time at their end."""
    runner = StartRunner(reactor, mode=mode, **options)
    # Twilio's protocol has no word for it that a bot is ready; doubles need not speak first.
    soon = ("runner.ready_timeout=0.05",) if mode == "twilio" else ()
    return line("runner.disconnect_grace=0.1", *soon, *settings, runner=runner)


def constant(level: int, seconds: float = 0.5) -> bytes:
    """A constant: silence and other levels can be told from it."""
    return struct.pack("<h", level) * round(EIGHT * seconds)


def samples(phone: StrictAsterisk) -> list[int]:
    """What the caller heard."""
    pcm = phone.pcm()
    return list(struct.unpack(f"<{len(pcm) // 2}h", pcm))


def without_fade(phone: StrictAsterisk, level: int) -> set[int]:
    """The different samples that the phone heard. Samples between 0 and `level` are left out: a
    barge-in makes a constant sound fade. Fails if that took longer than 5 ms."""
    heard_samples = samples(phone)
    fading = [sample for sample in heard_samples if 0 < sample < level]
    assert len(fading) <= 40
    return set(heard_samples) - set(fading)


def heard(phone: StrictAsterisk, level: int) -> float:
    """Frames of 20 ms whose samples have that value."""
    return samples(phone).count(level) / 160


def bot_side(it: Line, phone: StrictAsterisk) -> Any:
    """The bot's side of a call that runs."""
    return it.bridge.calls.get(str(phone.call_id)).bot


async def settled(it: Line, phone: StrictAsterisk) -> dict[str, Any]:
    """The record of a call that is over, once its bot is let go."""
    record = await it.ended(phone)
    await it.bridge.runner.bots.stopping.idle()
    assert phone.faults == []
    return record


async def page(it: Line, path: str) -> str:
    """What the daemon's API answers, as text."""
    port: Any = it.bridge.api.port
    url = f"http://127.0.0.1:{port.getHost().port}{path}"
    response = await treq.get(url, agent=Agent(reactor), persistent=False)
    text: str = await response.text()
    return text


Ending = Callable[[Line, StrictAsterisk, Any], Awaitable[None]]
"""Ends a call: the line, the phone, the bot."""


async def caller_hangs_up(_: Line, phone: StrictAsterisk, bot: Any) -> None:
    phone.hangup()


async def phone_is_reset(_: Line, phone: StrictAsterisk, bot: Any) -> None:
    phone.reset()


async def is_stopped(it: Line, phone: StrictAsterisk, bot: Any) -> None:
    status, _ = await it.api("POST", f"/v1/calls/{phone.call_id}/stop")
    assert status == 200


async def is_drained(it: Line, phone: StrictAsterisk, bot: Any) -> None:
    it.bridge.calls.drain()
    it.bridge.calls.stop_all()


BY_THE_BRIDGE: list[tuple[Ending, str]] = [
    (caller_hangs_up, "caller-hangup"),
    (phone_is_reset, "caller-hangup"),
    (is_stopped, "stopped"),
    (is_drained, "drained"),
]
"""Endings in which the bot is asked to end, and their outcomes."""
