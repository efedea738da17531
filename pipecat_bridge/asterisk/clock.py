"""The 20 ms clock of all calls, with absolute deadlines.

Asterisk passes frames on as they come and has no buffer, so this clock sets the pace of the frames
to the caller. A sleep of 20 ms after each frame would be late by the time that the frame's work
takes. Deadlines are therefore multiples of 20 ms from one origin.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from pipecat_bridge.audio.frame import FRAME

SLOTS = 10
"""Groups of calls that tick together, 2 ms apart, so that hundreds of calls are not one burst."""

CATCH_UP = 3
"""Missed frames that are sent after a stall, at half the spacing.

A phone's jitter buffer bridges so short a stall, and needs the frames then. A longer stall is
audible anyway, and all its frames are skipped: if they were sent late, they would stay in Asterisk
as a delay until the end of the call.
"""

# Seconds. The loop's timers and the monotonic clock differ by less, so that no wakeup is in vain.
_EARLY = 0.0005
_APART = FRAME / 2 + _EARLY  # so that two ticks of a call are never closer than half a frame

_ROUNDING = 1e-6

Tick = Callable[[], None]
TickFailed = Callable[[Failure], None]
TicksSkipped = Callable[[int], None]


def _nobody(frames: int) -> None:
    """Nobody wants to know."""


class _Slot:
    __slots__ = ("due", "next", "ticks")

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.due = 0.0  # the frame's place on the absolute grid
        self.next = 0.0  # when it runs: `due`, or later while catching up


class FrameClock:
    """Calls each member's tick every 20 ms.

    `now` is a monotonic clock in seconds; a step of the wall clock must not disturb the audio.
    `skipped` counts the ticks that were skipped after long stalls, over all members.
    """

    def __init__(self, reactor: IReactorTime, now: Callable[[], float] = time.monotonic) -> None:
        self._reactor = reactor
        self._now = now
        self._origin = now()
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._members: dict[Tick, tuple[_Slot, TickFailed, TicksSkipped]] = {}
        self._timer: IDelayedCall | None = None
        self._wake_at = 0.0
        self.skipped = 0

    def add(self, tick: Tick, failed: TickFailed, skipped: TicksSkipped = _nobody) -> None:
        """Call `tick` every 20 ms from now on, for the first time within 20 ms.

        A tick that raises is removed, and `failed` gets the Failure. The other ticks go on.
        `skipped` is called after a long stall, with the number of frames that are skipped.
        """
        if tick in self._members:
            return
        index = min(range(SLOTS), key=lambda number: len(self._slots[number].ticks))
        slot = self._slots[index]
        if not slot.ticks:
            phase = self._origin + index * FRAME / SLOTS
            frames = (self._now() - phase) // FRAME + 1
            slot.due = slot.next = phase + frames * FRAME
        # A new list here and in `remove`: a tick may call both while its slot runs.
        slot.ticks = [*slot.ticks, tick]
        self._members[tick] = slot, failed, skipped
        self._schedule()

    def align(self, tick: Tick, at: float) -> None:
        """Call `tick` in the slot at or after the time `at`, and every 20 ms before and after that.

        Two of its calls may then be a quarter of a frame apart, once.
        """
        member = self._members.get(tick)
        if member is None:
            return
        slot = member[0]
        soonest = self._now() + FRAME / 4
        at = soonest + max(0.0, at - soonest) % FRAME
        steps = ceil((at - self._origin) / FRAME * SLOTS - _ROUNDING)
        new = self._slots[steps % SLOTS]
        if new is slot:
            return
        if not new.ticks:
            new.due = new.next = self._origin + steps * FRAME / SLOTS
        slot.ticks = [other for other in slot.ticks if other != tick]
        new.ticks = [*new.ticks, tick]
        self._members[tick] = new, *member[1:]
        self._schedule()

    def remove(self, tick: Tick) -> None:
        """Stop calling `tick`. An unknown one is ignored."""
        member = self._members.pop(tick, None)
        if member is not None:
            slot = member[0]
            slot.ticks = [other for other in slot.ticks if other != tick]
            self._schedule()

    def _schedule(self) -> None:
        times = [slot.next for slot in self._slots if slot.ticks]
        if not times:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer = None
            return
        wake_at = min(times)
        if self._timer is not None and self._timer.active():
            if self._wake_at == wake_at:
                return
            self._timer.cancel()
        self._wake_at = wake_at
        self._timer = self._reactor.callLater(max(0.0, wake_at - self._now()), self._wake)

    def _wake(self) -> None:
        for slot in self._slots:
            if slot.ticks and slot.next <= self._now() + _EARLY:
                self._run(slot)
        self._schedule()

    def _run(self, slot: _Slot) -> None:
        missed = int((self._now() - slot.due) / FRAME) - 1
        if missed > CATCH_UP:
            slot.due += missed * FRAME
            self.skipped += missed * len(slot.ticks)
            self._tell_skipped(slot.ticks, missed)
        ticks = slot.ticks
        slot.due += FRAME
        for tick in ticks:
            member = self._members.get(tick)
            if member is None:
                continue  # removed by a tick of this round
            try:
                tick()
            except Exception:  # noqa: BLE001 - one call's fault must not stop the others' clock
                self.remove(tick)
                member[1](Failure())
        slot.next = max(slot.due, self._now() + _APART)

    def _tell_skipped(self, ticks: list[Tick], frames: int) -> None:
        for tick in ticks:
            member = self._members.get(tick)
            if member is None:
                continue  # removed by one before it
            _, failed, skipped = member
            try:
                skipped(frames)
            except Exception:  # noqa: BLE001 - as above
                self.remove(tick)
                failed(Failure())
