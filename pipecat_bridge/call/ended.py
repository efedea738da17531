"""Records of the last ended calls, within limits of number and bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.record import listed, record
from pipecat_bridge.events.events import Envelope
from pipecat_bridge.events.record import Record, RecordingChange, with_recording

MAX_BYTES: Final = 1 << 24
"""Most bytes of all records. A usual record has a few thousand, the largest some 150,000. They are
kept as JSON, because Python's objects may take fifty times the memory."""


class _End(Struct):
    """What is read of a record to see whether it is too old."""

    ended_at: float


_END: Final = msgspec.json.Decoder(_End)
_EVENTS: Final = msgspec.json.Decoder(list[Envelope])


class EndedCall(NamedTuple):
    """A call as the list of calls shows it, its record, its turns and its events, all in JSON."""

    listed: bytes
    record: bytes
    turns: bytes
    events: bytes

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(map(len, self))


class EndedCalls:
    """The records of at most `most` calls, those that ended last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, EndedCall] = OrderedDict()
        self._bytes = 0

    def add(self, call: Call) -> None:
        """Keep the record of a call, in place of an earlier call with its id."""
        self.drop(call.call_id)
        ended = EndedCall(
            msgspec.json.encode(listed(call)),
            msgspec.json.encode(record(call)),
            msgspec.json.encode(list(call.transcript)),
            msgspec.json.encode(list(call.history)),
        )
        self._kept[call.call_id] = ended
        self._bytes += ended.size
        while len(self._kept) > self._most or self._bytes > MAX_BYTES:
            self.drop(next(iter(self._kept)))

    def note_recording(self, call_id: str, created_at: float, change: RecordingChange) -> None:
        """Put what has happened to its recording into the record of a call, if it is kept."""
        ended = self._kept.get(call_id)
        if ended is None:
            return
        found = msgspec.json.decode(ended.record, type=Record)
        if abs(found.created_at - created_at) < 0.001:  # names of recordings have milliseconds
            changed = ended._replace(record=msgspec.json.encode(with_recording(found, change)))
            self._kept[call_id] = changed
            self._bytes += changed.size - ended.size

    def expire(self, records: float, transcripts: float) -> None:
        """Drop calls that ended before `records`, and what was said in those that ended before
        `transcripts`; both in seconds since the epoch."""
        for call_id, ended in list(self._kept.items()):
            ended_at = _END.decode(ended.listed).ended_at
            if ended_at < records:
                self.drop(call_id)
            elif ended_at < transcripts:
                said = [each for each in _EVENTS.decode(ended.events) if each.kind != "turn"]
                left = ended._replace(turns=b"[]", events=msgspec.json.encode(said))
                self._kept[call_id] = left
                self._bytes += left.size - ended.size

    def drop(self, call_id: str) -> None:
        """Forget a call, if it is kept."""
        ended = self._kept.pop(call_id, None)
        if ended is not None:
            self._bytes -= ended.size

    @property
    def listed(self) -> list[msgspec.Raw]:
        """What the list of calls shows, in JSON; the call that ended first comes first."""
        return [msgspec.Raw(each.listed) for each in self._kept.values()]

    def get(self, call_id: str) -> EndedCall | None:
        """What is kept of a call; None if nothing is."""
        return self._kept.get(call_id)
