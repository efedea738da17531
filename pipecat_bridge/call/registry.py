"""The registry of all calls: prepared, running, and the last ended ones."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pipecat_bridge.audio.hold import HoldMusic, read_wav, waiting_tone
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.call.bounded import Bounded
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.record import record, rejected
from pipecat_bridge.contracts import BotRequest, BotSource, Phone
from pipecat_bridge.events.events import CallEvent, Events
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import SILENCE, BotAudioOptions, CallOptions

MAX_PREPARED = 10_000

LATE = 600.0
"""Seconds after expiry during which the registry still knows that a call was prepared."""


class UnknownCallError(KeyError):
    """No call has this id."""


class CallIdError(ValueError):
    """An id that is not a UUID in its 36-character form."""


class CallRunningError(ValueError):
    """A call with this id runs already."""


class NoRoomError(Exception):
    """A call that came now would not be served. The text says why."""


class Prepared(NamedTuple):
    """What a call was prepared with, while its phone has not come yet.

    `expires` is in seconds of the registry's clock. `doubts` are sentences about what looks wrong.
    """

    request: BotRequest
    expires: float
    doubts: Sequence[str]


class Calls:
    """The registry of calls. `answer` begins the call of a phone that has connected."""

    _log = Logger()

    def __init__(
        self,
        bots: BotSource,
        events: Events,
        clock: IReactorTime,
        options: CallOptions,
        audio: BotAudioOptions,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.events = events
        self.draining = False
        self.elsewhere = 0  # calls in other processes, which count toward the limit
        self.outcomes: Counter[str] = Counter()
        self.last_end: float | None = None  # when the last call ended, on the registry's clock
        self._bots = bots
        self._clock = clock
        self._options = options
        self._hold = hold_music(options.hold_file)
        self._audio = audio
        self._wall_clock = wall_clock
        self._running: dict[str, Call] = {}
        self._ended = Bounded[dict[str, Any]](options.keep_ended)
        self._rejected = Bounded[dict[str, Any]](options.keep_ended)
        self._prepared: OrderedDict[str, Prepared] = OrderedDict()
        self._late = Bounded[float](MAX_PREPARED)  # call id -> when its preparation expired
        self._tally = Tally()
        self._end_listeners: list[Callable[[Call], None]] = []

    # Phones

    def answer(self, call_id: str, phone: Phone) -> Call | None:
        """Begin the call of a phone. None: the call is refused, which is logged and counted."""
        if call_id in self._running:
            self._reject(call_id, phone, "a call with this UUID is running already")
            return None
        self._expire()
        prepared = self._prepared.pop(call_id, None)
        if refusal := self._refusal:
            self._rejected[call_id] = rejected(call_id, phone.peer, refusal, self._wall_clock())
            self._reject(call_id, phone, refusal)
            return None
        call = self._call(prepared.request if prepared else BotRequest(call_id, {}, {}), phone)
        self._running[call_id] = call
        self._tally.enter()
        call.start(self._doubts(call_id, prepared))
        return call

    def _call(self, request: BotRequest, phone: Phone) -> Call:
        options = self._audio
        playout = Playout(
            prebuffer=options.prebuffer,
            max_prebuffer=options.max_prebuffer,
            max_queue=options.max_queue,
            time_scaling=options.time_scaling,
            resampler=options.resampler,
        )
        return Call(
            request,
            phone,
            self._bots,
            playout,
            self.events,
            self._clock,
            self._options,
            self._call_ended,
            self._hold,
            self._wall_clock,
        )

    def _reject(self, call_id: str, phone: Phone, reason: str) -> None:
        self.outcomes[Outcome.REJECTED.value] += 1
        data = {"peer": phone.peer, "reason": reason}
        self.events.publish(CallEvent(call_id, self._wall_clock(), "rejected", data))

    @property
    def _refusal(self) -> str:
        if self.draining:
            return "the daemon is being stopped"
        if self.full:
            return f"{self._options.max_calls} calls run, the limit of [calls] max_calls"
        return ""

    @property
    def full(self) -> bool:
        """True if `[calls] max_calls` is reached."""
        return 0 < self._options.max_calls <= len(self._running) + self.elsewhere

    def _doubts(self, call_id: str, prepared: Prepared | None) -> Iterator[tuple[str, str]]:
        late = self._late.pop(call_id, None)
        if prepared is not None:
            for text in prepared.doubts:
                yield "metadata", text
        elif late is not None and self._clock.seconds() - late < LATE:
            seconds = self._clock.seconds() - late
            yield (
                "prepared-late",
                f"the call came {seconds:.1f} s after its preparation had expired ([calls]"
                f" prepared_ttl = {self._options.prepared_ttl:g}): its bot gets no prepared data",
            )

    def _call_ended(self, call: Call) -> None:
        """Store the record of a call that has ended, count its outcome, and tell the listeners."""
        del self._running[call.call_id]
        self.last_end = self._clock.seconds()
        assert call.outcome is not None
        self.outcomes[call.outcome.value] += 1
        self._ended[call.call_id] = record(call)
        for listener in self._end_listeners:
            try:
                listener(call)
            except Exception:  # noqa: BLE001 - a listener that fails must not disturb the registry
                self._log.failure("{call_id} a listener failed", call_id=call.call_id)
        self._tally.leave()

    def on_ended(self, listener: Callable[[Call], None]) -> None:
        """Call `listener` with each call that has ended, while its counters can still be read."""
        self._end_listeners.append(listener)

    # Operators

    def prepare(
        self,
        call_id: str,
        parameters: dict[str, Any],
        metadata: dict[str, Any],
        doubts: Sequence[str] = (),
    ) -> float:
        """Store what the runner gets when the call comes; return for how many seconds it is stored.

        The call begins with a warning for each of `doubts`. Raises CallIdError, CallRunningError,
        or NoRoomError if the call would not be served if it came now.
        """
        call_id = call_id.lower()
        if not _is_uuid(call_id):
            raise CallIdError(f'"{call_id}" is not a UUID in its 36-character form')
        if call_id in self._running:
            raise CallRunningError(f"call {call_id} is running already")
        if refusal := self._refusal or self._bots.why_none:
            raise NoRoomError(refusal)
        self._expire()
        ttl = self._options.prepared_ttl
        request = BotRequest(call_id, parameters, metadata)
        self._prepared[call_id] = Prepared(request, self._clock.seconds() + ttl, doubts)
        self._prepared.move_to_end(call_id)
        if len(self._prepared) > MAX_PREPARED:
            self._prepared.popitem(last=False)
        return ttl

    def _expire(self) -> None:
        now = self._clock.seconds()
        while self._prepared:
            call_id, prepared = next(iter(self._prepared.items()))
            if prepared.expires > now:
                return
            del self._prepared[call_id]
            self._late[call_id] = prepared.expires

    def prepared(self, call_id: str) -> BotRequest | None:
        """What was prepared for a call that has not come yet; None if nothing was."""
        self._expire()
        prepared = self._prepared.get(call_id.lower())
        return prepared.request if prepared else None

    def get(self, call_id: str) -> Call:
        """A running call; raises UnknownCallError."""
        call = self._running.get(call_id.lower())
        if call is None:
            raise UnknownCallError(call_id)
        return call

    def record(self, call_id: str) -> dict[str, Any]:
        """The record of a call that runs, has ended lately or was refused.

        If several calls had this UUID, it is the running one, else the one that ended last. Raises
        UnknownCallError.
        """
        call_id = call_id.lower()
        if call_id in self._running:
            return record(self._running[call_id])
        records = [kept[call_id] for kept in (self._ended, self._rejected) if call_id in kept]
        if not records:
            raise UnknownCallError(call_id)
        return max(records, key=lambda each: float(each["ended_at"]))

    @property
    def running(self) -> list[Call]:
        """The running calls."""
        return list(self._running.values())

    @property
    def ended(self) -> list[dict[str, Any]]:
        """Records of the last ended calls, oldest first."""
        return list(self._ended.values())

    def idle(self) -> Deferred[None]:
        """Fires when no call runs."""
        return self._tally.idle()

    def drain(self) -> None:
        """Take no new calls from now on."""
        self.draining = True

    def stop_all(self) -> None:
        """End every call at once, with the outcome `drained`."""
        for call in self.running:
            call.stop(Outcome.DRAINED, "the daemon was stopped")


def hold_music(hold_file: str) -> HoldMusic | None:
    """What a caller hears while another bot is being started: a WAV file, or a quiet tone.

    None for `hold_file` = "none". Raises OSError and ValueError for a file that cannot be used.
    """
    if hold_file == SILENCE:
        return None
    return read_wav(Path(hold_file).read_bytes()) if hold_file else waiting_tone()


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
