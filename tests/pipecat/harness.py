"""A whole daemon in the test's process, between a strict Asterisk and Pipecat's own runner."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import treq
from twisted.internet import reactor as _reactor
from twisted.web.client import Agent

from pipecat_bridge.bridge import Bridge
from pipecat_bridge.config.load import load_options
from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.service import make_bridge
from pipecat_bridge.wire import rtvi
from tests.doubles.asterisk import AudioFrame, StrictAsterisk, connect_asterisk
from tests.pipecat.releases import DevelopmentRunner, until
from tests.records import checked
from tests.unit.signals import rms, to_signal

reactor: Any = _reactor

LOOPBACK = "tcp:0:interface=127.0.0.1"
MODES = ("dial", "direct", "twilio")
FRAME = 0.02
"""Seconds."""


def loud(frames: Sequence[AudioFrame]) -> list[AudioFrame]:
    """Those with more than noise in them."""
    return [frame for frame in frames if rms(to_signal(frame.payload)) > 0.01]


class PhoneCall:
    """A strict Asterisk's call, and what the daemon says of it."""

    def __init__(self, bridge: Bridge, phone: StrictAsterisk) -> None:
        self.phone = phone
        self.id = str(phone.call_id)
        self.events: list[CallEvent] = []
        self.frames_at: dict[str, int] = {}
        """How many frames the phone had got when an event came, the first of its kind."""
        self._bridge = bridge
        self._unsubscribe = bridge.events.subscribe(self._note)

    def _note(self, event: CallEvent) -> None:
        if event.call_id == self.id:
            self.events.append(event)
            self.frames_at.setdefault(event.kind, len(self.phone.frames))

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of this kind."""
        return [json.loads(event.body) for event in self.events if event.kind == kind]

    def listen(self) -> list[rtvi.Event]:
        """What the bot tells from now on, as the call hears it."""
        heard: list[rtvi.Event] = []
        call: Any = self._bridge.calls.get(self.id)
        take = call.bot_event

        def hear(event: rtvi.Event) -> None:
            heard.append(event)
            take(event)

        call.bot_event = hear
        return heard

    async def until(self, kind: str, timeout: float = 10.0) -> dict[str, Any]:
        """The data of the first event of this kind."""
        await until(lambda: self.told(kind), f"the event {kind} of {self.events}", timeout)
        return self.told(kind)[0]

    async def ended(self, timeout: float = 10.0) -> dict[str, Any]:
        """The record of the call, once phone and daemon are done with it."""
        await until(lambda: self.phone.ended, f"the end of the call; {self.events}", timeout)
        await until(lambda: self.told("call.ended"), "call.ended", timeout)
        self._unsubscribe()
        return self.record()

    def record(self) -> dict[str, Any]:
        """The record of the call as it is now."""
        return checked(self._bridge.calls.record(self.id))


class BridgeLine:
    """The daemon; places calls."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge

    async def call(
        self, source: Iterable[bytes] | None = None, *, prepared: Any = None, **options: Any
    ) -> PhoneCall:
        """A call that sends `source`, prepared over the API with `prepared`."""
        call_id = uuid4()
        if prepared is not None:
            status, answer = await self.api("PUT", f"/v1/calls/{call_id}", json=prepared)
            assert status == 201, answer
        port = self.bridge.phones.listener.port.getHost().port
        phone = await connect_asterisk(reactor, port, call_id=call_id, **options)
        call = PhoneCall(self.bridge, phone)
        phone.start_audio(source)
        return call

    async def api(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """A request to the daemon's API: status and JSON."""
        url = f"http://127.0.0.1:{self.bridge.api.port.getHost().port}{path}"
        response = await treq.request(
            method, url, agent=Agent(reactor), persistent=False, timeout=10, **options
        )
        return response.code, await response.json()

    async def say(self, call: PhoneCall, text: str, *, at_once: bool = False) -> None:
        """Text to the bot; `at_once` interrupts it."""
        body = {"text": text, "run_immediately": at_once}
        status, answer = await self.api("POST", f"/v1/calls/{call.id}/messages", json=body)
        assert status == 202, answer


@asynccontextmanager
async def daemon(mode: str, url: str | list[str], *settings: str) -> AsyncIterator[BridgeLine]:
    """A daemon in `mode` in front of `url`, with `settings` (section.key=value)."""
    overrides = [
        f"audiosocket.listen={LOOPBACK}",
        f"api.listen={LOOPBACK}",
        "store.url=none",
        f"runner.mode={mode}",
        f"runner.url={url if isinstance(url, str) else json.dumps(url)}",
        f"runner.listen={LOOPBACK}",
        "runner.health_interval=0",
        "calls.drain_timeout=0",
        "api.linger=0",
        *settings,
    ]
    bridge = make_bridge(load_options(overrides=overrides), reactor)
    bridge.startService()
    try:
        yield BridgeLine(bridge)
    finally:
        await bridge.stopService()


def url_of(mode: str, runner: DevelopmentRunner) -> str:
    """Where `mode` finds the bots of Pipecat's development runner."""
    return f"ws://127.0.0.1:{runner.port}/ws-client" if mode == "direct" else runner.url
