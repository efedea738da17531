"""All calls: who may begin, which run, what became of the last ones."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from pipecat_bridge.audio.hold import read_wav
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.events import CallEvent, Events
from pipecat_bridge.call.interfaces import Phone, Runner
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.record import record
from pipecat_bridge.options import BotAudioOptions, CallOptions
from pipecat_bridge.runner.request import BotRequest
from pipecat_bridge.tally import Tally

MAX_PREPARED = 10_000


class UnknownCallError(KeyError):
    """No call has this id."""


class Calls:
    """The registry of calls, and what phones connect to: `answer` makes a call of a phone."""

    def __init__(
        self,
        runner: Runner,
        events: Events,
        clock: IReactorTime,
        options: CallOptions,
        audio: BotAudioOptions,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.events = events
        self.draining = False
        self.elsewhere = 0  # calls in other processes, which count for the limit
        self.outcomes: Counter[str] = Counter()
        self._runner = runner
        self._clock = clock
        self._options = options
        self._hold = read_wav(Path(options.hold_file).read_bytes()) if options.hold_file else None
        self._audio = audio
        self._wall_clock = wall_clock
        self._running: dict[str, Call] = {}
        self._ended: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._prepared: OrderedDict[str, tuple[float, BotRequest]] = OrderedDict()
        self._tally = Tally()
        self._end_listeners: list[Callable[[Call], None]] = []
        events.subscribe(self._hear)

    # Phones

    def answer(self, call_id: str, phone: Phone) -> Call | None:
        """Begin the call of a phone; None when it is refused, which is logged and counted."""
        refusal = self._refusal(call_id)
        if refusal:
            self.outcomes[Outcome.REJECTED.value] += 1
            data = {"peer": phone.peer, "reason": refusal}
            self.events.publish(CallEvent(call_id, self._wall_clock(), "rejected", data))
            return None
        self._expire()
        _, request = self._prepared.pop(call_id, (0.0, BotRequest(call_id, {}, {})))
        options = self._audio
        playout = Playout(
            prebuffer=options.prebuffer,
            max_prebuffer=options.max_prebuffer,
            max_queue=options.max_queue,
            resampler=options.resampler,
        )
        call = Call(
            request,
            phone,
            self._runner,
            playout,
            self.events,
            self._clock,
            self._options,
            self._hold,
            self._wall_clock,
        )
        self._running[call_id] = call
        self._tally.enter()
        call.start()
        return call

    def _refusal(self, call_id: str) -> str:
        if call_id in self._running:
            return "a call with this UUID is running already"
        if self.draining:
            return "the daemon is being stopped"
        if self.full:
            return f"{self._options.max_calls} calls run, the limit of [calls] max_calls"
        return ""

    @property
    def full(self) -> bool:
        """True at the limit of calls."""
        return 0 < self._options.max_calls <= len(self._running) + self.elsewhere

    def _hear(self, event: CallEvent) -> None:
        if event.kind != "terminated":
            return
        call = self._running.pop(event.call_id)
        self.outcomes[event.data["outcome"]] += 1
        for listener in self._end_listeners:
            listener(call)
        self._ended[call.call_id] = record(call)
        self._ended.move_to_end(call.call_id)
        while len(self._ended) > self._options.keep_ended:
            self._ended.popitem(last=False)
        self._tally.leave()

    def on_ended(self, listener: Callable[[Call], None]) -> None:
        """Call `listener` with each call that has ended, while its sides are still there."""
        self._end_listeners.append(listener)

    # Operators

    def prepare(self, call_id: str, parameters: dict[str, Any], metadata: dict[str, Any]) -> float:
        """Keep what the runner is to be told of a call that will come; the seconds it is kept.

        Raises ValueError when `call_id` is not a UUID in its 36-character form, or is in a call.
        """
        call_id = call_id.lower()
        if not _is_uuid(call_id):
            raise ValueError(f'"{call_id}" is not a UUID in its 36-character form')
        if call_id in self._running:
            raise ValueError(f"call {call_id} is running already")
        self._expire()
        ttl = self._options.prepared_ttl
        request = BotRequest(call_id, parameters, metadata)
        self._prepared[call_id] = (self._clock.seconds() + ttl, request)
        self._prepared.move_to_end(call_id)
        if len(self._prepared) > MAX_PREPARED:
            self._prepared.popitem(last=False)
        return ttl

    def _expire(self) -> None:
        now = self._clock.seconds()
        while self._prepared:
            call_id, (expires, _) = next(iter(self._prepared.items()))
            if expires > now:
                return
            del self._prepared[call_id]

    def prepared(self, call_id: str) -> BotRequest | None:
        """What was prepared for a call that has not come yet."""
        self._expire()
        entry = self._prepared.get(call_id.lower())
        return entry[1] if entry else None

    def get(self, call_id: str) -> Call:
        """A running call; raises UnknownCallError."""
        call = self._running.get(call_id.lower())
        if call is None:
            raise UnknownCallError(call_id)
        return call

    def record(self, call_id: str) -> dict[str, Any]:
        """The record of a call, running or ended lately; raises UnknownCallError."""
        ended = self._ended.get(call_id.lower())
        if ended is None or call_id.lower() in self._running:  # a UUID may come again
            return record(self.get(call_id))
        return ended

    @property
    def running(self) -> list[Call]:
        """Calls that have not ended."""
        return list(self._running.values())

    @property
    def ended(self) -> list[dict[str, Any]]:
        """Records of the last calls that have, oldest first."""
        return list(self._ended.values())

    def idle(self) -> Deferred[None]:
        """Fires when no call runs."""
        return self._tally.idle()

    def drain(self) -> None:
        """Take no new calls from now on."""
        self.draining = True

    def stop_all(self) -> None:
        """End every call at once: `drained`."""
        for call in self.running:
            call.stop(Outcome.DRAINED, "the daemon was stopped")


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
