"""A runner mode of a test's own: one record, and nothing else is told of it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import Deferred, succeed

from pipecat_bridge.config.load import ConfigError, load_options
from pipecat_bridge.runner.link.interfaces import SocketClose
from pipecat_bridge.runner.link.link import BotLink
from pipecat_bridge.runner.modes import MODES
from pipecat_bridge.runner.start import dialback
from pipecat_bridge.runner.start.mode import RunnerMode
from tests.doubles import protobuf
from tests.e2e.memory_line import memory_line
from tests.unit.signals import tone


class Parrots:
    """Makes bots out of nothing, in this process."""

    def __init__(self, means: Any) -> None:
        """It needs no means."""

    def attempt(self, request: Any, link: BotLink, address: Any) -> Parrot:
        return Parrot(link)


class Parrot:
    """An attempt, and the bot's socket: what it is sent it sends back."""

    unconnected = "the parrot sleeps"
    congested = False

    def __init__(self, link: BotLink) -> None:
        self.link = link
        self.outlet = self

    async def ask(self) -> None:
        self.link.attach(self, "both")  # type: ignore[arg-type]

    def stop(self) -> Deferred[None]:
        return succeed(None)

    def send(self, payload: bytes) -> None:
        kind, value = protobuf.decode(payload)
        if kind == "audio":
            self.link.received(payload)
        elif "client-ready" in value.data:
            self.link.received(protobuf.encode_rtvi("bot-ready"))

    def ping(self, payload: bytes) -> None:
        """A bird does not answer."""

    resume = pause = lambda self: None

    def close(self, code: int, reason: str) -> None:
        self.link.lost(self, SocketClose(True, reason))  # type: ignore[arg-type]


PARROT = RunnerMode(
    "parrot",
    "a bot that repeats what it hears",
    ("parrot",),
    "parrot://cage",
    "",
    dialback.dialect,
    Parrots,
)


@pytest.fixture(autouse=True)
def _known():
    with patch.dict(MODES, {"parrot": PARROT}):
        yield


def test_its_options_are_checked() -> None:
    assert load_options(overrides=["runner.mode=parrot", "runner.url=parrot://x"]).runner.urls
    with pytest.raises(ConfigError, match=r"such as parrot://cage with mode = .parrot."):
        load_options(overrides=["runner.mode=parrot", "runner.url=http://x"])
    with pytest.raises(ConfigError, match=r'expected one of .*"twilio", "parrot"'):
        load_options(overrides=["runner.mode=parrto"])


def test_a_call() -> None:
    with memory_line("runner.mode=parrot", "runner.url=parrot://cage") as it:
        assert it.bridge.runner.listener is None
        phone = it.dial()
        call_id = str(phone.call_id)
        it.clock.wait(it.told.until(lambda: call_id in it.told.ready))
        said = tone(440, 8000, 1.0)
        sent = said + bytes(3200)
        phone.start_audio(sent[at : at + 320] for at in range(0, len(sent), 320))
        it.clock.turn(1.5)
        heard = phone.pcm(8000).strip(b"\0")
        assert 0.95 * len(said) < len(heard) < 1.1 * len(said)
        phone.hangup()
        it.clock.turn(0.1)
        assert it.record(phone)["outcome"] == "caller-hangup"
        assert it.record(phone)["runner"] == "parrot://cage"
