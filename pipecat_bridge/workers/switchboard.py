"""Gives each phone to the worker that knows its call, or to the worker with the least load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pipecat_bridge.net.rate_limit import BoundedLog
from pipecat_bridge.net.tally import Tally
from pipecat_bridge.options import Options
from pipecat_bridge.workers import commands
from pipecat_bridge.workers.arrival import Arrival
from pipecat_bridge.workers.places import Places, PreparedElsewhere
from pipecat_bridge.workers.worker import Worker

NO_WORKER: Final = "no worker runs"
STOPPED: Final = "the daemon is being stopped"

Prepare = Callable[[Worker, str, PreparedElsewhere[Worker]], Deferred[bool]]
"""Prepares a call at a worker. Fires with True if that succeeded."""


class Switchboard:
    """Gives phones to workers, and knows which worker has which call.

    `on_phones`: counts phones from the time a worker gets them to the end of their calls.
    `calls_lost`: count of calls that ended with their worker. `phones_refused`: count of phones
    that no worker could take.
    """

    _log = Logger(namespace="pipecat_bridge.workers")

    def __init__(self, clock: IReactorTime, options: Options, prepare: Prepare) -> None:
        self.workers: Sequence[Worker] = ()
        self.places: Places[Worker] = Places(clock, options.calls.keep_ended)
        self.on_phones = Tally()
        self.calls_lost = 0
        self.phones_refused = 0
        self.draining = False
        self._refusals = BoundedLog(self._log, clock.seconds)
        self.last_end: float | None = None  # time of the last call's end, on `clock`
        self._clock = clock
        self._limited = options.calls.max_calls > 0
        self._handshake_timeout = options.audiosocket.handshake_timeout
        self._prepare = prepare
        self._ended = False
        self._waiting: list[Arrival] = []
        self._until_ready: list[Deferred[None]] = []

    @property
    def ready(self) -> list[Worker]:
        """Workers that take calls."""
        return [worker for worker in self.workers if worker.ready]

    def until_ready(self) -> Deferred[None]:
        """Fires when a worker takes calls. The Deferred may be cancelled."""
        if self.ready:
            return succeed(None)
        deferred: Deferred[None] = Deferred(self._until_ready.remove)
        self._until_ready.append(deferred)
        return deferred

    def least_loaded(self) -> Worker | None:
        """The worker for a call that no worker knows; None if no worker is ready."""
        return min(self.ready, key=self.places.load, default=None)

    async def worker_for(self, call_id: str) -> Worker | None:
        """The worker that knows a call, or else the worker for it; None if no worker is ready."""
        worker = self.places.worker_of(call_id)
        if worker is not None and worker.ready:
            return worker
        preparation = self.places.preparation(call_id)
        worker = self.least_loaded()
        if preparation is None or worker is None or self.places.running(call_id) is not None:
            return worker
        # The worker where the call was prepared has ended.
        if await self._prepare(worker, call_id, preparation):
            self.places.move(preparation, worker)
        return worker if worker.ready else self.least_loaded()  # it may have ended meanwhile

    # Phones

    def arrived(self, arrival: Arrival) -> None:
        """Give a phone to a worker. Its first message was a UUID, or was wrong."""
        if self._ended:
            self._refuse(arrival, STOPPED)
            return
        giving = Deferred.fromCoroutine(self._give(arrival))
        giving.addErrback(
            lambda failure: self._log.failure("cannot give a phone to a worker", failure)
        )

    async def _give(self, arrival: Arrival) -> None:
        worker = await self.worker_for(arrival.call_id)
        if not arrival.open:
            return
        if worker is None:
            self._waiting.append(arrival)
            return
        arrival.taken()
        phone = self.places.arrive(arrival.call_id, worker)
        self.on_phones.enter()
        self._tell_elsewhere(worker)
        try:
            answered = await worker.take_phone(
                arrival.socket, phone, arrival.data, self._elsewhere(worker)
            )
        except Exception:  # noqa: BLE001 - the worker is lost, and this phone with it
            self._refuse(arrival, f"worker {worker.number} has ended")
            answered = False
        if answered:
            self.places.forget(arrival.call_id)
        else:
            self.call_ended(phone)
        arrival.close()

    def too_late(self, arrival: Arrival) -> None:
        """Refuse a phone that has waited too long for a worker, or that has not sent its UUID."""
        if arrival in self._waiting:
            self._waiting.remove(arrival)
        if arrival.call_id:
            self._refuse(arrival, NO_WORKER)
        else:
            self._refuse(arrival, f"no call UUID within {self._handshake_timeout:g} s")

    def _refuse(self, arrival: Arrival, reason: str) -> None:
        self.phones_refused += 1
        self._refusals.warn(
            "{call_id} connection from {peer} refused: {reason}",
            call_id=arrival.call_id or "-",
            peer=arrival.peer,
            reason=reason,
        )
        arrival.refuse()

    # Workers

    def worker_ready(self, worker: Worker) -> None:
        """Give the phones that wait to `worker`, which takes calls now."""
        if self.draining:
            worker.tell(commands.Drain)
        self._tell_elsewhere()
        waiting, self._waiting = self._waiting, []
        for arrival in waiting:
            self.arrived(arrival)
        until_ready, self._until_ready = self._until_ready, []
        for deferred in until_ready:
            deferred.callback(None)

    def worker_lost(self, worker: Worker) -> None:
        """Take note that `worker` and its calls have ended."""
        calls, phones = self.places.lose(worker)
        for _ in range(phones):
            self.on_phones.leave()
        if calls:
            self.calls_lost += calls
            self._log.error(
                "{calls} calls have ended with worker {number}", calls=calls, number=worker.number
            )
        self._tell_elsewhere()

    def call_ended(self, phone: int) -> None:
        """Take note that the call of a phone is over, or that its worker refused it."""
        worker = self.places.leave(phone)
        if worker is not None:
            self.last_end = self._clock.seconds()
            self.on_phones.leave()
            self._tell_elsewhere(worker)

    def _elsewhere(self, worker: Worker) -> int:
        return self.places.calls - self.places.calls_of(worker)

    def _tell_elsewhere(self, but: Worker | None = None) -> None:
        """Tell each worker how many calls the others have, if `max_calls` is set."""
        if self._limited:
            for worker in self.ready:
                if worker is not but:
                    worker.tell(commands.CallsElsewhere, calls=self._elsewhere(worker))

    # The end

    def drain(self) -> None:
        """Take no new calls from now on. The workers refuse further phones."""
        self.draining = True
        for worker in self.workers:
            worker.tell(commands.Drain)

    def reopen(self) -> None:
        """Let the workers open files again that another program may have moved away."""
        for worker in self.workers:
            worker.tell(commands.Reopen)

    def end_calls(self) -> None:
        """End all calls now."""
        for worker in self.workers:
            worker.tell(commands.EndCalls)

    def end(self) -> None:
        """Refuse all phones from now on, because the workers end."""
        self._ended = True
        for arrival in self._waiting:
            self._refuse(arrival, STOPPED)
        self._waiting.clear()
