"""What is kept of a call's events: the last ones, within bounds that no bot can stretch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from pipecat_bridge.events.events import CallEvent

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
    """The last events, at most `MAX_EVENTS` of them and `MAX_BYTES` of their data as JSON."""

    def __init__(self) -> None:
        self._events: deque[tuple[int, CallEvent]] = deque()
        self._bytes = 0

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
