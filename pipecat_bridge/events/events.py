"""Events of calls, and who listens to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Final
from uuid import uuid4

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from pipecat_bridge.events.kinds import KINDS, VERSION, Data
from pipecat_bridge.events.notes import NOTES

NAME_OF: Final = {data: name for name, data in (KINDS | NOTES).items()}
"""The class of an event's data -> its kind."""


class CallEvent(Struct, frozen=True, dict=True):
    """One event of one call; `time` in seconds since the epoch. `quiet`: it has no line in the log,
    because that of another event tells the same."""

    call_id: str
    time: float
    data: Data
    quiet: bool = False

    @property
    def kind(self) -> str:
        """A kind of `kinds.KINDS`, or of `notes.NOTES`."""
        return NAME_OF[type(self.data)]

    @property
    def public(self) -> bool:
        """Whether it goes out of the bridge."""
        return self.kind in KINDS

    @cached_property
    def id(self) -> str:
        """Never that of another event."""
        return uuid4().hex

    @cached_property
    def body(self) -> bytes:
        """The data as JSON."""
        return msgspec.json.encode(self.data)


class Envelope(Struct, frozen=True):
    """An event as it goes out."""

    id: str
    version: int
    kind: str
    call_id: str
    time: float
    data: msgspec.Raw


def envelope(event: CallEvent) -> Envelope:
    """An event as it goes out."""
    data = msgspec.Raw(event.body)
    return Envelope(event.id, VERSION, event.kind, event.call_id, event.time, data)


EventListener = Callable[[CallEvent], None]


class Events:
    """Passes each event to every listener. A listener that fails does not disturb the call."""

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: list[EventListener] = []

    def subscribe(self, listener: EventListener) -> Callable[[], None]:
        """Call `listener` with each event from now on, until the returned function is called."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def publish(self, event: CallEvent) -> None:
        """Call all listeners with `event`."""
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener is not part of the call
                self._log.failure("{call_id} a listener failed", call_id=event.call_id)
