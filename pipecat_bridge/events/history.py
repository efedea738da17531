"""The history of a call: its last events, within limits that no bot can exceed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from pipecat_bridge.events.events import CallEvent, Envelope, Events, envelope
from pipecat_bridge.events.kinds import CallEnded, Data, Message

MAX_EVENTS: Final = 200
MAX_BYTES: Final = 1 << 16
MAX_MESSAGE_BYTES: Final = 1 << 13
"""Most bytes of the data of a message as JSON. It is replaced by its length if it has more."""


class History:
    """Publishes the events of one call, and keeps the last ones.

    It keeps at most `MAX_EVENTS` events and `MAX_BYTES` bytes of their data as JSON, and not the
    last one, whose data is the record. `wall_clock` gives seconds since the epoch.
    """

    def __init__(self, call_id: str, events: Events, wall_clock: Callable[[], float]) -> None:
        self._call_id = call_id
        self._publish = events.publish
        self._wall_clock = wall_clock
        self._events: deque[Envelope] = deque()
        self._bytes = 0

    def tell(self, data: Data, quiet: bool = False) -> None:
        """Keep and publish an event that happens now. `quiet`: without a line in the log."""
        event = CallEvent(self._call_id, self._wall_clock(), _bounded(data), quiet)
        if event.public and not isinstance(data, CallEnded):
            self._keep(envelope(event))
        self._publish(event)

    def _keep(self, event: Envelope) -> None:
        self._events.append(event)
        self._bytes += len(bytes(event.data))
        # The newest one is kept in any case: the longest turn has more than MAX_BYTES.
        while len(self._events) > MAX_EVENTS or (self._bytes > MAX_BYTES and len(self._events) > 1):
            self._bytes -= len(bytes(self._events.popleft().data))

    def __iter__(self) -> Iterator[Envelope]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)


def _bounded(data: Data) -> Data:
    if isinstance(data, Message):
        size = len(msgspec.json.encode(data.data))
        if size > MAX_MESSAGE_BYTES:
            omitted: dict[str, Any] = {"omitted": f"{size} bytes"}
            return Message(omitted)
    return data
