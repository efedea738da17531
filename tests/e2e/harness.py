"""A whole daemon in the test's own process, between a strict Asterisk and a runner double."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import treq
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.web.client import Agent

from pipecat_bridge.bridge import Bridge
from pipecat_bridge.config.load import load_options
from pipecat_bridge.events.events import CallEvent
from pipecat_bridge.service import make_bridge
from tests.doubles.asterisk import StrictAsterisk, connect_asterisk
from tests.doubles.runner import RunnerDouble
from tests.doubles.watch import Watched
from tests.records import CheckedRecords, checked

reactor: Any = _reactor

LOOPBACK = "tcp:0:interface=127.0.0.1"


def sleep(seconds: float) -> Deferred[None]:
    """Let the real clock run; for what is about time itself."""
    deferred: Deferred[None] = Deferred()
    reactor.callLater(seconds, deferred.callback, None)
    return deferred


def shown_events(bridge: Bridge, phone: StrictAsterisk, kind: str = "") -> list[dict[str, Any]]:
    """The events of a call as the API shows them, all of them or those of a kind."""
    text = msgspec.json.encode(bridge.calls.history(str(phone.call_id)))
    return [each for each in msgspec.json.decode(text) if kind in ("", each["kind"])]


class Line(Watched):
    """The daemon and its runner; places calls."""

    def __init__(self, bridge: Bridge, runner: RunnerDouble) -> None:
        self.bridge = bridge
        self.runner = runner
        self._kinds = defaultdict[str, list[str]](list)
        bridge.events.subscribe(self._note)

    def _note(self, event: CallEvent) -> None:
        self._kinds[event.call_id].append(event.kind)
        self.changed()

    def kinds(self, phone: StrictAsterisk) -> list[str]:
        """The kinds of the events of one call."""
        return self._kinds[str(phone.call_id)]

    async def dial(self, **options: Any) -> StrictAsterisk:
        """A call from a strict Asterisk; its audio is not started yet."""
        return await connect_asterisk(reactor, _port(self.bridge.phones.listener), **options)

    async def talk(self, **options: Any) -> tuple[StrictAsterisk, Any]:
        """A call whose bot, the runner's double, is there and ready, as the daemon knows."""
        phone = await self.dial(**options)
        call_id = str(phone.call_id)
        await self.until(lambda: {"call.ready", "call.ended"} & set(self.kinds(phone)))
        assert "call.ready" in self.kinds(phone), self.record(phone)["reason"]
        await self.runner.until(lambda: call_id in self.runner.bots)
        return phone, self.runner.bots[call_id]

    def record(self, phone: StrictAsterisk) -> dict[str, Any]:
        """The call's record."""
        return checked(self.bridge.calls.record(str(phone.call_id)))

    def events(self, phone: StrictAsterisk, kind: str = "") -> list[dict[str, Any]]:
        """The call's events as the API shows them, all of them or those of a kind."""
        return shown_events(self.bridge, phone, kind)

    async def ended(self, phone: StrictAsterisk) -> dict[str, Any]:
        """The call's record, once its phone is gone and the daemon has forgotten it."""
        if phone.ended is None:
            await phone.lost
        await self.bridge.calls.idle()
        return self.record(phone)

    async def api(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """A request to the daemon's API: status and JSON."""
        url = f"http://127.0.0.1:{_port(self.bridge.api)}{path}"
        response = await treq.request(
            method, url, agent=Agent(reactor), persistent=False, **options
        )
        return response.code, await response.json()


def in_folder(folder: Path) -> tuple[str, str]:
    """The options of a daemon with a store in this folder."""
    return "store.url=", f"store.directory={folder}"


@asynccontextmanager
async def line(
    *settings: str, runner: RunnerDouble | None = None, **runner_options: Any
) -> AsyncIterator[Line]:
    """A daemon on free ports with `settings` (section.key=value), in front of a runner double."""
    runner = runner or RunnerDouble(reactor, **runner_options)
    url = await runner.listen()
    overrides = [
        f"audiosocket.listen={LOOPBACK}",
        f"runner.listen={LOOPBACK}",
        f"api.listen={LOOPBACK}",
        "store.url=none",
        f"runner.mode={runner.mode}",
        f"runner.url={url}",
        "runner.health_interval=0",
        "calls.drain_timeout=0",
        "api.linger=0",
        *settings,
    ]
    bridge = make_bridge(load_options(overrides=overrides), reactor)
    records = CheckedRecords(bridge.events)
    bridge.startService()
    try:
        yield Line(bridge, runner)
    finally:
        await bridge.stopService()
        await runner.shut()
    records.assert_good()


def _port(listener: Any) -> int:
    port: int = listener.port.getHost().port
    return port
