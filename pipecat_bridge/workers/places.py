"""Which worker has which call: those that run, those that are prepared, those that have ended."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

MAX_PREPARED = 10_000
"""As many as a worker keeps."""

W = TypeVar("W")


@dataclass(slots=True)
class PreparedElsewhere(Generic[W]):
    """A call that was prepared: the worker that knows, None when that has ended, and what it was
    told, for another to be told the same.
    """

    worker: W | None
    body: bytes
    content_type: str
    expires: float


class Places(Generic[W]):
    """Where calls are. A call's id is its UUID in lower case; `W` is a worker.

    A phone without a UUID, or whose UUID is in a call already, has a place and is no call.
    """

    def __init__(self, clock: IReactorTime, keep_ended: int) -> None:
        self._clock = clock
        self._keep_ended = keep_ended
        self._phones: dict[int, tuple[str, W]] = {}
        self._running: dict[str, W] = {}
        self._numbers: dict[str, set[int]] = {}
        self._prepared: OrderedDict[str, PreparedElsewhere[W]] = OrderedDict()
        self._ended: OrderedDict[str, W] = OrderedDict()
        self._load: Counter[W] = Counter()
        self._calls: Counter[W] = Counter()
        self._last = 0

    # Phones

    def arrive(self, call_id: str, worker: W) -> int:
        """A phone is given to `worker`, which may answer or refuse it; the phone's number."""
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
        """That phone is in no call any more; its worker, None when that was lost before."""
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

    def prepare(
        self, call_id: str, worker: W, body: bytes, content_type: str, seconds: float
    ) -> None:
        """`worker` was told of a call that will come, and keeps it for `seconds`."""
        self.forget(call_id)
        expires = self._clock.seconds() + seconds
        self._prepared[call_id] = PreparedElsewhere(worker, body, content_type, expires)
        self._load[worker] += 1
        if len(self._prepared) > MAX_PREPARED:
            self.forget(next(iter(self._prepared)))

    def move(self, preparation: PreparedElsewhere[W], worker: W) -> None:
        """`worker` was told now."""
        if preparation.worker is not None:
            self._load[preparation.worker] -= 1
        preparation.worker = worker
        self._load[worker] += 1

    def preparation(self, call_id: str) -> PreparedElsewhere[W] | None:
        """What a call that has not come yet was prepared with."""
        self._expire()
        return self._prepared.get(call_id)

    def forget(self, call_id: str) -> None:
        """It is not prepared any more."""
        preparation = self._prepared.pop(call_id, None)
        if preparation is not None and preparation.worker is not None:
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
        """Who knows a call: one that runs, is prepared or has ended lately."""
        if call_id in self._running:
            return self._running[call_id]
        preparation = self.preparation(call_id)
        if preparation is not None:
            return preparation.worker
        return self._ended.get(call_id)

    def running(self, call_id: str) -> W | None:
        """Who has the call, if it runs."""
        return self._running.get(call_id)

    @property
    def calls(self) -> int:
        """How many run."""
        return len(self._running)

    def calls_of(self, worker: W) -> int:
        """How many of them `worker` has."""
        return self._calls[worker]

    def load(self, worker: W) -> int:
        """Phones of `worker`, and those that are to come to it."""
        self._expire()
        return self._load[worker]

    def lose(self, worker: W) -> tuple[int, int]:
        """What `worker` had is gone, but for preparations; how many calls and phones it had."""
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
