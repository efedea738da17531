"""Records of the last ended calls, within limits of number and bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, NamedTuple

import msgspec

from pipecat_bridge.call.call import Call
from pipecat_bridge.call.record import listed, record

MAX_BYTES: Final = 1 << 24
"""Most bytes of all records. A usual record has a few thousand, the largest some 150,000. They are
kept as JSON, because Python's objects may take fifty times the memory."""


class EndedCall(NamedTuple):
    """A call as the list of calls shows it, and its record, both in JSON."""

    listed: bytes
    record: bytes

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.listed) + len(self.record)


class EndedCalls:
    """The records of at most `most` calls, those that ended last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, EndedCall] = OrderedDict()
        self._bytes = 0

    def add(self, call: Call) -> None:
        """Keep the record of a call, in place of an earlier call with its id."""
        if call.call_id in self._kept:
            self._drop(call.call_id)
        ended = EndedCall(msgspec.json.encode(listed(call)), msgspec.json.encode(record(call)))
        self._kept[call.call_id] = ended
        self._bytes += ended.size
        while len(self._kept) > self._most or self._bytes > MAX_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, call_id: str) -> None:
        self._bytes -= self._kept.pop(call_id).size

    @property
    def listed(self) -> list[msgspec.Raw]:
        """What the list of calls shows, in JSON; the call that ended first comes first."""
        return [msgspec.Raw(each.listed) for each in self._kept.values()]

    def record(self, call_id: str) -> dict[str, Any] | None:
        """The record of a call; None if it is not kept."""
        ended = self._kept.get(call_id)
        return msgspec.json.decode(ended.record) if ended else None
