"""What calls were prepared with, until their phones come, and how much of that is kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from twisted.internet.interfaces import IReactorTime

from pipecat_bridge.call.bounded import Bounded
from pipecat_bridge.contracts import BotRequest

MAX_CALLS: Final = 10_000
"""Most calls that are prepared at the same time."""

MAX_BYTES: Final = 1 << 24
"""Most bytes of the data of all prepared calls. They are kept as JSON, because Python's objects
may take fifty times the memory."""

LATE: Final = 600.0
"""Seconds after expiry during which it is still known that a call was prepared."""

_DATA: Final = msgspec.json.Decoder(tuple[dict[str, Any], dict[str, Any], list[str]])


class NoRoomError(Exception):
    """A call that came now would not be served, or no more calls can be prepared. The text says
    why."""


class Prepared(NamedTuple):
    """What a call was prepared with, and warnings about that: kind and text of each."""

    request: BotRequest
    warnings: Sequence[tuple[str, str]]


class _Kept(NamedTuple):
    data: bytes
    expires: float


def why_full(calls: int, size: int) -> str:
    """Why so many calls, with `size` bytes of data, cannot be prepared; "" if they can."""
    if calls > MAX_CALLS:
        return f"{MAX_CALLS} calls are prepared already: expected that their phones come first"
    if size > MAX_BYTES:
        return (
            f"the data of {calls - 1} prepared calls and of this one has more than {MAX_BYTES}"
            " bytes: expected that their phones come first"
        )
    return ""


class Preparations:
    """The prepared calls by their ids. Each is kept for `ttl` seconds of `clock`."""

    def __init__(self, clock: IReactorTime, ttl: float) -> None:
        self._clock = clock
        self._ttl = ttl
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._late = Bounded[float](MAX_CALLS)  # call id -> when its preparation expired

    def put(
        self,
        call_id: str,
        parameters: dict[str, Any],
        metadata: dict[str, Any],
        doubts: Sequence[str],
    ) -> None:
        """Prepare a call, in place of what it was prepared with before. Raises NoRoomError.

        `doubts` are sentences on what looks wrong.
        """
        self._expire()
        data = msgspec.json.encode((parameters, metadata, list(doubts)))
        before = self._kept.get(call_id)
        calls = len(self._kept) + (before is None)
        size = self._bytes + len(data) - (len(before.data) if before else 0)
        if fault := why_full(calls, size):
            raise NoRoomError(fault)
        self._kept[call_id] = _Kept(data, self._clock.seconds() + self._ttl)
        self._kept.move_to_end(call_id)
        self._bytes = size

    def get(self, call_id: str) -> BotRequest | None:
        """What a call that has not come yet was prepared with; None if it was not prepared."""
        self._expire()
        kept = self._kept.get(call_id)
        return _request(call_id, kept.data)[0] if kept else None

    def take(self, call_id: str) -> Prepared:
        """The same for a call that has come, which is empty if it was not prepared."""
        self._expire()
        late = self._late.pop(call_id, None)
        kept = self._kept.pop(call_id, None)
        if kept is None:
            return Prepared(BotRequest(call_id, {}, {}), self._lateness(late))
        self._bytes -= len(kept.data)
        request, doubts = _request(call_id, kept.data)
        return Prepared(request, [("metadata", text) for text in doubts])

    def _lateness(self, expired: float | None) -> list[tuple[str, str]]:
        seconds = self._clock.seconds() - expired if expired is not None else LATE
        if seconds >= LATE:
            return []
        text = (
            f"the call came {seconds:.1f} s after its preparation had expired ([calls]"
            f" prepared_ttl = {self._ttl:g}): its bot gets no prepared data"
        )
        return [("prepared-late", text)]

    def _expire(self) -> None:
        now = self._clock.seconds()
        while self._kept:
            call_id, kept = next(iter(self._kept.items()))
            if kept.expires > now:
                return
            del self._kept[call_id]
            self._bytes -= len(kept.data)
            self._late[call_id] = kept.expires


def _request(call_id: str, data: bytes) -> tuple[BotRequest, list[str]]:
    parameters, metadata, doubts = _DATA.decode(data)
    return BotRequest(call_id, parameters, metadata), doubts
