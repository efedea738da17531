"""What goes through the journal on its way to the database."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Struct

from pipecat_bridge.events.record import RecordingChange


class EventEntry(Struct, frozen=True, tag_field="entry", tag="event"):
    """Something that happened in a call. `id` is never that of another event. `time`: seconds since
    the epoch. `data`: JSON."""

    id: str
    call_id: str
    time: float
    kind: str
    data: msgspec.Raw


class CallEntry(Struct, frozen=True, tag_field="entry", tag="call"):
    """A call as it is now, in place of what was told of it before. Times are seconds since the
    epoch; `ended` is None while it runs. `record` and `transcript`: JSON. `words`: what was said,
    for the search. While it runs, there is no transcript: what is said is in the events."""

    id: str
    created: float
    ended: float | None
    node: str
    caller: str
    called: str
    outcome: str
    runner: str
    record: msgspec.Raw
    transcript: msgspec.Raw = msgspec.Raw(b"[]")
    words: str = ""


class DeleteEntry(Struct, frozen=True, tag_field="entry", tag="delete"):
    """All that is known of a call, or of all calls of a caller, is deleted."""

    call_id: str = ""
    caller: str = ""


class DeliveryEntry(Struct, frozen=True, tag_field="entry", tag="delivery"):
    """What became of an attempt to send an event to a webhook: see `outbox.note`."""

    number: int
    state: Literal["waiting", "delivered", "dead"]
    told: str
    due: float = 0.0


class HookOffEntry(Struct, frozen=True, tag_field="entry", tag="off"):
    """A webhook wants nothing any more."""

    hook: str
    time: float
    told: str


class AgainEntry(Struct, frozen=True, tag_field="entry", tag="again"):
    """The dead deliveries of a webhook are sent once more, or only the one with `number`."""

    hook: str
    time: float
    number: int = 0


class RecordingEntry(Struct, frozen=True, tag_field="entry", tag="recording"):
    """What has happened to the recording of a call that has ended. `created_ms`: when the call was
    created, in milliseconds since the epoch."""

    call_id: str
    created_ms: int
    change: RecordingChange


class ExpireEntry(Struct, frozen=True, tag_field="entry", tag="expire"):
    """What is older is deleted. Times are in seconds since the epoch; 0: nothing is."""

    records: float = 0.0
    transcripts: float = 0.0


_FORGETTING: Final = (b'{"entry":"delete"', b'{"entry":"expire"')


Entry = (
    EventEntry
    | CallEntry
    | DeleteEntry
    | DeliveryEntry
    | HookOffEntry
    | AgainEntry
    | RecordingEntry
    | ExpireEntry
)

_decoder: Final = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """The entry as one line of JSON."""
    return msgspec.json.encode(entry)


def decode(body: bytes) -> Entry:
    """The entry in a line. Raises msgspec.DecodeError."""
    return _decoder.decode(body)


def is_forgetting(body: bytes) -> bool:
    """Whether the entry in a line deletes something, which shall be nowhere after that."""
    return body.startswith(_FORGETTING)
