"""Learns from how a bot's audio arrives how long it must wait before it is played.

The lateness of a chunk is its arrival, minus the audio that came before it in this stretch of
audio, relative to the first chunk. If a bot sends in real time, all its chunks are equally late.
Jitter and stalls make some of them later. A bot that sends faster than real time is ever earlier.
"""

from __future__ import annotations

from math import inf
from typing import Final

INTERVAL: Final = 0.4
"""Seconds of arrivals that are judged together."""

MEMORY: Final = 25
"""Intervals that are remembered: 10 seconds."""

OUTLIERS: Final = 2
"""The latest intervals of the memory that are left out. While it is less than half full, and after
two stalls in ten seconds, half of them: one stall is an accident, and two are a pattern. (NetEq, of
WebRTC, takes a quantile for the same reason.)"""

CALM: Final = 3
"""After so many regular intervals in a row, a bot is known to send in real time."""

CALM_AFTER_LEAD: Final = 25
"""The same, after audio that came ahead of time. A bot that keeps its lead for so long will not say
more ahead, and its lead is only a delay."""

SPREAD: Final = 0.2
"""Seconds. If the lateness differs by more within an interval, its arrivals are not regular."""

FIRST: Final = 0.03
"""Seconds from the first chunk to another, after which the first arrivals can be judged."""

LONGEST: Final = 1.2
"""Seconds of an interval with regular arrivals, at most."""

AHEAD: Final = 0.04
"""Seconds. A chunk that is earlier by more than all that came some intervals before it was sent
ahead of time. A bot's clock may be faster than ours by 2 % without that."""

AHEAD_AT_FIRST: Final = 0.15
"""The same within the first interval: its first chunk may have been late."""

_JUST_NOW: Final = 2  # intervals with which this is not yet compared

TOGETHER: Final = 0.005
"""Seconds. Writes that are closer are one chunk."""

BACK: Final = 0.06
"""Seconds. After a gap, chunks that are as late as before it, or later by less, were sent in time:
the gap was a stall on the way. Else the bot had paused."""

UNDECIDED: Final = 4
"""Intervals after a gap, after which it was a pause if what was late has not come by then."""

SAFETY: Final = 1.3
"""The wait is so many times the jitter: the next chunk may be later than any before."""

ENOUGH: Final = 0.036
"""Seconds. Audio that waits no longer than this is never made shorter. With chunks of 40 ms the
delay is 45 ms on average then, which nobody hears."""

FORGETTING: Final = 0.05
"""With each interval, the wait comes closer by this part to a shorter one that is enough. Else it
would go up and down with each burst of jitter, and the audio would be scaled each time."""

MARGIN: Final = 0.002
"""Seconds that are added to the jitter: a tick of the clock may be late."""


