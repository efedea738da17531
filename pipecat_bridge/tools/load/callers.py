"""The phones of a load: Asterisk's side of AudioSocket. Each sends a frame every 20 ms of an
absolute clock."""

from __future__ import annotations

import socket
import time
from collections import Counter, defaultdict
from contextlib import suppress
from math import nan
from random import Random
from typing import Any, Final, NamedTuple

from pipecat_bridge.tools.load.calls import Role, call_id, duties
from pipecat_bridge.tools.load.loop import Loop, receive, stamp
from pipecat_bridge.tools.load.marks import EVERY, NUMBERS, Ear, Speaker
from pipecat_bridge.tools.load.patterns import Pattern
from pipecat_bridge.wire.audiosocket import (
    AUDIO_KINDS,
    HANGUP,
    HEADER_BYTES,
    Kind,
    audio_header,
    encode,
)

FRAME: Final = 0.02
REDIAL: Final = 0.1
"""Seconds from the end of a call to the next call of the same phone, if it dials again."""

PROMPT: Final = 0.005
"""Seconds. Of frames that were unread for longer, only the last one's time of arrival is known."""


class Plan(NamedTuple):
    """What the phones do.

    `calls`: calls at the same time. `per_second`: new calls each second. `rate`: samples per
    second on the line. `length`: seconds after which a call is hung up and another one begins; 0:
    never. `stalled`, `bursting`, `dying`: number of calls with that role. `pattern`: how the frames
    of a phone arrive; its chunk is 20 ms.
    """

    host: str
    port: int
    calls: int
    per_second: float = 50.0
    rate: int = 8000
    length: float = 0.0
    stalled: int = 0
    bursting: int = 0
    dying: int = 0
    pattern: Pattern = Pattern(chunk=FRAME)


class HeardByCaller(NamedTuple):
    """A mark that a phone heard. `time`: when, in seconds of the monotonic clock. `sample`: the
    position of the mark in the phone's stream."""

    call: int
    number: int
    time: float
    sample: int


class Callers:
    """All phones of one process. The parent process calls the public methods, over a pipe."""

    def __init__(self, loop: Loop, plan: Plan) -> None:
        self.loop = loop
        self.plan = plan
        self.speaker = Speaker(plan.rate)
        header = audio_header(plan.rate, 2 * self.speaker.count)
        self.messages = [header + self.speaker.chunk(i) for i in range(NUMBERS * EVERY)]
        self.silence = bytes(2 * self.speaker.count)
        self.frame = header
        self.recording = False
        self.counts: Counter[str] = Counter()
        self.heard: list[HeardByCaller] = []
        self.sent: dict[int, list[float]] = {}
        self.dialled: dict[int, float] = {}
        self.answered: dict[int, float] = {}
        self.pace: defaultdict[Role, list[float]] = defaultdict(list)
        self.roles: dict[int, Role] = {}
        self.up: set[int] = set()
        self._number = 0
        self._open: set[LoadCaller] = set()
        self._hanging_up = False

    def dial(self) -> None:
        """Begin all calls, one after the other."""
        plan = self.plan
        self._hanging_up = False
        now = time.monotonic()
        for index, role in enumerate(duties(plan.calls, plan.stalled, plan.bursting, plan.dying)):
            phase = FRAME * index / plan.calls
            begin = now + index / plan.per_second
            begin += (phase - begin) % FRAME
            self.loop.at(begin, LoadCaller(self, role).begin)

    def status(self) -> dict[str, Any]:
        """Counts; "open": calls, "up": calls whose phone has heard itself through the bot."""
        return {"up": len(self.up), "open": len(self._open), **self.counts}

    def record(self) -> None:
        """Count and measure from now on."""
        self.recording = True
        self.counts.clear()
        self.heard.clear()
        self.pace.clear()
        self.loop.lateness = []

    def stop(self) -> dict[str, Any]:
        """Stop measuring. Returns the results."""
        self.recording = False
        lateness, self.loop.lateness = self.loop.lateness, None
        return {
            "counts": dict(self.counts),
            "heard": self.heard,
            "sent": self.sent,
            "dialled": self.dialled,
            "answered": self.answered,
            "pace": dict(self.pace),
            "roles": self.roles,
            "lateness": lateness,
            "damaged": sum(caller.damaged for caller in self._open),
        }

    def hang_up(self) -> None:
        """End all calls, and do not dial again."""
        self._hanging_up = True
        for caller in list(self._open):
            caller.hang_up()

    # From a call

    def opened(self, caller: LoadCaller) -> int:
        """Register a new call. Returns its number."""
        self._number += 1
        self.counts["dialled"] += 1
        self._open.add(caller)
        self.roles[self._number] = caller.role
        return self._number

    def closed(self, caller: LoadCaller, why: str) -> None:
        """Forget a call that is over, and dial again if the plan says so."""
        self._open.discard(caller)
        self.up.discard(caller.number)
        self.counts[f"ended: {why}"] += 1
        again = self.plan.length or caller.role is Role.DYING
        if again and not self._hanging_up:
            due = time.monotonic() + REDIAL
            self.loop.at(due, LoadCaller(self, caller.role).begin)


