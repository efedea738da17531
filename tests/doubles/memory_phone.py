"""A phone side in memory: it paces itself, and learns the call from the path of an HTTP upgrade."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service

from pipecat_bridge.asterisk.line import Line, LineOptions
from pipecat_bridge.net.tally import Tally


class MemorySide(Service):
    """Where such phones come from. `make_line` makes a line of a wire and a pace."""

    place = ""
    refused = 0
    limits = ()

    def __init__(self, answer: Any, now: Callable[[], float]) -> None:
        self.open = Tally()
        self.make_line = lambda phone: Line(phone, answer, phone, LineOptions(), now)

    def upgrade(self, request: str) -> MemoryPhone:
        """`GET /{call id} HTTP/1.1`: the phone of that call."""
        self.open.enter()
        return MemoryPhone(request.split()[1].strip("/"), self)


class MemoryPhone:
    """The wire of a line, and its pace: the phone takes a frame whenever it wants one."""

    def __init__(self, call_id: str, side: MemorySide) -> None:
        self.heard: list[bytes | None] = []
        self.cleanly: bool | None = None
        self._gone = side.open.leave
        self.line = side.make_line(self)
        self.line.open("memory")
        self.line.identify(call_id)

    def add(self, tick: Callable[[], None], failed: Any, skipped: Any) -> None:
        self.take_frame = tick

    def align(self, tick: Callable[[], None], at: float) -> None:
        """The phone takes its frames when it wants them."""

    def remove(self, tick: Callable[[], None]) -> None:
        self.take_frame = lambda: None

    def send_frame(self, frame: bytes | None) -> bool:
        self.heard.append(frame)
        return True

    def send_hangup(self, cleanly: bool = True) -> None:
        self.cleanly = cleanly
        self.line.lost()
        self._gone()

    abort = send_hangup

    def rate_changed(self, rate: int) -> None:
        """Frames are not marked with their rate."""
