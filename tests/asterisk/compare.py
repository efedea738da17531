"""What a recording has of a signal: where, how well, and with which holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.asterisk.sound import Signal

MOST_LATE = 0.4
"""Seconds by which a place may be later than the one before, or earlier."""

NEAR = 0.4
"""Seconds from a place to where its disturbance ends: two windows."""


@dataclass(frozen=True)
class Comparison:
    """`heard` held against `said`."""

    delay: float
    """Seconds from `said` to `heard` at the beginning, fractions of a sample included."""
    correlation: float
    """Over the whole of `said`, the delay and its jumps taken out; 1 is the same signal."""
    snr: float
    """dB, after delay and gain were taken out."""
    jumps: tuple[tuple[float, float], ...]
    """(second in `said`, seconds) of each place from where on the signal comes that much later."""
    gaps: tuple[tuple[float, float], ...]
    """(second in `said`, length) of each stretch that is silent in `heard` and not in `said`."""
    disturbed: tuple[float, ...] = ()
    """Seconds in `said` at which Asterisk itself was late: what is heard there tells nothing of the
    bridge."""
    unlike: tuple[float, ...] = ()
    """Seconds in `said`, away from those in `disturbed`, from where on a fifth of a second is heard
    as something else, whenever it is heard. Looked for only where Asterisk was late."""

    @property
    def figures(self) -> dict[str, float]:
        """What stands in a table of measurements."""
        return {
            "delay_ms": round(1000 * self.delay, 2),
            "correlation": round(self.correlation, 6),
            "snr_db": round(self.snr, 1),
            "gaps": len(self.gaps),
            "jumps": len(self.jumps),
        }


def compare(said: Signal, heard: Signal, rate: int) -> Comparison:
    """Find `said` in `heard`, both at `rate`; `heard` may begin earlier and end later.

    Raises ValueError when there is nothing in one of them.
    """
    if not said.any() or not heard.any():
        raise ValueError(f"silence: peak said {np.ptp(said):.4f}, peak heard {np.ptp(heard):.4f}")
    lag = _first_lag(said, heard, rate)
    jumps = _jumps(said, heard, lag, rate)
    if jumps and jumps[0][0] < _start(said) / rate + 0.1:
        # The second by which the lag was found has a jump in it: the signal began at another.
        lag, jumps = lag + jumps[0][1] * rate, jumps[1:]
    found = _follow(said, heard, lag, jumps, rate)
    gain = float(said @ found) / float(said @ said)
    noise = found - gain * said
    power = gain * gain * float(said @ said)
    return Comparison(
        delay=lag / rate,
        correlation=_alike(said, found),
        snr=10 * float(np.log10(power / max(float(noise @ noise), 1e-20))),
        jumps=jumps,
        gaps=_gaps(gain * said, found, rate),
    )


def unlike(
    said: Signal, heard: Signal, rate: int, disturbed: tuple[float, ...]
) -> tuple[float, ...]:
    """Seconds of `said` that are not found in `heard`: see `Comparison.unlike`."""
    window, reach = rate // 5, round(MOST_LATE * rate)
    missing = []
    last = round(_first_lag(said, heard, rate))
    for start in range(0, len(said) - window + 1, window):
        part, second = said[start : start + window], start / rate
        if _level(part) < 0.01:
            continue
        around = _shifted(heard, last + start - reach, window + 2 * reach)
        lag = _fractional_lag(part, around) - reach + last
        if _alike(part, _shifted(heard, lag + start, window)) > 0.98:
            last = round(lag)
        elif not any(-NEAR < second - at < NEAR for at in disturbed):
            missing.append(second)
    return tuple(missing)


def _first_lag(said: Signal, heard: Signal, rate: int) -> float:
    """The lag of the first second that is not silent."""
    start = _start(said)
    return _fractional_lag(said[start : start + rate], heard) - start


def _start(said: Signal) -> int:
    return int(np.flatnonzero(np.abs(said) > 0.02)[0])


def _follow(
    said: Signal, heard: Signal, lag: float, jumps: tuple[tuple[float, float], ...], rate: int
) -> Signal:
    """`heard` in the time of `said`: each piece between two jumps at its own lag."""
    found = _shifted(heard, lag, len(said))
    for second, shift in jumps:
        lag += shift * rate
        later = _shifted(heard, lag, len(said))
        # The jump is somewhere in the windows around: where the two pieces together fit best.
        low, high = max(0, round((second - 0.2) * rate)), round((second + 0.2) * rate)
        before = np.cumsum((found[low:high] - said[low:high]) ** 2)
        after = np.cumsum((later[low:high] - said[low:high])[::-1] ** 2)[::-1]
        cut = low + int(np.argmin(before[:-1] + after[1:])) + 1
        found = np.concatenate([found[:cut], later[cut:]])
    return found


def _correlate(said: Signal, heard: Signal) -> Signal:
    """Correlation at lags 0 .. len(heard)-1, then the negative lags from the end."""
    size = 1 << (len(said) + len(heard) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size)), size)


def _fractional_lag(said: Signal, heard: Signal) -> float:
    """The lag of the highest correlation, to a hundredth of a sample."""
    curve = _correlate(said, heard)
    best = int(np.argmax(curve))
    whole = best if best < len(heard) else best - len(curve)
    steps = np.linspace(-1.0, 1.0, 201)
    near = np.take(curve, np.arange(best - 32, best + 33), mode="wrap")
    values = [float(near @ np.sinc(np.arange(-32, 33) - step)) for step in steps]
    return whole + float(steps[int(np.argmax(values))])


def _shifted(heard: Signal, lag: float, count: int) -> Signal:
    """`count` samples of `heard` from `lag` on, between samples where need be, zeros outside."""
    whole = int(np.floor(lag))
    margin = 64
    padded = np.pad(
        heard, (max(0, margin - whole), margin + max(0, whole + count + margin - len(heard)))
    )
    start = max(whole, margin) - margin if whole >= margin else 0
    part = padded[start : start + count + 2 * margin]
    spectrum = np.fft.rfft(part)
    turn = np.exp(2j * np.pi * np.arange(len(spectrum)) * (lag - whole) / len(part))
    return np.asarray(np.fft.irfft(spectrum * turn, len(part))[margin : margin + count])


def _jumps(said: Signal, heard: Signal, lag: float, rate: int) -> tuple[tuple[float, float], ...]:
    """Where a window of 200 ms is no longer at the lag of the one before.

    A voice repeats itself, so a window that is where it should be is not looked for elsewhere.
    """
    window, reach = rate // 5, rate // 4
    jumps: list[tuple[float, float]] = []
    last = lag
    for start in range(0, len(said) - window + 1, window // 2):
        part = said[start : start + window]
        if _level(part) < 0.01 or _alike(part, _shifted(heard, last + start, window)) > 0.98:
            continue
        around = _shifted(heard, round(last) + start - reach, window + 2 * reach)
        here = _fractional_lag(part, around) - reach + round(last)
        if abs(here - last) > 1.0 and _alike(part, _shifted(heard, here + start, window)) > 0.98:
            jumps.append((start / rate, (here - last) / rate))
            last = here
    return tuple(jumps)


def _level(part: Signal) -> float:
    return float(np.sqrt(np.mean(part**2)))


def _alike(one: Signal, other: Signal) -> float:
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale else 0.0


def _gaps(said: Signal, found: Signal, rate: int) -> tuple[tuple[float, float], ...]:
    """Stretches of 5 ms and more in which `said` is loud and `found` is 30 dB below it."""
    block = rate // 200
    count = len(said) // block
    levels = [
        np.sqrt(np.mean(x[: count * block].reshape(count, block) ** 2, axis=1))
        for x in (said, found)
    ]
    missing = (levels[0] > 0.005) & (levels[1] < levels[0] / 31.6)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], missing.astype(np.int8), [0]))))
    return tuple(
        (float(start * block / rate), float((stop - start) * block / rate))
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    )
