"""The history of a call: its last events, within limits that no bot can exceed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pipecat_bridge.events.events import CallEvent, Events

MAX_EVENTS = 200
MAX_BYTES = 1 << 16
MAX_EVENT_BYTES = 1 << 13
"""Most bytes of the data of one event as JSON. A sentence has some hundred bytes, audio in base64
has millions."""

FLEETING = {
    "bot-audio-level",
    "bot-llm-marker",
    "bot-llm-text",
    "bot-output",
    "bot-tts-audio",
    "bot-tts-text",
    "llm-raw-text",
    "metrics",
    "stt-raw-text",
    "tts-raw-text",
    "user-audio-level",
}
"""Types of RTVI messages that are passed to listeners but not kept. They are too many, or useless
after the call."""


class History:
    """Publishes the events of one call, and keeps the last ones.

    It keeps at most `MAX_EVENTS` events and `MAX_BYTES` bytes of their data as JSON. `wall_clock`
    gives seconds since the epoch.
    """

    def __init__(self, call_id: str, events: Events, wall_clock: Callable[[], float]) -> None:
        self._call_id = call_id
        self._publish = events.publish
        self._wall_clock = wall_clock
        self._events: deque[tuple[int, CallEvent]] = deque()
        self._bytes = 0

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Keep and publish an event that happens now."""
        event = CallEvent(self._call_id, self._wall_clock(), kind, data)
        self.append(event)
        self._publish(event)

    def append(self, event: CallEvent) -> None:
        """Keep `event` unless its type is in `FLEETING`. The oldest events are dropped for it.

        Data of more than `MAX_EVENT_BYTES` is not kept, only its length.
        """
        if (event.data.get("type") if event.kind == "rtvi" else event.kind) in FLEETING:
            return
        size = len(msgspec.json.encode(event.data))
        if size > MAX_EVENT_BYTES:
            omitted = {"omitted": f"{size} bytes"}
            event = CallEvent(event.call_id, event.time, event.kind, omitted)
            size = len(msgspec.json.encode(omitted))
        self._events.append((size, event))
        self._bytes += size
        while len(self._events) > MAX_EVENTS or self._bytes > MAX_BYTES:
            self._bytes -= self._events.popleft()[0]

    def __iter__(self) -> Iterator[CallEvent]:
        return (event for _, event in self._events)

    def __len__(self) -> int:
        return len(self._events)
