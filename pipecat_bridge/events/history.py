"""What is kept of a call's events: the last ones, within bounds that no bot can stretch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pipecat_bridge.events.events import CallEvent, Events

MAX_EVENTS = 200
MAX_BYTES = 1 << 16
MAX_EVENT_BYTES = 1 << 13
"""Of the data of one event, as JSON: a sentence has some hundred, base64 audio millions."""

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
"""Types of RTVI messages that are told to listeners, and not kept with the call: they are too many,
or of no use afterwards."""


class History:
    """Tells the events of one call, and keeps the last ones: at most `MAX_EVENTS` of them, and
    `MAX_BYTES` of their data as JSON. `wall_clock` gives seconds since the epoch.
    """

    def __init__(self, call_id: str, events: Events, wall_clock: Callable[[], float]) -> None:
        self._call_id = call_id
        self._publish = events.publish
        self._wall_clock = wall_clock
        self._events: deque[tuple[int, CallEvent]] = deque()
        self._bytes = 0

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Something happens in the call now."""
        event = CallEvent(self._call_id, self._wall_clock(), kind, data)
        self.append(event)
        self._publish(event)

    def append(self, event: CallEvent) -> None:
        """Keep `event` unless it is fleeting, and forget the oldest ones for it.

        Data that is too long is left out.
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
