"""Callers: Local channels; the near end speaks and records, the far end is in the dialplan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.asterisk.ami import Message, on
from tests.asterisk.pbx import Pbx
from tests.asterisk.sound import Signal, ending, read


@dataclass(frozen=True)
class Caller:
    """One call. `near` and `far` are the unique ids of the two ends of its Local channel."""

    pbx: Pbx
    name: str
    rate: int
    near: str
    far: str
    since: int
    """Where the events of this call begin in the manager's."""

    @property
    def take(self) -> Path:
        """Path and first part of the name of its recordings."""
        return self.pbx.folder / "takes" / self.name

    def said(self) -> Signal:
        """What the caller sent, as recorded."""
        return read(self.take.with_name(f"{self.name}-said.{ending(self.rate)}"))

    def heard(self) -> Signal:
        """What the caller received, as recorded, on the same time line."""
        return read(self.take.with_name(f"{self.name}-heard.{ending(self.rate)}"))

    async def ended(self, timeout: float = 60.0) -> None:
        """Wait until both ends are gone; the recordings are complete then."""
        for channel in (self.near, self.far):
            await self.pbx.ami.event(on(channel, "Hangup"), timeout, self.since)

    async def variable(self, name: str, timeout: float = 20.0) -> str:
        """The value that the dialplan gives a variable of this call's far end."""
        event = await self.pbx.ami.event(on(self.far, "VarSet", Variable=name), timeout, self.since)
        return event["Value"]

    async def application(self, name: str, timeout: float = 30.0) -> Message:
        """Wait until the dialplan runs this application on the far end, by itself or tried."""
        step = on(self.far, "Newexten")
        return await self.pbx.ami.event(
            lambda event: step(event) and _run(event) == name, timeout, self.since
        )

    def path(self) -> list[tuple[str, str, str]]:
        """(context, priority, application) of each step that the dialplan took so far."""
        steps = [e for e in self.pbx.ami.events[self.since :] if on(self.far, "Newexten")(e)]
        return [(step["Context"], step["Priority"], _run(step)) for step in steps]

    async def press(self, digit: str, duration: int = 120) -> None:
        """The caller presses a key for `duration` ms."""
        await self.pbx.ami.action(
            "PlayDTMF", Channel=f"{self.far_name}", Digit=digit, Duration=duration, Receive="true"
        )

    @property
    def far_name(self) -> str:
        """The name of the far end's channel."""
        found = [e for e in self.pbx.ami.events[self.since :] if on(self.far, "Newchannel")(e)]
        return found[0]["Channel"]

    async def hang_up(self) -> None:
        """The caller puts the phone down."""
        await self.pbx.ami.action("Hangup", Channel=self.far_name.removesuffix("2") + "1")


def _run(step: Message) -> str:
    """The application of a step, also under TryExec()."""
    application = step["Application"]
    return step["AppData"].partition("(")[0] if application == "TryExec" else application


def linear(rate: int) -> str:
    """Asterisk's name of the linear format at this rate."""
    return "slin" if rate == 8000 else f"slin{rate // 1000}"


async def call(
    pbx: Pbx,
    extension: str,
    sound: Path,
    rate: int,
    *variables: str,
    exten: str = "speak",
    codec: str | None = None,
) -> Caller:
    """Place a call to `extension` (``600@pipecat``) that plays `sound` and hangs up at its end.

    `variables` (``NAME=value``) are seen by the dialplan on both ends; `exten` is what the caller
    does (config/extensions.conf); `codec` what its line carries, linear at `rate` unless given.
    """
    name = uuid4().hex[:12]
    caller = Caller(pbx, name, rate, f"{name}-near", f"{name}-far", len(pbx.ami.events))
    settings = {
        "SOUND": pbx.inside(sound),
        "TAKE": pbx.inside(caller.take),
        "KIND": ending(rate),
    }
    await pbx.ami.action(
        "Originate",
        *(f"__{key}={value}" for key, value in settings.items()),
        *(f"__{variable}" for variable in variables),
        Channel=f"Local/{extension}/n",
        ChannelId=caller.near,
        OtherChannelId=caller.far,
        Context="caller",
        Exten=exten,
        Priority=1,
        CallerID='"Ada Caller" <2125550100>',
        Codecs=codec or linear(rate),
        Timeout=20000,
        Async="true",
    )
    return caller
