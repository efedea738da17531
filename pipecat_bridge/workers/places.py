"""Knows which worker has which call: calls that run, are prepared, or have ended."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

from pipecat_bridge.call.preparations import why_full

W = TypeVar("W")


@dataclass(slots=True)
class PreparedElsewhere(Generic[W]):
    """A prepared call, and its request, to repeat it at another worker.

    `worker`: the worker that has the preparation, None if that worker has ended. `expires`: a time
    of the clock, in seconds.
    """

    worker: W | None
    body: bytes
    expires: float


class Places(Generic[W]):
    """Knows the worker of each call. A call's id is its UUID in lower case. `W` is a worker.

    A phone without a UUID, or with the UUID of a call that runs, has a place and is no call.
    """

    def __init__(self, clock: IReactorTime, keep_ended: int) -> None:
        self._clock = clock
        self._keep_ended = keep_ended
        self._phones: dict[int, tuple[str, W]] = {}
        self._running: dict[str, W] = {}
        self._numbers: dict[str, set[int]] = {}
        self._prepared: OrderedDict[str, PreparedElsewhere[W]] = OrderedDict()
        self._bytes = 0  # of their bodies
        self._ended: OrderedDict[str, W] = OrderedDict()
        self._load: Counter[W] = Counter()
        self._calls: Counter[W] = Counter()
        self._last = 0

    # Phones

    def arrive(self, call_id: str, worker: W) -> int:
        """Give a phone to `worker`, which may answer or refuse it. Returns the phone's number."""
        self._last += 1
        self._phones[self._last] = (call_id, worker)
        self._load[worker] += 1
        if call_id:
            if call_id not in self._running:
                self._running[call_id] = worker
                self._calls[worker] += 1
            self._numbers.setdefault(call_id, set()).add(self._last)
        return self._last

    def leave(self, number: int) -> W | None:
        """Remove a phone. Returns its worker, None if that worker was lost before."""
        place = self._phones.pop(number, None)
        if place is None:
            return None
        call_id, worker = place
        self._load[worker] -= 1
        if call_id:
            self._numbers[call_id].discard(number)
            if not self._numbers[call_id]:
                self._over(call_id)
        return worker

    def _over(self, call_id: str) -> None:
        del self._numbers[call_id]
        worker = self._running.pop(call_id)
        self._calls[worker] -= 1
        self._ended[call_id] = worker
        self._ended.move_to_end(call_id)
        while len(self._ended) > self._keep_ended:
            self._ended.popitem(last=False)

    # Preparations

    def why_full(self, call_id: str, size: int) -> str:
        """Why a call cannot be prepared with a body of `size` bytes; "" if it can."""
        self._expire()
        before = self._prepared.get(call_id)
        size += self._bytes - (len(before.body) if before else 0)
        return why_full(len(self._prepared) + (before is None), size)

    def prepare(self, call_id: str, worker: W, body: bytes, seconds: float) -> None:
        """Take note that a call is prepared at `worker`, for `seconds`."""
        self.forget(call_id)
        expires = self._clock.seconds() + seconds
        self._prepared[call_id] = PreparedElsewhere(worker, body, expires)
        self._bytes += len(body)
        self._load[worker] += 1

    def move(self, preparation: PreparedElsewhere[W], worker: W) -> None:
        """Take note that `worker` has this preparation now."""
        if preparation.worker is not None:
            self._load[preparation.worker] -= 1
        preparation.worker = worker
        self._load[worker] += 1

    def preparation(self, call_id: str) -> PreparedElsewhere[W] | None:
        """The preparation of a call that has not come yet; None if there is none."""
        self._expire()
        return self._prepared.get(call_id)

    def forget(self, call_id: str) -> None:
        """Remove the preparation of a call, if there is one."""
        preparation = self._prepared.pop(call_id, None)
        if preparation is None:
            return
        self._bytes -= len(preparation.body)
        if preparation.worker is not None:
            self._load[preparation.worker] -= 1

    def _expire(self) -> None:
        now = self._clock.seconds()
        while self._prepared:
            call_id, preparation = next(iter(self._prepared.items()))
            if preparation.expires > now:
                return
            self.forget(call_id)

    # Workers

    def worker_of(self, call_id: str) -> W | None:
        """The worker of a call that runs, is prepared, or has ended lately; None if unknown."""
        if call_id in self._running:
            return self._running[call_id]
        preparation = self.preparation(call_id)
        if preparation is not None:
            return preparation.worker
        return self._ended.get(call_id)

    def running(self, call_id: str) -> W | None:
        """The worker of a call that runs; None if it does not run."""
        return self._running.get(call_id)

    @property
    def calls(self) -> int:
        """Number of calls that run."""
        return len(self._running)

    def calls_of(self, worker: W) -> int:
        """Number of calls that run at `worker`."""
        return self._calls[worker]

    def load(self, worker: W) -> int:
        """Number of phones and of prepared calls of `worker`."""
        self._expire()
        return self._load[worker]

    def lose(self, worker: W) -> tuple[int, int]:
        """Remove everything of `worker` except preparations. Returns its number of calls and of
        phones."""
        calls = self._calls[worker]
        phones = [n for n, (_, place) in self._phones.items() if place is worker]
        for number in phones:
            self.leave(number)
        for call_id in [call_id for call_id, place in self._ended.items() if place is worker]:
            del self._ended[call_id]
        for preparation in self._prepared.values():
            if preparation.worker is worker:
                preparation.worker = None
        del self._load[worker], self._calls[worker]
        return calls, len(phones)
