"""The registry of all calls: prepared, running, and the last ended ones."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pipecat_bridge.audio.hold import HoldMusic, read_wav, waiting_tone
from pipecat_bridge.audio.playout import Playout
from pipecat_bridge.call.bounded import Bounded
from pipecat_bridge.call.call import Call
from pipecat_bridge.call.ended import EndedCall, EndedCalls
from pipecat_bridge.call.life import Outcome
from pipecat_bridge.call.preparations import NoRoomError, Preparations
from pipecat_bridge.call.record import record, rejected
from pipecat_bridge.call.recording import Plan
from pipecat_bridge.contracts import BotRequest, BotSource, Phone
from pipecat_bridge.events.events import CallEvent, Envelope, Events
from pipecat_bridge.events.kinds import CallEnded, Turn
from pipecat_bridge.events.notes import Rejected
from pipecat_bridge.events.record import Record, RecordingChange
from pipecat_bridge.net.rate_limit import RateLimit
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import SILENCE, BotAudioOptions, CallOptions

ROUNDING: Final = 0.001
"""Seconds. Names of recordings have milliseconds."""


REFUSALS: Final = 20
"""Refused phones of which there is an event and a record in a second."""


class UnknownCallError(KeyError):
    """No call has this id."""


class CallIdError(ValueError):
    """An id that is not a UUID in its 36-character form."""


class CallRunningError(ValueError):
    """A call with this id runs already."""


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
        node: str = "",
        plan: Plan | None = None,
        hide_keys: bool = False,
    ) -> None:
        self.events = events
        self._plan = plan
        self._hide_keys = hide_keys
        self.node = node
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
        self._ended = EndedCalls(options.keep_ended)
        self._rejected = Bounded[Record](options.keep_ended)  # later than in `_ended`
        self._refusals = RateLimit(REFUSALS, REFUSALS)
        self._prepared = Preparations(clock, options.prepared_ttl)
        self._tally = Tally()
        self._end_listeners: list[Callable[[Call], None]] = []

    # Phones

    def answer(self, call_id: str, phone: Phone) -> Call | None:
        """Begin the call of a phone. None: the call is refused, which is logged and counted."""
        if call_id in self._running:
            self._reject(call_id, phone, "a call with this UUID is running already")
            return None
        prepared = self._prepared.take(call_id)
        if refusal := self._refusal:
            self._reject(call_id, phone, refusal)
            now = self._wall_clock()
            refused = rejected(call_id, self.node, phone.peer, refusal, now)
            self._rejected[call_id] = refused
            if self._refusals.admit(self._clock.seconds()):
                self.events.publish(CallEvent(call_id, now, CallEnded(refused)))
            return None
        call = self._call(prepared.request, phone)
        self._running[call_id] = call
        self._tally.enter()
        call.start(prepared.warnings)
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
            self.node,
            self._plan,
            self._hide_keys,
        )

    def _reject(self, call_id: str, phone: Phone, reason: str) -> None:
        self.outcomes[Outcome.REJECTED.value] += 1
        told = Rejected(phone.peer, reason)
        self.events.publish(CallEvent(call_id, self._wall_clock(), told))

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

    def _call_ended(self, call: Call) -> None:
        """Store the record of a call that has ended, count its outcome, and tell the listeners."""
        del self._running[call.call_id]
        self.last_end = self._clock.seconds()
        assert call.outcome is not None
        self.outcomes[call.outcome.value] += 1
        self._rejected.pop(call.call_id, None)
        for listener in (self._ended.add, *self._end_listeners):
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
        or NoRoomError if the call would not be served if it came now, or if too much is stored.
        """
        call_id = call_id.lower()
        if not _is_uuid(call_id):
            raise CallIdError(f'"{call_id}" is not a UUID in its 36-character form')
        if call_id in self._running:
            raise CallRunningError(f"call {call_id} is running already")
        if refusal := self._refusal or self._bots.why_none:
            raise NoRoomError(refusal)
        self._prepared.put(call_id, parameters, metadata, doubts)
        return self._options.prepared_ttl

    def prepared(self, call_id: str) -> BotRequest | None:
        """What was prepared for a call that has not come yet; None if nothing was."""
        return self._prepared.get(call_id.lower())

    def get(self, call_id: str) -> Call:
        """A running call; raises UnknownCallError."""
        call = self._running.get(call_id.lower())
        if call is None:
            raise UnknownCallError(call_id)
        return call

    def is_running(self, call_id: str) -> bool:
        """Whether a call with this id runs."""
        return call_id.lower() in self._running

    def note_recording(self, call_id: str, created_at: float, change: RecordingChange) -> None:
        """Something has happened to the recording of a call that runs or has ended lately."""
        call = self._running.get(call_id)
        if call is not None and abs(call.created_at - created_at) < ROUNDING:
            call.recording.note(change)
        else:
            self._ended.note_recording(call_id, created_at, change)

    def forget(self, call_id: str) -> None:
        """Drop what is kept of a call that has ended."""
        self._rejected.pop(call_id.lower(), None)
        self._ended.drop(call_id.lower())

    def expire(self, records: float, transcripts: float) -> None:
        """Drop what is kept of calls that ended before `records`, and what was said in those that
        ended before `transcripts`; both in seconds since the epoch."""
        self._ended.expire(records, transcripts)

    def record(self, call_id: str) -> Record:
        """The record of a call that runs, has ended lately or was refused.

        If several calls had this UUID, it is the running one, else the one that ended last. Raises
        UnknownCallError.
        """
        call_id = call_id.lower()
        if call_id in self._running:
            return record(self._running[call_id])
        if refused := self._rejected.get(call_id):
            return refused
        return msgspec.json.decode(self._kept(call_id).record, type=Record)

    def _kept(self, call_id: str) -> EndedCall:
        ended = self._ended.get(call_id)
        if ended is None:
            raise UnknownCallError(call_id)
        return ended

    def turns(self, call_id: str) -> list[Turn]:
        """The transcript of a call that runs or has ended lately. Raises UnknownCallError."""
        call = self._running.get(call_id.lower())
        if call is not None:
            return list(call.transcript)
        return msgspec.json.decode(self._kept(call_id.lower()).turns, type=list[Turn])

    def history(self, call_id: str) -> list[Envelope]:
        """The last events of a call that runs or has ended lately, without `call.ended`. Raises
        UnknownCallError."""
        call = self._running.get(call_id.lower())
        if call is not None:
            return list(call.history)
        return msgspec.json.decode(self._kept(call_id.lower()).events, type=list[Envelope])

    @property
    def running(self) -> list[Call]:
        """The running calls."""
        return list(self._running.values())

    @property
    def ended(self) -> list[msgspec.Raw]:
        """The last ended calls as the list of calls shows them, in JSON, oldest first."""
        return self._ended.listed

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