class Arrivals:
    """The arrivals of one bot's audio. Times are in seconds of a monotonic clock.

    `wait`: how long audio that comes when it is due must wait, so that audio that comes late is
    there in time. It is between `least` and `most`. `real_time`: the bot is known to send in real
    time. `judging`: it is not known yet whether the last gap was a pause. If it was a stall on the
    way, `came_back` is True after that.

    `surplus`: by how many seconds audio waited too long in the last interval; less than 0: too
    short; None while this cannot be known. It is None for a bot that sends faster than real
    time: what it says in advance waits until it is due. It is the least of the interval: when a
    tick of the phone's clock is late, audio only seems to wait longer.
    """

    __slots__ = (
        "_base",
        "_before_gap",
        "_calm",
        "_earliest",
        "_earliests",
        "_expected",
        "_interval",
        "_jitters",
        "_last",
        "_latest",
        "_least",
        "_needed",
        "_recent",
        "_since",
        "_spare",
        "_stalls",
        "_undecided",
        "_until",
        "came_back",
        "most",
        "real_time",
        "surplus",
        "wait",
    )

    def __init__(self, least: float, most: float) -> None:
        self._least, self.most = least, max(least, most)
        # Of each interval, the oldest first: the least lateness of its chunks, in this stretch; and
        # by how much the latest of them was later than what was usual then.
        self._earliests: list[float] = []
        self._jitters: list[float] = []
        self._interval = 0  # its number
        self._stalls: list[int] = []  # intervals that a stall has ended
        self.forget()

    def forget(self) -> None:
        """Another bot sends from now on."""
        self._jitters.clear()
        self._stalls.clear()
        self._calm, self._needed = 0, CALM
        self.real_time = False
        self.wait = self._least
        self.begin()

    def begin(self) -> None:
        """A new stretch of audio begins with the next chunk. What is known of jitter is kept."""
        self._earliests.clear()
        self._recent = 0  # intervals of this stretch
        self._expected: float | None = None  # when the next chunk comes if the bot is never late
        self._base = 0.0  # the lateness of a chunk that comes when it is due
        self._before_gap: float | None = None
        self.came_back = False
        self.surplus: float | None = None
        self._open(-inf)

    def gap(self, now: float) -> None:
        """The queue was dry, and audio comes again."""
        self._before_gap, self._undecided = self._base, 0
        self.came_back = False
        self._open(now)

    @property
    def judging(self) -> bool:
        """True from a gap on until it is known whether it was a stall or a pause."""
        return self._before_gap is not None

    @property
    def regular(self) -> bool:
        """True if the last interval's arrivals were regular, or the first ones are so far."""
        if self._jitters:
            return self._calm > 0
        return self._last - self._since > FIRST and self._latest - self._earliest <= SPREAD

    def _open(self, now: float) -> None:
        self._since, self._until = now, now + INTERVAL
        self._last = -inf
        self._latest, self._earliest = -inf, inf
        self._spare = inf

    def add(self, now: float, seconds: float, deadline: float = inf) -> bool:
        """A chunk of `seconds` has arrived. Returns True if an interval has ended with it.

        `deadline`: when the next chunk must be there, as it looks now. It is the tick of the frame
        in which the next chunk begins; if it waits for nothing, infinite.
        """
        expected = self._expected
        if expected is None:
            self._open(now)
            expected = now
        self._expected = following = expected + seconds
        if now - self._last < TOGETHER:
            return False
        self._last = now
        late = now - expected
        if late > self._latest:
            self._latest = late
        if late < self._earliest:
            self._earliest = late
        spare = deadline - following
        if spare < self._spare:
            self._spare = spare
        if now < self._until:
            return False
        self._close(now)
        return True

    def moved(self, seconds: float) -> None:
        """What waits has become longer by `seconds`; less than 0: shorter. The chunks that came
        before must not ask for the same change once more."""
        self._spare += seconds

    def _close(self, now: float) -> None:
        if self._before_gap is not None and not self._judge_gap(self._before_gap):
            self._open(now)
            return
        latest, earliest = self._latest, self._earliest
        regular = latest - earliest <= SPREAD and now - self._since <= LONGEST
        ahead = self._is_ahead(latest, earliest)
        if ahead:
            self._calm, self._needed, self.real_time = 0, CALM_AFTER_LEAD, False
            for number in range(1, min(self._recent, MEMORY) + 1):
                self._jitters[-number] = 0.0  # what came ahead of time had no jitter
        elif not regular:
            self._calm = 0
        else:
            self._calm += 1
            if self._calm >= self._needed:
                self.real_time, self._needed = True, CALM
        self._earliests.append(earliest)
        self._base = min(self._earliests[-CALM:])
        self._jitters.append(0.0 if ahead else latest - self._base)
        self._recent += 1
        del self._earliests[:-MEMORY], self._jitters[:-MEMORY]
        self._estimate()
        self.surplus = self._surplus()
        self._open(now)

    def _judge_gap(self, before: float) -> bool:
        """Find out whether a gap was a stall or a pause; False if that cannot be told yet."""
        late = self._earliest - before
        self.came_back = late < BACK
        if self.came_back:
            self._stalls.append(self._interval)
        else:
            self._undecided += 1
            if self._latest - self._earliest > BACK and self._undecided < UNDECIDED:
                return False  # the lateness shrinks: what was stalled is still on its way
            # The bot had paused: its audio was due later.
            assert self._expected is not None
            self._expected += late
            self._latest -= late
            self._earliest -= late
            self._spare -= late
        self._before_gap = None
        return True

    def _is_ahead(self, latest: float, earliest: float) -> bool:
        before = self._earliests[:-_JUST_NOW] or self._earliests[:1]
        if not before:
            return earliest < latest - AHEAD_AT_FIRST
        return earliest < min(before) - AHEAD

    def _estimate(self) -> None:
        jitter = sorted(self._jitters)
        self._interval += 1
        self._stalls = [at for at in self._stalls if at > self._interval - MEMORY]
        few = len(self._stalls) < OUTLIERS and len(jitter) > MEMORY // 2
        left_out = OUTLIERS if few else OUTLIERS // 2
        usual = jitter[-1 - left_out] if len(jitter) > left_out else 0.0
        wait = min(max(self._least, SAFETY * usual + MARGIN), self.most)
        self.wait = max(wait, self.wait - FORGETTING * (self.wait - wait))

    def _surplus(self) -> float | None:
        if not (self.real_time and self._calm) or self.judging or self._spare == inf:
            return None
        waits = self._spare - self._base
        surplus = waits - max(self.wait, self._jitters[-1])
        return min(surplus, 0.0) if waits < ENOUGH else surplus