class LoadCaller:
    """One call."""

    def __init__(self, callers: Callers, role: Role) -> None:
        self.role = role
        self.number = 0
        self._callers = callers
        self._ear: Ear[float] = Ear(callers.plan.rate)
        self._rest = b""
        self._index = 0
        self._said_who = False
        self._last = 0.0
        self._delays = callers.plan.pattern.delays
        self._random = Random(id(self))
        self._arrives = 0.0  # when the last frame arrives

    def begin(self) -> None:
        """Connect, and start to send audio."""
        callers, plan = self._callers, self._callers.plan
        if callers._hanging_up:
            return
        self.number = callers.opened(self)
        self._due = self._began = time.monotonic()
        callers.dialled[self.number] = self._began
        self._marks = callers.sent[self.number] = []
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stamp(self._socket)
        self._socket.connect_ex((plan.host, plan.port))
        callers.loop.read(self._socket.fileno(), self._readable)
        callers.loop.at(self._due, self._tick)

    @property
    def damaged(self) -> int:
        """Number of marks that were heard but could not be read."""
        return self._ear.damaged

    def hang_up(self) -> None:
        """Close the connection, as Asterisk does."""
        self._close("hung up")

    def _tick(self) -> float | None:
        if self._socket.fileno() < 0:
            return None
        callers = self._callers
        now = time.monotonic()
        if callers.plan.length and now - self._began > callers.plan.length:
            self.hang_up()
            return None
        if not self._delays or not self._said_who:
            self._send()
        else:
            pattern = callers.plan.pattern
            at = self._began + pattern.delayed(self._due - self._began, self._random)
            self._arrives = max(at, self._arrives)
            callers.loop.at(self._arrives, self._send)
        self._due += FRAME
        return self._due

    def _send(self) -> None:
        if self._socket.fileno() < 0:
            return
        try:
            if self._said_who:
                self._speak()
            else:
                who = encode(Kind.UUID, call_id(self.role, self.number).bytes)
                self._said_who = self._socket.send(who) > 0
        except BlockingIOError:
            # The socket still connects, or the bridge takes no audio; there Asterisk would hang up.
            self._callers.counts["unsent"] += self._said_who
        except OSError as error:
            self._close(error.strerror or "broken")

    def _speak(self) -> None:
        callers, index = self._callers, self._index
        now = time.monotonic()
        message = callers.messages[index % len(callers.messages)]
        if self._socket.send(message) < len(message):
            self._close("half a frame was sent")
            return
        if index % EVERY == 0:
            self._marks.append(now)
        self._index = index + 1

    def _readable(self) -> None:
        try:
            data, arrived = receive(self._socket)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(error.strerror or "broken")
            return
        if not data:
            self._close("closed by the bridge")
            return
        if self._rest:
            data, self._rest = self._rest + data, b""
        self._listen(data, arrived)

    def _listen(self, data: bytes, arrived: float) -> None:
        at, end = 0, len(data)
        while end - at >= HEADER_BYTES:
            stop = at + HEADER_BYTES + (data[at + 1] << 8 | data[at + 2])
            if stop > end:
                break
            if data[at] == AUDIO_KINDS[self._callers.plan.rate]:
                known = stop == end or self._callers.loop.unread_for <= PROMPT
                self._hear(data[at + HEADER_BYTES : stop], arrived, known)
            elif data[at : at + 3] == HANGUP:
                self._close("hung up by the bridge")
                return
            elif data[at] == Kind.ERROR:  # the bot was lost
                self._close("ended by the bridge with an error")
                return
            at = stop
        self._rest = data[at:]

    def _hear(self, pcm: bytes, arrived: float, known: bool) -> None:
        callers = self._callers
        last, self._last = self._last, arrived if known else nan
        if not last:
            callers.answered[self.number] = arrived
        if callers.recording:
            if pcm == callers.silence:
                callers.counts["silent_in"] += 1
            if last:
                callers.pace[self.role].append(self._last - last)
        for number, offset, came, sample in self._ear.hear(pcm, arrived):
            callers.up.add(self.number)
            if callers.recording:
                callers.heard.append(HeardByCaller(self.number, number, came + offset, sample))

    def _close(self, why: str) -> None:
        if self._socket.fileno() < 0:
            return
        self._callers.loop.forget(self._socket.fileno())
        with suppress(OSError):
            self._socket.close()
        self._callers.closed(self, why)
